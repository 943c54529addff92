"""One positive and one negative of each anchor, easy, hard or semi-hard.

Xuan, Stylianou, Pless (2020): Improved Embeddings with Easy Positive Triplet Mining. arXiv:1904.04370.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice
from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection, Selection
from nearfar_pair.arithmetic import first_least
from nearfar_pair.mining import choices
from nearfar_pair.pair_rules import DistanceRule
from nearfar_pair.sides import FAR, Rows

__all__ = ["BatchEasyHard"]

Range = tuple[float, float]
STRATEGIES = ("easy", "hard", "semihard", "all")


class BatchEasyHard(Miner):
    r"""Of each anchor a positive and a negative, each by a strategy of its own.

    ============  =====================================  =====================================
    Strategy      Positive                               Negative
    ============  =====================================  =====================================
    ``easy``      the nearest                            the farthest
    ``hard``      the farthest                           the nearest
    ``semihard``  the farthest that is nearer than the   the nearest that is farther than the
                  chosen negative                        chosen positive
    ``all``       every one                              every one
    ============  =====================================  =====================================

    Parameters
    ----------
    pos_strategy : {"easy", "hard", "semihard", "all"}
        How the positive is chosen; the default is the paper's easy positive.
    neg_strategy : {"easy", "hard", "semihard", "all"}
        How the negative is chosen; the default is the paper's semi-hard negative.
    allowed_pos_range : tuple of two floats, optional
        [units of the distance] Positives at another distance are none; both ends are allowed.
    allowed_neg_range : tuple of two floats, optional
        [units of the distance] Negatives at another distance are none; both ends are allowed.
    distance : nn.Module, optional
        What nearness is; unset, that of the loss, and Euclidean without one.

    Raises
    ------
    ArgumentError
        A strategy is none of these, ``semihard`` has no single element on the other side to be compared with, or a
        range is not two numbers in order.

    Notes
    -----
    An anchor is left out where either side has nothing to choose. Of equally far ones the first in the batch is taken.
    For a similarity a range is of similarities.

    Deviation: pytorch-metric-learning keeps the pairs of ``all`` also of anchors without the other side.

    References
    ----------
    Xuan et al. (2020), arXiv:1904.04370, section 3.
    """

    def __init__(
        self,
        pos_strategy: Literal["easy", "hard", "semihard", "all"] = "easy",
        neg_strategy: Literal["easy", "hard", "semihard", "all"] = "semihard",
        allowed_pos_range: Range | None = None,
        allowed_neg_range: Range | None = None,
        *,
        distance: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance)
        self.pos_strategy = check_choice(self, "pos_strategy", pos_strategy, STRATEGIES)
        self.neg_strategy = check_choice(self, "neg_strategy", neg_strategy, STRATEGIES)
        both = {pos_strategy, neg_strategy}
        if "semihard" in both and both <= {"semihard", "all"}:
            raise ArgumentError(
                "semihard is farther or nearer than one chosen element of the other side, so the other strategy must "
                f"be 'easy' or 'hard'; got pos_strategy={pos_strategy!r}, neg_strategy={neg_strategy!r}"
            )
        self.allowed_pos_range = _range("allowed_pos_range", allowed_pos_range)
        self.allowed_neg_range = _range("allowed_neg_range", allowed_neg_range)

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> Selection:
        if self.neg_strategy == "all":
            return _WithEveryNegative(batch, distance, self)
        chosen = functools.partial(self._chosen, is_inverted=distance.is_inverted)
        rows = choices(batch, distance, lambda rows: chosen(rows.d_ap, rows.d_an), narrow=False)
        positive, negative, complete = rows.outputs
        pair, place = torch.where(positive)
        anchor = torch.where(complete)[0]
        return IndexSelection((pair, rows.table[0][pair, place], anchor, negative[anchor, 0]))

    def _chosen(self, d_ap: Tensor, d_an: Tensor, is_inverted: bool) -> tuple[Tensor, Tensor, Tensor]:
        """(r, k) which positives are chosen, (r, 1) the negative, and (r,) whether there are both."""
        positive = self.allowed_positives(d_ap, is_inverted)
        d_an = _only(d_an, self.allowed_neg_range, is_inverted)
        # Not comparisons that are false of NaN: what is not a number must show in the loss.
        if self.pos_strategy == "semihard":
            negative, distance = _one_negative(d_an, farthest=self.neg_strategy == "easy")
            positive = _one(d_ap, positive & ~(d_ap >= distance), farthest=True)
        else:
            if self.pos_strategy != "all":
                positive = _one(d_ap, positive, farthest=self.pos_strategy == "hard")
            if self.neg_strategy == "semihard":
                chosen = d_ap.masked_fill(~positive, math.inf).amin(1, keepdim=True)
                d_an = torch.le(d_an, chosen, out=torch.empty_like(d_an)).mul_(FAR).add_(d_an)
            negative, distance = _one_negative(d_an, farthest=self.neg_strategy == "easy")
        complete = positive.any(1) & ~(distance[:, 0] >= FAR / 2)
        return positive & complete[:, None], negative, complete

    def with_every_negative(self, d_ap: Tensor, d_an: Tensor, is_inverted: bool) -> tuple[Tensor, Tensor]:
        """(r, k) which positives are chosen, and (r, m) which negatives where every one is."""
        positive = self.allowed_positives(d_ap, is_inverted)
        if self.pos_strategy != "all":
            positive = _one(d_ap, positive, farthest=self.pos_strategy == "hard")
        negative = ~(_only(d_an, self.allowed_neg_range, is_inverted) >= FAR / 2)
        complete = (positive.any(1) & negative.any(1))[:, None]
        return positive & complete, negative & complete

    def allowed_positives(self, d_ap: Tensor, is_inverted: bool) -> Tensor:
        """(r, k) which positives there are to choose from."""
        if self.allowed_pos_range is None:
            return d_ap != -FAR
        low, high = _ends(self.allowed_pos_range, is_inverted)
        return ~((d_ap < low) | (d_ap > high) | (d_ap == -FAR))

    def extra_repr(self) -> str:
        return (
            f"pos_strategy={self.pos_strategy!r}, neg_strategy={self.neg_strategy!r}, "
            f"allowed_pos_range={self.allowed_pos_range}, allowed_neg_range={self.allowed_neg_range}"
        )


def _range(name: str, value: Any) -> Range | None:
    if value is None:
        return None
    wrong = ArgumentError(f"{name} must be two numbers, the lower first; got {value!r}")
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise wrong
    for end in value:
        if isinstance(end, bool) or not isinstance(end, int | float) or math.isnan(end):
            raise wrong
    low, high = (float(end) for end in value)
    if low > high:
        raise wrong
    return low, high


class _WithEveryNegative(DistanceRule):
    """Of each anchor the positives that a miner chooses, and every negative, which are too many for indices."""

    def __init__(self, batch: Batch, distance: Any, miner: BatchEasyHard) -> None:
        super().__init__(batch, distance)
        self._miner = miner

    def keep(self, rows: Rows) -> tuple[Tensor, Tensor]:
        return self._miner.with_every_negative(rows.d_ap, rows.d_an, self.distance.is_inverted)


def _ends(allowed: Range | None, is_inverted: bool) -> Range:
    """The ends of a range of what is small for near."""
    low, high = (-math.inf, math.inf) if allowed is None else allowed
    return (-high, -low) if is_inverted else (low, high)


def _only(d_an: Tensor, allowed: Range | None, is_inverted: bool) -> Tensor:
    """(r, m) distances of the negatives in the range, or not numbers; FAR and more of the others."""
    if allowed is None:
        return d_an
    low, high = _ends(allowed, is_inverted)
    return torch.lt(d_an, low, out=torch.empty_like(d_an)).add_(d_an > high).mul_(FAR).add_(d_an)


def _one_negative(d_an: Tensor, *, farthest: bool) -> tuple[Tensor, Tensor]:
    """(r, 1) the nearest or the farthest of the negatives, the first of equals, and its distance."""
    if farthest:  # turned round, but for what is no negative
        turned = torch.ge(d_an, FAR / 2, out=torch.empty_like(d_an)).mul_(4 * FAR).sub_(d_an)
        chosen = first_least(turned)
    else:
        chosen = first_least(d_an)
    return chosen, d_an.gather(1, chosen)


def _one(d: Tensor, mask: Tensor, *, farthest: bool) -> Tensor:
    """``mask`` with one element of each row left, the farthest or the nearest, the first of equals."""
    if farthest:
        chosen = d.masked_fill(~mask, -math.inf).argmax(1, keepdim=True)
    else:
        chosen = d.masked_fill(~mask, math.inf).argmin(1, keepdim=True)
    return torch.zeros_like(mask).scatter_(1, chosen, mask.gather(1, chosen))
