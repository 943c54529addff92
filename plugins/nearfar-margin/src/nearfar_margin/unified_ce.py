"""UniFace's unified cross entropy: Zhou et al. 2023 (ICCV)."""

from __future__ import annotations

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.nn.arguments import non_negative, within
from nearfar_margin.declaration import Rows
from nearfar_margin.engine_loss import EngineArguments
from nearfar_margin.separate_margin import SeparateMargin

__all__ = ["UnifiedCE"]


class UnifiedCE(SeparateMargin):
    r"""One learned threshold for all pairs of samples and classes: every right one above it, every wrong one below.

    .. math::

        L_i = \log\left(1 + e^{-s (\cos\theta_{i y_i} - m) + b}\right)
            + \lambda \sum_{j \ne y_i} \log\left(1 + e^{s \cos\theta_{ij} - b}\right)

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes, C.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [cosine, 0..2] Additive margin m; 0.4 as in the authors' code.
    scale : float
        (0..inf] What the cosines are multiplied with, s; 64 as in the authors' code.
    balance : float
        [0..inf] Weight of the other classes, λ; 1 as in the authors' code.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. ``bias`` b is learned and starts at ln(10 C) as in the authors' code; b/s is the
    threshold. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        A number is out of its range.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Zhou, Jia, Li, Shen, Duan (2023). UniFace: Unified Cross-Entropy Loss for Deep Face Recognition. ICCV.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 0.4,
        scale: float = 64.0,
        balance: float = 1.0,
        **kwargs: Unpack[EngineArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=scale, **kwargs)
        self.margin = within("margin", margin, 0.0, 2.0)
        self.balance = non_negative("balance", balance)
        self.bias = nn.Parameter(torch.tensor(math.log(10 * num_classes)))

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return F.softplus(self.bias - self.scale * (t - self.margin))

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        return self.balance * F.softplus(self.scale * c - self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, margin={self.margin}, balance={self.balance}"
