"""Alpha-IoU losses: He et al. 2021, "Alpha-IoU: A Family of Power Intersection over Union Losses", arXiv:2110.13675."""

from __future__ import annotations

from torch import nn

from nearfar.nn.arguments import within
from nearfar_iou.around import Around, check_penalized
from nearfar_iou.box_loss import Measured, PenalizedIoU
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["AlphaIoU"]


class AlphaIoU(Around):
    r"""Another box loss with its IoU and each of its penalties raised to a power.

    .. math::

        L = 1 - \text{IoU}^a + \sum_k P_k^a \qquad \text{of} \qquad 1 - \text{IoU} + \sum_k P_k

    Parameters
    ----------
    loss : nn.Module
        A loss that is 1 − IoU and penalties: ``iou``, ``giou``, ``diou``, ``ciou``, ``eiou``, ``siou``, ``mpdiou``.
        Boxes are in its format.
    power : float
        [1..inf] The paper's α; 3 as there. Above 1, boxes that overlap well count more.
    reducer : nn.Module, optional
        That of ``loss`` by default.

    Raises
    ------
    ArgumentError
        ``loss`` is another, or ``power`` is out of its range.

    Notes
    -----
    The gradient of 1 − IoUᵃ vanishes as the IoU goes to 0: boxes that share nothing are brought together by the
    penalties alone.

    References
    ----------
    He et al. (2021), arXiv:2110.13675. Deviations: powers below 1 are refused, as the slope of a penalty is infinite
    then at a perfect prediction, and that of the IoU where boxes cease to overlap.
    """

    loss: PenalizedIoU

    def __init__(self, loss: nn.Module, power: float = 3.0, *, reducer: nn.Module | None = None) -> None:
        super().__init__(check_penalized(self, loss), reducer=reducer)
        self.power = within("power", power, 1, float("inf"))

    def measure(self, pairs: Pairs, *, slopes: bool) -> Measured:
        value = 1 - pairs.iou.pow(self.power)
        total = Slopes(iou=-self.power * pairs.iou.pow(self.power - 1)) if slopes else None
        for penalty, by in self.loss.penalties(pairs, slopes=slopes):
            value += penalty.pow(self.power)
            if total is not None and by is not None:
                total = total + by * (self.power * penalty.pow(self.power - 1))
        return value, total

    def formula(self) -> Formula | None:
        return self.around("alpha", self.power)

    def extra_repr(self) -> str:
        return f"power={self.power}"
