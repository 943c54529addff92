"""The laws that every part is held to, and what holds it to them.

Two lines in a plugin's own tests check everything that holds for all parts, so that what is left to test by
hand is the formula::

    from nearfar.testing import parts


    @parts("acme")
    def test_conformance(check):
        check()

``nearfar check-plugin acme`` does the same without pytest. Nothing here is loaded unless it is imported.
"""

from __future__ import annotations

from nearfar.errors import MissingExtra

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise MissingExtra("checking a plugin", extra="testing") from error

from nearfar.project import find_plugin
from nearfar.testing.check import Check, Result, checks_of
from nearfar.testing.law import LAWS, Law
from nearfar.testing.lookup import find_check
from nearfar.testing.parametrize import parts
from nearfar.testing.ranks import run_on_ranks
from nearfar.testing.report import Report, run
from nearfar.testing.scene import batch
from nearfar.testing.subject import seeded

__all__ = [
    "LAWS",
    "Check",
    "Law",
    "Report",
    "Result",
    "batch",
    "checks_of",
    "find_check",
    "find_plugin",
    "parts",
    "run",
    "run_on_ranks",
    "seeded",
]
