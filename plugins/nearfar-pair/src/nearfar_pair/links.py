"""What a pair costs by how far it is in excess, with the slope of that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from nearfar_pair.arithmetic import softplus

__all__ = ["HINGE", "LOGISTIC", "SQUARED_HINGE", "Link"]


class Link(ABC):
    """A cost, never below zero, as a function of an excess; 0 far below zero."""

    #: Which it is of those that kernels know.
    number: int

    @abstractmethod
    def cost(self, excess: Tensor) -> Tensor:
        """The cost of each, differentiable."""

    @abstractmethod
    def sums(self, excess: Tensor, scratch: Tensor | None) -> tuple[Tensor, Callable[[], Tensor], Tensor]:
        """Of each row of (r, m) the sum of the costs, and how many are above zero, (r,) each; and each one's slope.

        How many is to be asked for before the slope is written to. The excess may be written to, and ``scratch``, of
        its size where there is any.
        """


class _Hinge(Link):
    number = 0

    def cost(self, excess: Tensor) -> Tensor:
        return torch.relu(excess)

    def sums(self, excess: Tensor, scratch: Tensor | None) -> tuple[Tensor, Callable[[], Tensor], Tensor]:
        sums = excess.clamp_min_(0).sum(1)
        slope = excess.sign_()
        # Their number as the sum of signs: a comparison and its sum take five times as long.
        return sums, lambda: slope.sum(1).long(), slope


class _SquaredHinge(Link):
    number = 1

    def cost(self, excess: Tensor) -> Tensor:
        return torch.relu(excess).square()

    def sums(self, excess: Tensor, scratch: Tensor | None) -> tuple[Tensor, Callable[[], Tensor], Tensor]:
        hinge = excess.clamp_min_(0)
        sums = torch.linalg.vecdot(hinge, hinge)
        slope = hinge.mul_(2)
        return sums, lambda: torch.sign(slope, out=scratch).sum(1).long(), slope


class _Logistic(Link):
    number = 2

    def cost(self, excess: Tensor) -> Tensor:
        return softplus(excess)

    def sums(self, excess: Tensor, scratch: Tensor | None) -> tuple[Tensor, Callable[[], Tensor], Tensor]:
        cost = softplus(excess)
        return cost.sum(1), lambda: torch.sign(cost, out=scratch).sum(1).long(), excess.sigmoid_()


#: [x]₊
HINGE = _Hinge()
#: [x]₊²
SQUARED_HINGE = _SquaredHinge()
#: log(1 + exp(x))
LOGISTIC = _Logistic()
