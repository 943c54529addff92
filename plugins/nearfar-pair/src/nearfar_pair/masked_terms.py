"""Terms that fill only a part of a dense tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.nn.terms import Terms

__all__ = ["MaskedTerms"]


class MaskedTerms(Terms):
    """The entries of a dense tensor of costs that a mask picks.

    Sums and counts come from the dense tensor, which needs neither index tensors nor, on a GPU, a
    synchronisation; both are made when somebody asks for the values.

    Parameters
    ----------
    kind
        As in :class:`~nearfar.nn.terms.Terms`: ``element`` for (n,) costs, a kind of pair for (n, m).
    costs
        (n,) or (n, m); 0 where ``mask`` is False.
    mask
        Which entries are terms; boolean, of the same shape.
    labels
        (n,) labels of the batch, or None.
    """

    def __init__(self, kind: str, costs: Tensor, mask: Tensor, *, labels: Tensor | None = None) -> None:
        self.kind = kind
        self.num_anchors = len(costs)
        self.labels = labels
        self._costs = costs
        self._mask = mask

    @property
    def values(self) -> Tensor:
        return self._costs[self._mask]

    @property
    def indices(self) -> tuple[Tensor, ...]:
        return torch.where(self._mask)

    def sum(self) -> Tensor:
        return self._costs.sum()

    def count(self) -> Tensor:
        return self._mask.sum()

    def count_positive(self) -> Tensor:
        return (self._costs > 0).sum()

    def sum_positive(self) -> Tensor:
        return self._costs.clamp_min(0).sum()

    def sum_by_anchor(self) -> Tensor:
        return self._costs if self._costs.ndim == 1 else self._costs.sum(1)

    def count_by_anchor(self) -> Tensor:
        return self._mask.long() if self._mask.ndim == 1 else self._mask.sum(1)
