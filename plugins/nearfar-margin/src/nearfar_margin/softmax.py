"""Softmax cross entropy with a linear classifier; label smoothing of Szegedy et al. 2016 (1512.00567)."""

from __future__ import annotations

from typing import Literal, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice
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
    label_smoothing : float
        [0..1] Probability taken from the own class, ε; 0 by default, 0.1 in the paper.
    smoothing : {"uniform", "others"}
        Who gets it: every class ε/C, the own one too (the paper, torch), or each other class ε/(C − 1)
        (fast-reid). ``others`` with ε equals ``uniform`` with ε·C/(C − 1), and takes ε up to (C − 1)/C, beyond
        which the own class would be the least likely.

    Notes
    -----
    ``engine``, ``memory_budget`` and ``reducer`` are those of :class:`~nearfar_margin.engine_loss.EngineLoss`.

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
        label_smoothing: float = 0.0,
        smoothing: Literal["uniform", "others"] = "uniform",
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        super().__init__(num_classes, embedding_size, **kwargs)
        self.smoothing = check_choice(self, "smoothing", smoothing, ("uniform", "others"))
        most = 1.0 if smoothing == "uniform" else (num_classes - 1) / num_classes
        if not 0 <= label_smoothing <= most:
            raise ArgumentError(
                f"Softmax: label_smoothing must be in [0, {most:g}] (smoothing={smoothing!r}, "
                f"num_classes={num_classes}); got {label_smoothing}"
            )
        self.label_smoothing = label_smoothing
        self.bias = nn.Parameter(torch.empty(num_classes)) if bias else None
        bound = embedding_size**-0.5
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        epsilon = self.label_smoothing
        if self.smoothing == "others" and epsilon:
            epsilon = min(1.0, epsilon * self.num_classes / (self.num_classes - 1))
        return compute_linear(embeddings, self.weight, self.bias, labels, epsilon, self.settings)

    def scores(self, embeddings: Tensor) -> Tensor:
        return F.linear(*self.common(embeddings, self.weight, *(() if self.bias is None else (self.bias,))))

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, bias={self.bias is not None}, label_smoothing={self.label_smoothing}, "
            f"smoothing={self.smoothing!r}"
        )
