"""What L-Softmax and SphereFace share: an angle times a whole number, annealed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from nearfar.errors import ArgumentError
from nearfar_margin.angles import cos_times
from nearfar_margin.annealing import Annealing
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax

__all__ = ["MultiplicativeMargin", "falling_cos_times"]


@dataclass(frozen=True, slots=True)
class Annealed(Rows):
    """With λ for each sample, (n,): the weight of its plain cosine."""

    plain: Tensor


class MultiplicativeMargin(MarginSoftmax):
    """ψ(θ) = (λ cos θ + (−1)^k cos(mθ) − 2k)/(1 + λ) with θ in [kπ/m, (k + 1)π/m]; lengths are not divided out.

    Parameters
    ----------
    margin : int
        [1..8] What the angle is multiplied with, m.
    lambda_base, lambda_gamma, lambda_power, lambda_min : float
        [0..inf] λ is max(lambda_min, lambda_base · (1 + lambda_gamma · step)^−lambda_power).
    """

    times_norm = True

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: int,
        lambda_base: float,
        lambda_gamma: float,
        lambda_power: float,
        lambda_min: float,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=1.0, **kwargs)
        if margin not in range(1, 9):
            raise ArgumentError(f"{type(self).__name__}: margin must be a whole number in 1..8; got {margin!r}")
        self.margin = int(margin)
        self.annealing = Annealing(base=lambda_base, gamma=lambda_gamma, power=lambda_power, minimum=lambda_min)

    def prepare(self, rows: Rows) -> Rows:
        return Annealed(rows.t, rows.norm, rows.labels, plain=self.annealing(rows.t).expand_as(rows.t))

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        assert isinstance(rows, Annealed)
        return (rows.plain * t + falling_cos_times(t, self.margin)) / (1 + rows.plain)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, margin={self.margin}"


def falling_cos_times(t: Tensor, times: int) -> Tensor:
    """φ of ``t = cos θ``: cos(mθ), turned and moved from each of its m half waves to the next so that it only falls."""
    k = torch.zeros_like(t)
    for j in range(1, times):
        k += t < math.cos(j * math.pi / times)
    return (1 - 2 * (k % 2)) * cos_times(t, times) - 2 * k
