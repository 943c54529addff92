"""What a miner selects, as a set of tuples: compared with another, told by its signs, known by other indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nearfar.testing.scene import Scene

__all__ = ["Chosen", "as_set", "difference", "malformed", "renamed", "signed_pairs", "undirected"]

#: A selection as a set: ``(sign, anchor, other)`` of pairs, ``(anchor, positive, negative)`` of triplets.
Chosen = frozenset[tuple[Any, ...]]

_SIGNS = ("positive", "negative")


def malformed(found: Any, scene: Scene) -> str:
    """What is wrong with a selection as such; empty where nothing is."""
    if not isinstance(found, Sequence) or len(found) not in (3, 4):
        return f"a selection is a tuple of three or four index tensors; got a {type(found).__name__}"
    device, batch = scene["embeddings"].device, len(scene["labels"])
    reference = len(scene["ref_labels"]) if "ref_labels" in scene else batch
    for position, index in enumerate(found):
        if not isinstance(index, Tensor) or index.ndim != 1:
            return f"tensor {position} is no vector of indices"
        if index.dtype != torch.int64:
            return f"tensor {position} is {index.dtype}; indices are int64"
        if index.device.type != device.type:
            return f"tensor {position} is on {index.device}, the embeddings on {device}"
        is_anchor = position == 0 or (len(found) == 4 and position == 2)
        size, what = (batch, "embeddings") if is_anchor else (reference, "references")
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
            return f"tensor {position} has indices {int(index.min())} to {int(index.max())} of {size} {what}"
    lengths = [len(index) for index in found]
    if lengths[0] != lengths[1] or lengths[-1] != lengths[-2]:
        return f"tensors that belong together are of the lengths {lengths}"
    return ""


def as_set(indices: Sequence[Tensor]) -> Chosen:
    """The three or four index tensors of a miner as a set."""
    if len(indices) == 3:
        return frozenset(zip(*map(_listed, indices), strict=True))
    halves = zip(_SIGNS, (indices[:2], indices[2:]), strict=True)
    return frozenset((sign, a, other) for sign, half in halves for a, other in zip(*map(_listed, half), strict=True))


def _listed(index: Tensor) -> list[int]:
    return index.tolist()


def signed_pairs(chosen: Chosen) -> Iterator[tuple[str, int, int]]:
    """Every pair of a selection with its sign; a triplet has one of each."""
    for choice in sorted(chosen):
        if choice[0] in _SIGNS:
            yield choice
        else:
            yield "positive", choice[0], choice[1]
            yield "negative", choice[0], choice[2]


def renamed(chosen: Chosen, anchor: Callable[[int], int], other: Callable[[int], int]) -> Chosen:
    """A selection by other indices of its anchors and of what they are compared with."""
    return frozenset(
        (c[0], anchor(c[1]), other(c[2])) if c[0] in _SIGNS else (anchor(c[0]), other(c[1]), other(c[2]))
        for c in chosen
    )


def undirected(chosen: Chosen) -> Chosen:
    """Pairs of one batch without their direction: both have the same distance, and either may be taken for a tie."""
    return frozenset((c[0], *sorted(c[1:])) if c[0] in _SIGNS else c for c in chosen)


def difference(found: Chosen, expected: Chosen) -> str:
    """How a selection differs from another one, in words."""
    sides = (found - expected, "more"), (expected - found, "fewer")
    return " and ".join(f"{len(each)} {what}, such as {min(each)}" for each, what in sides if each)
