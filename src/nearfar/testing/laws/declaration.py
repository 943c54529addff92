"""What the spec says is what the part does."""

from __future__ import annotations

from nearfar.testing.law import LawBroken, law
from nearfar.testing.subject import Subject


@law("loss", "miner", "reducer", "distance", standalone=True)
def runs(subject: Subject) -> None:
    """The part can be made from its spec alone, and a plain call of it runs."""
    if subject.trouble:
        raise LawBroken(f"{subject.source({})} does not run: {subject.trouble}")
