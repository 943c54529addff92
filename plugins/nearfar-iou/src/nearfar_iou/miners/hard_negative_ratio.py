"""Hard negative mining: Liu et al. 2016, "SSD", arXiv:1512.02325."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn import Terms
from nearfar.nn.arguments import non_negative
from nearfar.nn.element_miners import ElementMiner, rank_in_group
from nearfar_iou.miners.groups import groups_of

__all__ = ["HardNegativeRatio"]


class HardNegativeRatio(ElementMiner):
    r"""Every positive, and of the negatives so many times as many that cost the most.

    .. math:: |N| \le \max(\lfloor \text{ratio} \cdot |P| \rfloor, \text{minimum})

    within each group, such as an image, where the loss is given groups. Positives and negatives are anchors with an
    object and without, of losses on logits; of losses on pairs they are positive and negative pairs. Of terms that tie
    for the last place those that come first are kept. A mean is one of what was kept, unless the loss has a normaliser
    of its own: SSD divides by the number of positives, which a matcher sees to.

    Parameters
    ----------
    ratio : float
        [0..inf] How many negatives there are at most for each positive; 3 as in the paper.
    minimum : int
        [0..inf] How many negatives are kept where so many positives do not ask for as many: of an image without any,
        for one.
    miner : nn.Module, optional
        What selects, or matches, before the loss is computed.

    Raises
    ------
    ArgumentError
        ``ratio`` or ``minimum`` is out of its range.
    InputError
        When called: the loss does not say which of its elements are positives.

    References
    ----------
    Liu et al. (2016), arXiv:1512.02325, section 2.2. Deviations: none.
    """

    def __init__(self, ratio: float = 3.0, minimum: int = 0, *, miner: nn.Module | None = None) -> None:
        super().__init__(miner=miner)
        self.ratio = non_negative("ratio", ratio)
        if isinstance(minimum, bool) or not isinstance(minimum, int) or minimum < 0:
            raise ArgumentError(f"HardNegativeRatio: minimum must be a whole number of at least 0; got {minimum!r}")
        self.minimum = minimum

    def keep(self, named: Mapping[str, Terms]) -> dict[str, Tensor]:
        positive = {name: _positive(terms) for name, terms in named.items()}
        values = torch.cat([terms.values for terms in named.values()])
        is_positive = torch.cat(list(positive.values()))
        groups = torch.cat([groups_of(terms) for terms in named.values()])
        count = torch.zeros_like(groups).index_add(0, groups, is_positive.long())[groups] if len(groups) else groups
        allowed = (self.ratio * count.double()).floor().clamp_min(self.minimum)
        # Positives are numbered as groups of their own, so that negatives are ranked among themselves.
        kept = is_positive | (rank_in_group(values, 2 * groups + is_positive) < allowed)
        return dict(zip(named, torch.split(kept, [len(each) for each in positive.values()]), strict=True))

    def extra_repr(self) -> str:
        return f"ratio={self.ratio}, minimum={self.minimum}"


def _positive(terms: Terms) -> Tensor:
    """Which values are of positives, (k,) boolean."""
    if terms.kind in ("pos_pair", "neg_pair"):
        return torch.full_like(terms.indices[0], terms.kind == "pos_pair", dtype=torch.bool)
    if terms.positives is None:
        raise InputError(
            f"hard_negative_ratio needs to know positives from negatives, and these {terms.kind} terms do not say; it "
            "is for losses on logits with a background, and on pairs"
        )
    return terms.positives[terms.indices[0]]
