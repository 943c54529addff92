"""Search for an input on which a law does not hold: hypothesis draws it, and makes it small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as start_from
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy

from nearfar.testing.law import LawBroken
from nearfar.testing.scene import DIM, Scene
from nearfar.testing.subject import Subject

__all__ = ["for_all", "roomy_scenes", "scenes"]


def scenes(subject: Subject) -> SearchStrategy[Scene]:
    """Scenes of 2 to 4 classes with 2 to 4 samples each, in 2 to 8 dimensions where any will do."""
    dims = st.integers(2, DIM) if subject.has_free_size else st.just(DIM)
    return st.builds(
        subject.scene, classes=st.integers(2, 4), per_class=st.integers(2, 4), dim=dims, seed=st.integers(0, 2**16)
    )


def roomy_scenes(subject: Subject) -> SearchStrategy[Scene]:
    """As :func:`scenes`, in so many dimensions that no two samples come to lie on one line."""
    sizes = st.integers(2, 4)
    return st.builds(subject.scene, classes=sizes, per_class=sizes, seed=st.integers(0, 2**16))


def for_all(
    subject: Subject, holds: Callable[..., None], *, examples: int = 10, **strategies: SearchStrategy[Any]
) -> None:
    """Call ``holds`` with drawn arguments until it raises; what it raises is of the smallest arguments found.

    Parameters
    ----------
    subject
        The part: its seed starts the search, so the same seed finds the same.
    holds
        Raises where the law does not hold.
    examples
        How many arguments are tried.
    **strategies
        Keyword → hypothesis's strategy for it.
    """
    configured = settings(
        max_examples=examples,
        phases=(Phase.generate, Phase.shrink),
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )

    raised: list[Exception] = []

    def run(**drawn: Any) -> None:
        try:
            holds(**drawn)
        except Exception as error:
            raised.append(error)
            raise

    try:
        start_from(subject.seed)(configured(given(**strategies)(run)))()
    except Flaky:
        raise _not_again(raised[-1]) from None


def _not_again(error: Exception) -> Exception:
    """What was raised, by arguments of which the law held when it was asked again."""
    if not isinstance(error, LawBroken):
        return error
    said = f"{error}; asked again about the same it held, so something is kept between calls or drawn without a seed"
    return LawBroken(said, error.scene, **error.arguments)
