"""Laws without which the others mean nothing: where a part breaks one of these, the others are skipped and say so."""

from __future__ import annotations

from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.subject import Subject
from nearfar.testing.trouble import ROOTS


@law("loss", standalone=True)
def sample(subject: Subject) -> None:
    """The function that makes inputs returns a float64 tensor for each input that has a name, follows its seed alone,
    and makes more rows where more are asked for."""
    if not subject.loss.sample:
        raise NotApplicable("its spec names no sample")
    _hold(subject, "sample")


@law("loss", "miner", "reducer", "distance", standalone=True)
def runs(subject: Subject) -> None:
    """The part can be made from its spec alone, and a plain call of it gives something finite; of a loss one number."""
    _hold(subject, "runs")


@law("loss", standalone=True)
def differentiable(subject: Subject) -> None:
    """The value of a plain batch is connected with the inputs or the parameters, and its gradient is finite."""
    _hold(subject, "differentiable")


def _hold(subject: Subject, name: str) -> None:
    trouble, order = subject.trouble, list(ROOTS)
    if trouble is None or order.index(name) < order.index(trouble.law):
        return
    if trouble.law == name:
        raise LawBroken(trouble.said, trouble.scene)
    raise NotApplicable(f"see the law `{trouble.law}`: {trouble.said}")
