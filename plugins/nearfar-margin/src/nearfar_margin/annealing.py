"""The annealing of L-Softmax and SphereFace: a multiplicative margin that comes in slowly."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.nn import Stepping
from nearfar.nn.arguments import non_negative

__all__ = ["Annealing"]


class Annealing(Stepping):
    """λ, the weight of the plain cosine beside ψ: max(λ_min, base · (1 + γ · step)^−power).

    The target becomes (λ cos θ + ψ)/(1 + λ). Steps are counted from 1. A call in training mode is one, until an
    optimiser is followed (:func:`nearfar.nn.follow`): then its steps are, and λ of a call is that of the step under
    way, so calls whose gradients are added up have one λ. In evaluation mode it is that of the last step. The count is
    a buffer and so in every checkpoint.

    Parameters
    ----------
    base, gamma, power, minimum : float
        [0..inf] As in the formula.
    """

    steps: Tensor

    def __init__(self, *, base: float, gamma: float, power: float, minimum: float) -> None:
        super().__init__()
        self.base = non_negative("lambda_base", base)
        self.gamma = non_negative("lambda_gamma", gamma)
        self.power = non_negative("lambda_power", power)
        self.minimum = non_negative("lambda_min", minimum)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, like: Tensor) -> Tensor:
        """λ of the step under way, as a 0-d tensor of the dtype of ``like``."""
        step = self.steps + int(self.training)
        grown = 1 + self.gamma * step.to(like.dtype)
        self.called()
        return (self.base * grown**-self.power).clamp_min(self.minimum)

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1

    def extra_repr(self) -> str:
        return f"base={self.base:g}, gamma={self.gamma:g}, power={self.power:g}, minimum={self.minimum:g}"
