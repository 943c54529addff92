"""The annealing of L-Softmax and SphereFace: a multiplicative margin that comes in slowly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import non_negative

__all__ = ["Annealing"]


class Annealing(nn.Module):
    """λ, the weight of the plain cosine beside ψ: max(λ_min, base · (1 + γ · step)^−power).

    The target becomes (λ cos θ + ψ)/(1 + λ). A step is a call in training mode, counted from 1; the count is a buffer
    and so in every checkpoint. In evaluation mode λ is that of the last training call.

    Parameters
    ----------
    base, gamma, power, minimum : float
        [0..inf] As in the formula.
    """

    step: Tensor

    def __init__(self, *, base: float, gamma: float, power: float, minimum: float) -> None:
        super().__init__()
        self.base = non_negative("lambda_base", base)
        self.gamma = non_negative("lambda_gamma", gamma)
        self.power = non_negative("lambda_power", power)
        self.minimum = non_negative("lambda_min", minimum)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, like: Tensor) -> Tensor:
        """Count a call in training mode; λ as a 0-d tensor of the dtype of ``like``."""
        if self.training:
            self.step += 1
        grown = 1 + self.gamma * self.step.to(like.dtype)
        return (self.base * grown**-self.power).clamp_min(self.minimum)

    def extra_repr(self) -> str:
        return f"base={self.base:g}, gamma={self.gamma:g}, power={self.power:g}, minimum={self.minimum:g}"
