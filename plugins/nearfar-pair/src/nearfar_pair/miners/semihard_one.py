"""One semi-hard negative for each positive pair.

Schroff, Kalenichenko, Philbin (2015): FaceNet: A Unified Embedding for Face Recognition and Clustering.
arXiv:1503.03832, section 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection
from nearfar_pair.arithmetic import first_least
from nearfar_pair.mining import choices
from nearfar_pair.sides import FAR, Rows

__all__ = ["SemiHardOne"]

#: Up to so many positives of an anchor looking at all negatives for each takes less than sorting these.
FEW = 16


class SemiHardOne(Miner):
    r"""For each positive pair the nearest negative beyond it.

    .. math:: (a,\ p,\ \arg\min_{n:\, d(a, n) > d(a, p)} d(a, n))

    Parameters
    ----------
    distance : nn.Module, optional
        What d is, a similarity being negated; unset, that of the loss, and Euclidean without one.

    Notes
    -----
    At most one triplet a positive pair, by anchor and positive; a pair with no negative beyond it has none. Of equally
    near ones the first in the batch is taken. No margin is needed: where the nearest lies beyond the margin, so do the
    others, and a hinge costs nothing.

    Deviation: the paper does not say which of the semi-hard negatives is taken; the nearest costs the most.

    References
    ----------
    Schroff et al. (2015), arXiv:1503.03832, equation 4.
    """

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        rows = choices(batch, distance, _nearest_beyond)
        nearest, found = rows.outputs
        anchor, place = torch.where(found)
        return IndexSelection((anchor, rows.table[0][anchor, place], nearest[anchor, place]))


def _nearest_beyond(rows: Rows) -> tuple[Tensor, Tensor]:
    """(r, k) for each positive the nearest negative beyond it, and whether there is one."""
    # What is not a number must show in the loss: such a positive is near, such a negative far, and both are taken.
    d_ap, d_an = rows.d_ap.nan_to_num(nan=-FAR), rows.d_an.nan_to_num(nan=FAR / 2)
    if d_ap.shape[1] <= FEW:
        places = [first_least(_far_unless_beyond(d_an, d)) for d in torch.split(d_ap, 1, dim=1)]
        nearest = torch.cat(places, 1)
    else:
        # In order, the first beyond a positive is found by bisection.
        ordered, place = d_an.sort(dim=1, stable=True)
        beyond = torch.searchsorted(ordered, d_ap, right=True)
        nearest = place.gather(1, beyond.clamp_max_(d_an.shape[1] - 1))
    chosen = d_an.gather(1, nearest)
    return nearest, rows.valid & (chosen > d_ap) & (chosen < FAR)


def _far_unless_beyond(d_an: Tensor, d_ap: Tensor) -> Tensor:
    """(r, m) distances of the negatives, and FAR and more of those that are no farther than the positive (r, 1)."""
    # A product and a sum of numbers, as choosing by a mask takes ten times as long.
    return torch.le(d_an, d_ap, out=torch.empty_like(d_an)).mul_(FAR).add_(d_an)
