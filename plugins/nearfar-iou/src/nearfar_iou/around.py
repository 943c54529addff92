"""The base class of box losses round another box loss."""

from __future__ import annotations

from torch import nn

from nearfar.errors import ArgumentError
from nearfar_iou.box_loss import BoxLoss, PenalizedIoU
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.iou import IoU

__all__ = ["Around", "check_penalized"]


class Around(BoxLoss):
    """A box loss round another, whose format and reducer it has.

    Parameters
    ----------
    loss : nn.Module
        The other.
    reducer : nn.Module, optional
        That of ``loss`` by default.

    Raises
    ------
    ArgumentError
        ``loss`` is no box loss.
    """

    def __init__(self, loss: nn.Module, *, reducer: nn.Module | None = None) -> None:
        if not isinstance(loss, BoxLoss):
            raise ArgumentError(f"{type(self).__name__} goes round a box loss, such as giou; not {_named(loss)}")
        super().__init__(reducer=loss.reducer if reducer is None else reducer)
        self.box_format = loss.box_format
        self.loss: BoxLoss = loss

    def settle(self) -> None:
        self.loss.settle()

    def around(self, name: str, number: float) -> Formula | None:
        """The formula of the other with this one round it, where there is one."""
        formula = self.loss.own_formula()
        return None if formula is None or formula.around else formula._replace(around=name, number=number)


def check_penalized(part: object, loss: object) -> PenalizedIoU:
    """A loss that is 1 − IoU and penalties, to be taken apart.

    Raises
    ------
    ArgumentError
        It is another.
    """
    if not isinstance(loss, PenalizedIoU) or (isinstance(loss, IoU) and loss.form != "linear"):
        raise ArgumentError(
            f"{type(part).__name__} goes round a loss that is 1 − IoU and penalties, such as giou; not {_named(loss)}"
        )
    return loss


def _named(loss: object) -> str:
    return f"{type(loss).__name__}({loss.extra_repr()})" if isinstance(loss, BoxLoss) else repr(loss)
