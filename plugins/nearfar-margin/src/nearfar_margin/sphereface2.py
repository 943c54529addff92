"""SphereFace2: Wen et al. 2022 (2108.01513)."""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice, finite, within
from nearfar_margin.declaration import Rows
from nearfar_margin.detaching import straight_through
from nearfar_margin.engine_loss import EngineArguments
from nearfar_margin.separate_margin import SeparateMargin

__all__ = ["SphereFace2"]


class SphereFace2(SeparateMargin):
    r"""A binary classifier for each class instead of one softmax: each pair of sample and class is right or wrong.

    .. math::

        L_i = \frac{\lambda}{r} \log\left(1 + e^{-r (g(\cos\theta_{i y_i}) - m) - b}\right)
            + \frac{1 - \lambda}{r} \sum_{j \ne y_i} \log\left(1 + e^{r (g(\cos\theta_{ij}) + m) + b}\right),
        \qquad g(z) = 2 \left(\frac{z + 1}{2}\right)^t - 1

    Parameters
    ----------
    num_classes : int
        [2..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [cosine, 0..2] Additive margin m on either side; 0.4 as in the authors' code.
    scale : float
        (0..inf] What the similarities are multiplied with, r; 40 as in the authors' code.
    balance : float
        (0..1) Weight of the own class against the others, λ; 0.7 as in the authors' code.
    sharpness : float
        [1..inf) Exponent t, which spreads large similarities and draws small ones together; 3 as in the paper, 1 leaves
        the cosines as they are.
    gradient : {"detached", "exact"}
        ``detached``: g changes the values only and passes the gradient as if it were the cosine, as in the authors'
        code. ``exact``: the gradient of the formula.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. ``bias`` b is learned and starts where the loss of cosines of 0 is least. A reference
    set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        There is one class only, or an argument is out of its range.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Wen, Liu, Weller, Raj, Singh (2022). SphereFace2: Binary Classification is All You Need for Deep Face Recognition.
    arXiv:2108.01513.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 0.4,
        scale: float = 40.0,
        balance: float = 0.7,
        sharpness: float = 3.0,
        gradient: Literal["detached", "exact"] = "detached",
        **kwargs: Unpack[EngineArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        if num_classes < 2:
            raise ArgumentError(f"SphereFace2: num_classes must be at least 2; got {num_classes}")
        self.margin = within("margin", margin, 0.0, 2.0)
        if not 0 < finite("balance", balance) < 1:
            raise ArgumentError(f"SphereFace2: balance must be between 0 and 1, without them; got {balance!r}")
        self.balance = balance
        if finite("sharpness", sharpness) < 1:
            raise ArgumentError(f"SphereFace2: sharpness must be at least 1; got {sharpness!r}")
        self.sharpness = sharpness
        self.gradient = check_choice(self, "gradient", gradient, ("detached", "exact"))
        self.bias = nn.Parameter(torch.tensor(self._first_bias()))

    def _first_bias(self) -> float:
        """b at which dL/db = 0 when every cosine is 0: a quadratic in e^b."""
        r, m, share = float(self.scale), self.margin, self.balance
        z = share / ((1 - share) * (self.num_classes - 1))
        others = r * (2 * 0.5**self.sharpness - 1 + m)
        # e to the logit of the own class less that of another; kept from underflow, where b hardly depends on it.
        ratio = math.exp(max(-2 * r * m, -600.0))
        root = math.sqrt((1 - z) ** 2 + 4 * z * ratio)
        # 1 − z + root in the form that does not cancel: z is above 1 where classes are few.
        denominator = 1 - z + root if z < 1 else 4 * z * ratio / (z - 1 + root)
        return float(math.log(2 * z) - others - math.log(denominator))

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        z = self.scale * (self._similarity(t) - self.margin) + self.bias
        return F.softplus(-z) * (self.balance / self.scale)

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        z = self.scale * (self._similarity(c) + self.margin) + self.bias
        return F.softplus(z) * ((1 - self.balance) / self.scale)

    def _similarity(self, c: Tensor) -> Tensor:
        # By rounding a cosine may be below −1, of which there is no power.
        g = 2 * ((c + 1) / 2).clamp_min(0) ** self.sharpness - 1
        return straight_through(g, c) if self.gradient == "detached" else g

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, margin={self.margin}, balance={self.balance}, sharpness={self.sharpness}, "
            f"gradient={self.gradient!r}"
        )
