"""WIoU loss: Tong et al. 2023, "Wise-IoU: Bounding Box Regression Loss with Dynamic Focusing Mechanism", 2301.10051."""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice, positive
from nearfar_iou.box_loss import BoxLoss, Measured
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["WIoU"]


class WIoU(BoxLoss):
    r"""Wise-IoU loss: IoU loss weighted by the distance of the centres and, in v3, by how usual the box is.

    .. math::

        L_{v1} = \mathcal{R} \, (1 - \text{IoU}), \qquad \mathcal{R} = \exp \frac{\rho^2}{c^2}, \qquad
        L_{v3} = \frac{\beta}{\delta \, \alpha^{\beta - \delta}} \, L_{v1}, \qquad
        \beta = \frac{1 - \text{IoU}}{\overline{1 - \text{IoU}}}

    where ρ is the distance of the centres, c the diagonal of the hull, the smallest box round both, and the bar a
    running mean. c and all of β are held constant: the gradient is that of the loss with these numbers.

    Parameters
    ----------
    version : str
        ``"v3"``, which weighs boxes that are neither good nor bad most, or ``"v1"``.
    alpha : float
        (1..inf) Of v3: the weight is greatest at β = 1 / ln α; 1.9 as in the paper.
    delta : float
        (0..inf) Of v3: the weight is 1 at β = δ; 3 as in the paper.
    momentum : float
        (0..1] Of v3: the share of a batch in the running mean. With 1e-4 it is half new after 7,000 batches, as the
        authors' is.

    Raises
    ------
    ArgumentError
        ``version`` is unknown, or another is out of its range.

    Notes
    -----
    Boxes in any unit, the same for both axes. Boxes that share nothing are brought together by the weight's ρ, and the
    loss is 2.72 at most in v1.

    The running mean is a buffer of each loss, 1 at first. A batch in training is weighed by the mean of those before
    it, then taken into it, box weights aside; a batch without boxes changes nothing. Where torch.distributed is
    initialised the mean is that over all processes, each of which must then make the call.

    References
    ----------
    Tong et al. (2023), arXiv:2301.10051. Deviations: a batch is taken into the mean after it was weighed, not before,
    so that no box changes the loss of another; the authors' code has one mean for all losses of a process, and waits
    for the device to read it.
    """

    running_mean: Tensor

    def __init__(
        self,
        version: Literal["v1", "v3"] = "v3",
        alpha: float = 1.9,
        delta: float = 3.0,
        momentum: float = 1e-4,
        *,
        box_format: Literal["xyxy", "xywh", "cxcywh", "ltrb"] = "xyxy",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(box_format=box_format, reducer=reducer)
        self.version = check_choice(self, "version", version, ("v1", "v3"))
        if positive("alpha", alpha) <= 1:
            raise ArgumentError(f"alpha must be greater than 1; got {alpha!r}")
        if positive("momentum", momentum) > 1:
            raise ArgumentError(f"momentum lies in 0..1 without 0; got {momentum!r}")
        self.alpha, self.delta, self.momentum = alpha, positive("delta", delta), momentum
        self.register_buffer("running_mean", torch.ones(()))
        self._seen: list[Tensor] = []  # of one call, by piece: the sum of 1 − IoU, and of how many

    def measure(self, pairs: Pairs, *, slopes: bool) -> Measured:
        # Only c is constant, so what is in hulls is of no use here.
        away = pairs.shift / pairs.diagonal.detach()
        attention = away.square().sum(0).exp()
        weight = attention
        if self.version == "v3":
            if self.training:
                known = pairs.miss.isnan().logical_not_().sum()
                self._seen.append(torch.stack((pairs.miss.nansum(), known.to(attention.dtype))))
            least = torch.finfo(attention.dtype).eps
            beta = pairs.miss.detach() / self.running_mean.to(attention.dtype).clamp_min(least)
            weight = attention * self.focus(beta)
        value = weight * pairs.miss
        if not slopes:
            return value, None
        return value, Slopes(iou=-weight, offset=2 * value * away * pairs.slant)

    def focus(self, beta: Tensor) -> Tensor:
        """What v3 weighs boxes with, by how far they miss their target compared with the running mean: (n,) of (n,)."""
        return beta / self.delta * self.alpha ** (self.delta - beta)

    @torch.no_grad()
    def settle(self) -> None:
        if self.version != "v3":
            return
        # A process without boxes adds nothing, but the others wait for it.
        seen = torch.stack(self._seen).sum(0) if self._seen else self.running_mean.new_zeros(2)
        seen = seen.to(torch.promote_types(self.running_mean.dtype, torch.float32))
        self._seen.clear()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(seen)
        total, count = seen
        step = self.momentum * (total / count.clamp_min(1) - self.running_mean)
        self.running_mean += step * (count > 0)

    def formula(self) -> Formula | None:
        if self.version == "v1":
            return Formula("wiou_v1")
        if self.training:
            return None  # what it takes into its running mean, measure() leaves behind
        mean = self.running_mean.item()
        # Below it, measure() has a floor that depends on the precision.
        return Formula("wiou_v3", (mean, self.alpha, self.delta)) if mean > 1e-6 else None

    def extra_repr(self) -> str:
        return f"version={self.version!r}, alpha={self.alpha}, delta={self.delta}, {super().extra_repr()}"
