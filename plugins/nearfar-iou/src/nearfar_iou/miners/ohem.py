"""Online hard example mining: Shrivastava et al. 2016, arXiv:1604.03540."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn import Terms
from nearfar.nn.arguments import within
from nearfar.nn.element_miners import ElementMiner, rank_in_group
from nearfar_iou.miners.groups import groups_of

__all__ = ["OHEM"]


class OHEM(ElementMiner):
    r"""Online hard example mining: of a loss's terms those that cost the most.

    .. math:: \{k : L_k \text{ is among the } \min(\text{count}, \lceil \text{share} \cdot K \rceil) \text{ greatest}\}

    of each group, such as an image, where the loss is given groups, and of each sub-loss, such as that of positive
    pairs. It works on any loss: a mean is then one of what was kept, unless the loss has a normaliser of its own. Of
    terms that tie for the last place those that come first are kept.

    Parameters
    ----------
    count : int, optional
        [1..inf] How many are kept at most; 128 as in the paper. None: as many as ``share`` says.
    share : float, optional
        (0..1] Which part of them is kept at most. None: as many as ``count`` says.
    miner : nn.Module, optional
        What selects, or matches, before the loss is computed.

    Raises
    ------
    ArgumentError
        ``count`` or ``share`` is out of its range, or both are None.

    References
    ----------
    Shrivastava et al. (2016), arXiv:1604.03540.

    Deviations: regions that overlap a harder one are kept; the paper takes them out by non-maximum suppression.
    """

    def __init__(self, count: int | None = 128, share: float | None = None, *, miner: nn.Module | None = None) -> None:
        super().__init__(miner=miner)
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ArgumentError(f"OHEM: count must be a whole number of at least 1, or None; got {count!r}")
        if share is not None and within("share", share, 0, 1) == 0:
            raise ArgumentError("OHEM: share must be greater than 0")
        if count is None and share is None:
            raise ArgumentError("OHEM: give count, how many are kept, or share, which part of them")
        self.count, self.share = count, share

    def keep(self, named: Mapping[str, Terms]) -> dict[str, Tensor]:
        return {name: self._hardest(terms) for name, terms in named.items()}

    def _hardest(self, terms: Terms) -> Tensor:
        groups = groups_of(terms)
        rank = rank_in_group(terms.values, groups)
        kept = torch.ones_like(rank, dtype=torch.bool)
        if self.count is not None:
            kept = rank < self.count
        if self.share is not None and self.share < 1:
            size = torch.zeros_like(groups).index_add(0, groups, torch.ones_like(groups))[groups]
            # In float64, and less what a share such as 0.1 is greater than a tenth: 0.1 of 10 is 1, not 2.
            kept &= rank < torch.ceil(size.double() * self.share * (1 - 4 * math.ulp(1)))
        return kept

    def extra_repr(self) -> str:
        return f"count={self.count}, share={self.share}"
