"""The base class of miners of elements: which of a loss's terms count, by what they cost."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.terms import MaterialTerms, Terms

__all__ = ["ElementMiner", "rank_in_group"]


class ElementMiner(nn.Module):
    """A choice among the terms of a loss, once they are computed; a subclass writes :meth:`keep`.

    Unlike a miner of pairs or triplets it knows nothing of inputs, so it works on any loss: on boxes, logits and
    embeddings. The terms it keeps go to the reducer with all that is known of them, a normaliser too.

    Parameters
    ----------
    miner : nn.Module, optional
        What selects, or matches, before the loss is computed: another miner, of pairs or triplets or a matcher.

    Raises
    ------
    ArgumentError
        ``miner`` is a miner of elements itself.
    """

    produces: ClassVar[str] = "elements"

    def __init__(self, *, miner: nn.Module | None = None) -> None:
        super().__init__()
        if isinstance(miner, ElementMiner):
            raise ArgumentError(f"{type(self).__name__}: one miner of elements cannot go before another")
        self.miner = miner

    @abstractmethod
    def keep(self, named: Mapping[str, Terms]) -> Mapping[str, Tensor]:
        """Of each sub-loss by name, which of its values count: a boolean mask (k,). Nothing here has a history."""

    def forward(self, named: Mapping[str, Terms]) -> dict[str, Terms]:
        """The terms that count, of each sub-loss by name."""
        made = {name: _changed(terms, terms.values) for name, terms in named.items()}
        with torch.no_grad():
            kept = self.keep({name: _changed(terms, terms.values.detach()) for name, terms in made.items()})
        return {name: _changed(terms, terms.values, kept[name].nonzero()[:, 0]) for name, terms in made.items()}


def _changed(terms: Terms, values: Tensor, places: Tensor | None = None) -> Terms:
    """The terms with other values, or with some of these."""
    indices, weights = terms.indices, terms.weights
    if places is not None:
        values, indices = values[places], tuple(index[places] for index in indices)
        weights = None if weights is None else weights[places]
    return MaterialTerms(
        terms.kind,
        values,
        indices,
        num_anchors=terms.num_anchors,
        weights=weights,
        normalizer=terms.normalizer,
        labels=terms.labels,
        groups=terms.groups,
        positives=terms.positives,
    )


def rank_in_group(values: Tensor, groups: Tensor) -> Tensor:
    """The place of each value (k,) within its group (k,) by size, 0 for the greatest; of equal ones the first is first.

    What is not a number counts as greater than all numbers, so that it shows.
    """
    order = values.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    ordered = groups[order]
    place = torch.arange(len(order), device=order.device)
    first = torch.zeros_like(place)
    first[1:] = torch.where(ordered[1:] != ordered[:-1], place[1:], 0)
    return torch.empty_like(order).scatter_(0, order, place - first.cummax(0).values) if len(order) else order
