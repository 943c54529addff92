"""Every law, by the module it is written in; importing this writes them all down."""

from nearfar.testing.laws import (
    boxes,
    cost,
    declaration,
    degenerate,
    distances,
    embeddings,
    entry,
    interoperation,
    miners,
    numbers,
    reducers,
    state,
)

__all__ = [
    "boxes",
    "cost",
    "declaration",
    "degenerate",
    "distances",
    "embeddings",
    "entry",
    "interoperation",
    "miners",
    "numbers",
    "reducers",
    "state",
]
