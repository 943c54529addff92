"""The hardest share of all pairs.

Yuan, Yang, Zhang (2017): Hard-Aware Deeply Cascaded Embedding. arXiv:1611.05720.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

from torch import nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import finite
from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar_pair.hardest import Hardest

__all__ = ["HDC"]


class HDC(Miner):
    r"""Of all positive pairs the share that is farthest apart, of all negative pairs the share that is nearest.

    .. math:: |S_\pm| = \lceil f\, |P_\pm| \rceil

    Parameters
    ----------
    fraction : float
        (0..1] f, of each sort of pair; 0.5 and 0.2 are those of the paper's second and third model, 1 that of its
        first.
    distance : nn.Module, optional
        What far is; unset, that of the loss, and Euclidean without one.

    Raises
    ------
    ArgumentError
        ``fraction`` is out of its range.

    Notes
    -----
    Pairs are ordered over the whole batch, not by anchor, so that an anchor may be in none. Of pairs equally far those
    come first whose anchor does, then whose other does. At least one pair of each sort is selected where there is one,
    and never one more than the share, f being the decimal number that it is written as: 0.55 of 20 are 11.
    The end of each share is found in a few passes over the rows of distances; a loss applies it as a rule. Within a
    batch both ways of a pair are pairs: where a share ends between them, rounding of their distances tells which is in.

    In the paper models of growing depth get the pairs that the one before finds hard; each has a loss of its own:
    ``contrastive + contrastive(miner=hdc(0.5))``, called with the embeddings of its depth.

    References
    ----------
    Yuan et al. (2017), arXiv:1611.05720, section 3.2. Deviation: the share is of all pairs of the batch; the paper's is
    of those that the model before kept.
    """

    def __init__(self, fraction: float = 0.5, *, distance: nn.Module | None = None) -> None:
        super().__init__(distance=distance)
        if not 0 < finite("fraction", fraction) <= 1:
            raise ArgumentError(f"fraction lies above 0, up to 1; got {fraction!r}")
        self.fraction = float(fraction)

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> Hardest:
        return Hardest(batch, distance, lambda pairs: how_many(self.fraction, pairs))

    def extra_repr(self) -> str:
        return f"fraction={self.fraction}"


def how_many(fraction: float, count: int) -> int:
    """The share of a count, rounded up: of the fraction as it is written, whose product in floats may be above."""
    part, whole = _as_written(fraction)
    return -(-part * count // whole)


@functools.cache
def _as_written(fraction: float) -> tuple[int, int]:
    return Fraction(str(fraction)).as_integer_ratio()
