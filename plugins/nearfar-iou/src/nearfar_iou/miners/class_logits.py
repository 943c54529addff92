"""The logits of the classes of targets."""

from __future__ import annotations

from torch import Tensor

from nearfar.errors import InputError
from nearfar_iou.logits import check_ids, check_logits

__all__ = ["class_logits"]


def class_logits(logits: Tensor, classes: Tensor | None) -> Tensor:
    """The table (n, m) of what logits (n, c), or (n,) of one class, have at the classes (m,) of targets.

    Raises
    ------
    InputError
        They do not fit.
    """
    logits = check_logits(logits)
    table = logits[:, None] if logits.ndim == 1 else logits
    if classes is None:
        raise InputError("logits were given without targets, the class id of each target box (m,)")
    if classes.ndim != 1 or classes.is_floating_point() or classes.is_complex():
        raise InputError("targets must be the class ids (m,) of the target boxes, of an integer dtype")
    check_ids(classes, table.shape[1])
    return table[:, classes.long()]
