"""Focal weighting of box losses: Zhang et al. 2021, "Focal and Efficient IOU Loss", arXiv:2101.08158."""

from __future__ import annotations

from torch import nn

from nearfar.nn.arguments import non_negative
from nearfar_iou.around import Around
from nearfar_iou.box_loss import Measured
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.geometry import Pairs

__all__ = ["FocalIoU"]


class FocalIoU(Around):
    r"""Another box loss, each box weighted by its IoU, so that those that overlap well count most.

    .. math::

        L = \text{IoU}^\gamma \cdot L_{\text{loss}}

    The weight is held constant: the gradient is that of the loss with the weight a number.

    Parameters
    ----------
    loss : nn.Module
        Any box loss. Boxes are in its format.
    gamma : float
        [0..inf] How fast the weight falls with the IoU; 0.5 as in the paper, 0 weighs all alike.
    reducer : nn.Module, optional
        That of ``loss`` by default.

    Raises
    ------
    ArgumentError
        ``loss`` is no box loss, or ``gamma`` is out of its range.

    Notes
    -----
    *Boxes that share nothing weigh nothing*: they cost 0 and have a gradient of 0, whatever the loss. What an inverted
    side costs is not weighted.

    References
    ----------
    Zhang et al. (2021), arXiv:2101.08158; ``focal_iou(eiou)`` is its Focal-EIoU. Deviations: the weight is held
    constant. With a gradient of its own it would push apart boxes that overlap little, since boxes that share nothing
    cost nothing.
    """

    def __init__(self, loss: nn.Module, gamma: float = 0.5, *, reducer: nn.Module | None = None) -> None:
        super().__init__(loss, reducer=reducer)
        self.gamma = non_negative("gamma", gamma)

    def measure(self, pairs: Pairs, *, slopes: bool) -> Measured:
        value, by = self.loss.measure(pairs, slopes=slopes)
        weight = pairs.iou.pow(self.gamma).detach()
        return value * weight, None if by is None else by * weight

    def formula(self) -> Formula | None:
        return self.around("focal", self.gamma)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}"
