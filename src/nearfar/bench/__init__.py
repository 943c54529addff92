"""A fair comparison of criteria: the protocol of "A Metric Learning Reality Check" on any data source.

Musgrave, Belongie and Lim (2020, arXiv 2003.08505) found that most of the reported progress of losses vanishes once all
are given the same: the backbone, the batches, the length of training, as many trials to tune them, and folds of classes
none of which is tested on. ``nearfar bench losses`` gives them the same; :func:`compare` does it from Python::

    from nearfar.bench import Comparison, compare

    found = compare(Comparison.of({"criteria": ["softmax", "arcface", "triplet"], "trials": 10}), "comparison")

What this package needs besides nearfar's own dependencies comes with ``nearfar[bench]``.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from nearfar.errors import MissingExtra

if TYPE_CHECKING:
    from nearfar.bench.comparison import Comparison
    from nearfar.bench.work import compare

_HOME = {"Comparison": "nearfar.bench.comparison", "compare": "nearfar.bench.work"}

__all__ = ["Comparison", "compare"]

if any(importlib.util.find_spec(name) is None for name in ("lightning", "pydantic", "optuna", "scipy")):
    raise MissingExtra("a comparison of criteria", extra="bench")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nearfar.bench' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
