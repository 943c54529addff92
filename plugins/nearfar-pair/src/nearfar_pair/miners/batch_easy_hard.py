"""One positive and one negative of each anchor, easy, hard or semi-hard.

Xuan, Stylianou, Pless (2020): Improved Embeddings with Easy Positive Triplet Mining. arXiv:1904.04370.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice
from nearfar.nn.batch import Batch
from nearfar.nn.miners import Miner
from nearfar.nn.selection import IndexSelection, distance_matrix

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

    def choose(self, batch: Batch, distance: Any, loss: nn.Module | None) -> IndexSelection:
        positive, negative = batch.positive_mask(), batch.negative_mask()
        if not positive.numel():  # argmax takes no empty rows
            none = torch.empty(0, dtype=torch.int64, device=positive.device)
            return IndexSelection((none, none, none, none))
        matrix = distance_matrix(distance, batch)
        positive &= _allowed(matrix, self.allowed_pos_range, distance.is_inverted)
        negative &= _allowed(matrix, self.allowed_neg_range, distance.is_inverted)
        # Not comparisons that are false of NaN: what is not a number must show in the loss.
        if self.pos_strategy == "semihard":
            negative = _one(matrix, negative, farthest=self.neg_strategy == "easy")
            positive = _one(matrix, positive & ~(matrix >= _distance_of(matrix, negative)), farthest=True)
        elif self.neg_strategy == "semihard":
            positive = _one(matrix, positive, farthest=self.pos_strategy == "hard")
            negative = _one(matrix, negative & ~(matrix <= _distance_of(matrix, positive)), farthest=False)
        else:
            if self.pos_strategy != "all":
                positive = _one(matrix, positive, farthest=self.pos_strategy == "hard")
            if self.neg_strategy != "all":
                negative = _one(matrix, negative, farthest=self.neg_strategy == "easy")
        complete = (positive.any(1) & negative.any(1))[:, None]
        return IndexSelection((*torch.where(positive & complete), *torch.where(negative & complete)))

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


def _allowed(matrix: Tensor, allowed: Range | None, is_inverted: bool) -> Tensor:
    """Where the distance lies in the range, or is not a number."""
    low, high = (-math.inf, math.inf) if allowed is None else allowed
    low, high = (-high, -low) if is_inverted else (low, high)
    return ~((matrix < low) | (matrix > high))


def _one(matrix: Tensor, mask: Tensor, *, farthest: bool) -> Tensor:
    """``mask`` with one element of each row left, the farthest or the nearest, the first of equals."""
    if farthest:
        chosen = matrix.masked_fill(~mask, -math.inf).argmax(1, keepdim=True)
    else:
        chosen = matrix.masked_fill(~mask, math.inf).argmin(1, keepdim=True)
    return torch.zeros_like(mask).scatter_(1, chosen, mask.gather(1, chosen))


def _distance_of(matrix: Tensor, one: Tensor) -> Tensor:
    """(n, 1) the distance at the one element of each row; of an empty row infinity, which its emptiness outvotes."""
    return matrix.masked_fill(~one, math.inf).amin(1, keepdim=True)
