"""What a pair costs by how far it is in excess, with the slope of that."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from nearfar_pair.arithmetic import softplus

__all__ = ["HINGE", "LOGISTIC", "SQUARED_HINGE", "Link"]


class Link(ABC):
    """A cost, never below zero, as a function of an excess; 0 far below zero."""

    @abstractmethod
    def cost(self, excess: Tensor) -> Tensor:
        """The cost of each, differentiable."""

    @abstractmethod
    def sums(self, excess: Tensor, scratch: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Of each row of (r, m) the sum of the costs, and how many are above zero, (r,) each; and each one's slope.

        The excess may be written to, and ``scratch``, of its size where there is any.
        """


class _Hinge(Link):
    def cost(self, excess: Tensor) -> Tensor:
        return torch.relu(excess)

    def sums(self, excess: Tensor, scratch: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        cost = excess.clamp_min_(0)
        slope = torch.sign(cost, out=scratch)
        return cost.sum(1), slope.sum(1), slope


class _SquaredHinge(Link):
    def cost(self, excess: Tensor) -> Tensor:
        return torch.relu(excess).square()

    def sums(self, excess: Tensor, scratch: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        hinge = excess.clamp_min_(0)
        # Their number as the sum of signs: a comparison and its sum take five times as long.
        active = torch.sign(hinge, out=scratch).sum(1)
        return torch.linalg.vecdot(hinge, hinge), active, hinge.mul_(2)


class _Logistic(Link):
    def cost(self, excess: Tensor) -> Tensor:
        return softplus(excess)

    def sums(self, excess: Tensor, scratch: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        cost = softplus(excess)
        sums, active = cost.sum(1), torch.sign(cost, out=scratch).sum(1)
        return sums, active, excess.sigmoid_()


#: [x]₊
HINGE = _Hinge()
#: [x]₊²
SQUARED_HINGE = _SquaredHinge()
#: log(1 + exp(x))
LOGISTIC = _Logistic()
