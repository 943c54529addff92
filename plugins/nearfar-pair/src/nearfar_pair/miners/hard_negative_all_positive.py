"""Every positive with the hardest negative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection
from nearfar_pair.arithmetic import first_least
from nearfar_pair.mining import choices
from nearfar_pair.sides import Rows

__all__ = ["HardNegativeAllPositive"]


class HardNegativeAllPositive(Miner):
    r"""For each positive pair the nearest negative of its anchor, wherever the positive is.

    .. math:: (a,\ p,\ \arg\min_{n:\, y_n \ne y_a} d(a, n))

    Parameters
    ----------
    distance : nn.Module, optional
        What d is, a similarity being negated; unset, that of the loss, and Euclidean without one.

    Notes
    -----
    One triplet a positive pair, by anchor and positive; none of an anchor without a negative. Of equally near ones the
    first in the batch is taken.

    References
    ----------
    Schroff et al. (2015), arXiv:1503.03832, section 3.2: all anchor-positive pairs, with the hard negatives.
    """

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        rows = choices(batch, distance, _nearest)
        nearest, has_both = rows.outputs
        positives, valid = rows.table
        anchor, place = torch.where(valid & has_both[:, None])
        return IndexSelection((anchor, positives[anchor, place], nearest[anchor]))


def _nearest(rows: Rows) -> tuple[Tensor, ...]:
    """(r,) the nearest negative of each anchor, and whether it has one and a positive."""
    return first_least(rows.d_an)[:, 0], rows.has_both
