"""Which similarities the weight of a pair answers to: its own, those to positives, those to negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.explain.anchor import Anchor

#: What may be changed, in the order of the multi-similarity paper's table.
KINDS = ("self", "positives", "negatives")

Kind = Literal["self", "positives", "negatives"]

# A weight that moves by less is rounding's doing.
_MOVED = 1e-7


@dataclass(frozen=True, slots=True)
class Responses:
    """What the weights of pairs answer to.

    Attributes
    ----------
    negative, positive : frozenset of str
        For a negative and for a positive pair: ``self``, its own similarity; ``positives``, those of the anchor's
        other positive pairs; ``negatives``, those of its other negative pairs.
    """

    negative: frozenset[str]
    positive: frozenset[str]


def responses(recipe: Any, *, draws: int = 48, seed: int = 0, **options: Any) -> Responses:
    """Measure what the weights of pairs answer to, by changing similarities and looking.

    The question is Wang et al.'s (2019), table 1: a contrastive loss looks at a pair's own similarity, a triplet loss
    compares it with the positive, lifted structure with other negatives, multi-similarity does all three.

    Parameters
    ----------
    recipe : str or Recipe
        As for :class:`~nearfar.explain.Anchor`, which ``options`` go to.
    draws : int
        [1..inf] Random constellations; in each one similarity or one group is drawn anew.
    seed : int
        Of the draws.

    Returns
    -------
    Responses

    References
    ----------
    Wang, Han, Huang, Dong, Scott (2019). Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning.
    arXiv:1904.06627, section 3 and table 1.
    """
    anchor = Anchor(recipe, **options)
    generator = torch.Generator().manual_seed(seed)
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for _ in range(draws):
        if all(len(kinds) == len(KINDS) for kinds in found.values()):
            break
        base = _drawn(anchor.positive, generator)
        weights = anchor.weights(base)
        for kind in (True, False):
            target = int((anchor.positive == kind).nonzero()[0])
            for changed in KINDS:
                other = _changed(base, _drawn(anchor.positive, generator), anchor.positive, target, changed)
                if other is None or changed in found[kind]:
                    continue
                before, after = float(weights[target]), float(anchor.weights(other)[target])
                if abs(after - before) > _MOVED * max(abs(after), abs(before), 1e-3):
                    found[kind].add(changed)
    return Responses(frozenset(found[False]), frozenset(found[True]))


def curves(anchor: Anchor, *, points: int = 81) -> dict[str, tuple[Tensor, Tensor]]:
    """The weight of one pair over its own similarity, the others being where they are in the midst of training.

    Returns
    -------
    dict
        ``positive`` and ``negative``: similarities (points,) and weights (points,).
    """
    base = torch.where(anchor.positive, 0.6, 0.3).double()
    # Apart a little, so that ties decide nothing.
    base += torch.linspace(-0.1, 0.1, len(base), dtype=torch.float64)
    at = torch.linspace(-0.98, 0.98, points, dtype=torch.float64)
    found = {}
    for name, kind in (("positive", True), ("negative", False)):
        target = int((anchor.positive == kind).nonzero()[0])
        rows = []
        for s in at:
            similarities = base.clone()
            similarities[target] = s
            rows.append(anchor.weights(similarities)[target])
        found[name] = (at, torch.stack(rows))
    return found


def _drawn(positive: Tensor, generator: torch.Generator) -> Tensor:
    """Similarities: positives round one level, negatives round another, in all orders that training goes through."""
    levels = torch.rand(2, generator=generator, dtype=torch.float64)
    apart = 0.4 * torch.rand(len(positive), generator=generator, dtype=torch.float64) - 0.2
    return (torch.where(positive, -0.2 + 1.1 * levels[0], -0.5 + 1.3 * levels[1]) + apart).clamp(-0.99, 0.99)


def _changed(base: Tensor, drawn: Tensor, positive: Tensor, target: int, what: str) -> Tensor | None:
    """The similarities with a group of them drawn anew, None where there is none in it."""
    others = torch.arange(len(base)) != target
    group = {"self": ~others, "positives": others & positive, "negatives": others & ~positive}[what]
    return torch.where(group, drawn, base) if bool(group.any()) else None
