"""Softmax cross entropy with a linear classifier; label smoothing of Szegedy et al. 2016 (1512.00567)."""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar_margin.engine import compute_linear
from nearfar_margin.engine_loss import CommonArguments, EngineLoss

__all__ = ["Softmax"]


class Softmax(EngineLoss):
    r"""Cross entropy of a linear classifier on the embeddings, with label smoothing.

    .. math::

        z_i = W x_i + b, \qquad
        L_i = -\sum_j q_{ij} \log \frac{e^{z_{ij}}}{\sum_k e^{z_{ik}}}

    with :math:`q_{ij} = 1` for the sample's own class and 0 elsewhere; smoothed by ε it is
    :math:`(1-\varepsilon)[j = y_i] + \varepsilon / C` (``uniform``) or :math:`1 - \varepsilon` on the own class and
    :math:`\varepsilon / (C - 1)` on each other (``others``).

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes, C.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    bias : bool
        Whether the classifier has a bias; by default as ``torch.nn.Linear``.

    Notes
    -----
    ``label_smoothing``, ``smoothing``, ``engine``, ``memory_budget`` and ``reducer`` are those of
    :class:`~nearfar_margin.engine_loss.EngineLoss`.

    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) and ``bias``
    (num_classes,) start uniform in ±1/√embedding_size, as ``torch.nn.Linear`` does. The value depends on the
    length of the embeddings. A reference set is not taken; what a miner selects weighs the elements.

    Raises
    ------
    ArgumentError
        ``smoothing`` is neither of the two, or ``label_smoothing`` is out of range.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Szegedy, Vanhoucke, Ioffe, Shlens, Wojna (2016). Rethinking the Inception Architecture for Computer Vision.
    arXiv:1512.00567, section 7.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        bias: bool = True,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self.bias = nn.Parameter(torch.empty(num_classes)) if bias else None
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        self.draw(self.weight)
        if self.bias is not None:
            self.draw(self.bias)

    def draw(self, weight: Tensor, generator: torch.Generator | None = None) -> None:
        bound = self.embedding_size**-0.5
        nn.init.uniform_(weight, -bound, bound, generator=generator)

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return compute_linear(embeddings, self.weight, self.bias, labels, self.spread, self.settings)

    def scores(self, embeddings: Tensor) -> Tensor:
        return F.linear(*self.common(embeddings, self.whole(), *(() if self.bias is None else (self.bias,))))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bias={self.bias is not None}"
