"""Numbers with what they count, in words."""

from __future__ import annotations

__all__ = ["number_of"]


def number_of(count: int, one: str, several: str = "") -> str:
    """``1 epoch``, ``2 epochs``; ``several`` where an s is not how it is written, as ``criteria``."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"
