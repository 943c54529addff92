"""AdaCos: Zhang et al. 2019 (1905.00292)."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax

__all__ = ["AdaCos"]


class AdaCos(MarginSoftmax):
    r"""Softmax on cosines whose scale follows the training, without any number to choose.

    .. math::

        L_i = -\log \frac{e^{s \cos\theta_{i y_i}}}{\sum_j e^{s \cos\theta_{ij}}},
        \qquad
        s \leftarrow \frac{\log B}{\cos(\min(\pi/4, \theta_\text{med}))},
        \quad B = \frac{1}{n} \sum_i \sum_{j \ne y_i} e^{s \cos\theta_{ij}}

    where θ_med is the median of the angles to the own classes, and s starts at √2 log(C − 1).

    Parameters
    ----------
    num_classes : int
        [3..inf] Number of classes, C.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    fixed : bool
        Whether s stays where it starts: the paper's fixed AdaCos.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, embedding_size) starts normal with a
    standard deviation of 0.01. ``scale`` is a buffer, renewed in each call in training mode before it is used, and
    unchanged in evaluation mode; it has no gradient. A reference set is not taken; what a miner selects weighs the
    elements, and does not enter s.

    Raises
    ------
    ArgumentError
        There are fewer than three classes, for which the paper's first scale is 0.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Zhang, Zhao, Qiao, Wang, Li (2019). AdaCos: Adaptively Scaling Cosine Logits for Effectively Learning Deep Face
    Representations. arXiv:1905.00292.
    """

    scale: Tensor

    def __init__(
        self, num_classes: int, embedding_size: int, *, fixed: bool = False, **kwargs: Unpack[CommonArguments]
    ) -> None:
        super().__init__(num_classes, embedding_size, scale=1.0, **kwargs)
        if num_classes < 3:
            raise ArgumentError(
                f"AdaCos: num_classes must be at least 3, as the scale starts at √2 log(num_classes − 1); "
                f"got {num_classes}"
            )
        self.fixed = fixed
        del self.scale  # a number so far
        self.scale = nn.Buffer(torch.tensor(math.sqrt(2) * math.log(num_classes - 1)))

    @property
    def surveys(self) -> bool:  # type: ignore[override]  # it depends on the mode
        """Whether the scale is renewed: in training mode, unless it is fixed."""
        return self.training and not self.fixed

    def survey(self, c: Tensor, rows: Rows) -> tuple[Tensor, ...]:
        # Of e^{s c} the factor e^s is taken out, which overflows float32 from s = 88 on.
        return (torch.exp(self.scale * (c - 1)),)

    def settle(self, rows: Rows, *sums: Tensor) -> Rows:
        if len(rows.t):
            log_b = sums[0].mean().log() + self.scale
            # The cosine of the median angle is the upper of two medians, as torch's median is the lower of its kind.
            median = -(-rows.t.detach()).median()
            found = log_b / median.clamp_min(math.cos(math.pi / 4))
            # B may be below 1 where all other classes are on the far side; no scale follows from that.
            usable = found.isfinite() & (found > 0)
            self.scale.copy_(torch.where(usable, found.to(self.scale), self.scale))
        return rows

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, fixed={self.fixed}"
