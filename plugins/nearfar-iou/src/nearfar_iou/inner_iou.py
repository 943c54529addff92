"""Inner-IoU losses: Zhang et al. 2023, "Inner-IoU: More Effective Intersection over Union Loss", arXiv:2311.02877."""

from __future__ import annotations

from torch import nn

from nearfar.nn.arguments import within
from nearfar_iou.around import Around, check_penalized
from nearfar_iou.box_loss import Measured, PenalizedIoU
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.geometry import Pairs, Slopes

__all__ = ["InnerIoU"]


class InnerIoU(Around):
    r"""Another box loss with the IoU of smaller, or larger, boxes within it.

    .. math::

        L = L_{\text{loss}} + \text{IoU} - \text{IoU}_{\text{inner}}
          = 1 - \text{IoU}_{\text{inner}} + \sum_k P_k \qquad \text{of} \qquad 1 - \text{IoU} + \sum_k P_k

    where the inner IoU is that of both boxes scaled about their centres.

    Parameters
    ----------
    loss : nn.Module
        A loss that is 1 − IoU and penalties: ``iou``, ``giou``, ``diou``, ``ciou``, ``eiou``, ``siou``, ``mpdiou``.
        Boxes are in its format.
    ratio : float
        [0.5..1.5] What sides are multiplied with. Below 1 the gradient is steeper for boxes that overlap well, above 1
        it reaches boxes further away. 0.75, amid the 0.7 to 0.8 that the paper has for PASCAL VOC.
    reducer : nn.Module, optional
        That of ``loss`` by default.

    Raises
    ------
    ArgumentError
        ``loss`` is another, or ``ratio`` is out of its range.

    Notes
    -----
    The penalties are those of the boxes as they are, with the α of CIoU as well.

    References
    ----------
    Zhang et al. (2023), arXiv:2311.02877. Deviations: none for proper boxes.
    """

    loss: PenalizedIoU

    def __init__(self, loss: nn.Module, ratio: float = 0.75, *, reducer: nn.Module | None = None) -> None:
        super().__init__(check_penalized(self, loss), reducer=reducer)
        self.ratio = within("ratio", ratio, 0.5, 1.5)

    def measure(self, pairs: Pairs, *, slopes: bool) -> Measured:
        inner = pairs.within(self.ratio)
        value = inner.miss
        total = pairs.slopes_within(inner, Slopes(iou=-1.0), self.ratio) if slopes else None
        for penalty, by in self.loss.penalties(pairs, slopes=slopes):
            value = value + penalty
            if total is not None and by is not None:
                total = total + by
        return value, total

    def formula(self) -> Formula | None:
        return self.around("inner", self.ratio)

    def extra_repr(self) -> str:
        return f"ratio={self.ratio}"
