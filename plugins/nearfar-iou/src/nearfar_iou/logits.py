"""The base of losses on logits: what is checked, weighted and averaged, once."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn import Loss, Terms, element_terms
from nearfar.nn.batch import check_range
from nearfar_iou.boxes import check_groups

__all__ = ["LogitLoss", "check_class_ids", "check_dense", "check_ids", "check_logits"]


class LogitLoss(Loss):
    """A loss on the logits of elements, anchors most often; a subclass writes :meth:`values`.

    Called as ``loss(logits, targets, logit_weights=None, logit_normalizer=None, logit_groups=None)``. There is one
    element term an element. Half precision is computed in float32.
    """

    @abstractmethod
    def values(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | float | None]:
        """The losses (n,) of elements, and what a mean divides their sum by where that is not n."""

    def is_positive(self, targets: Tensor) -> Tensor | None:
        """Of each element whether it is an object rather than background, (n,); None where there is no telling."""
        return None

    def forward(  # type: ignore[override]  # by name, as its inputs are not alike
        self,
        logits: Tensor,
        targets: Tensor,
        logit_weights: Tensor | None = None,
        logit_normalizer: Tensor | float | None = None,
        logit_groups: Tensor | None = None,
    ) -> Any:
        """The reduced loss of elements.

        Parameters
        ----------
        logits, targets
            As the loss says.
        logit_weights
            (n,) What each element's loss is multiplied with.
        logit_normalizer
            What ``core.mean`` divides the sum by, whatever the loss itself would say: the number of positives of all
            ranks, or a running average of it.
        logit_groups
            (n,) integers: the group of each element, such as its image, for ``core.per_group`` and miners of elements.

        Raises
        ------
        InputError
            Logits and targets do not fit, there is not one weight or group for each element, or the normaliser is no
            number of at least 0.
        """
        # Autocast is left on: logits are in full precision from here on, and it takes nothing done to them to half.
        return self.reduce(self.terms(logits, targets, logit_weights, logit_normalizer, logit_groups), logits, None)

    def terms(
        self,
        logits: Tensor,
        targets: Tensor,
        logit_weights: Tensor | None = None,
        logit_normalizer: Tensor | float | None = None,
        logit_groups: Tensor | None = None,
    ) -> Terms:
        values, normalizer = self.values(logits, targets)
        if logit_normalizer is not None:
            normalizer = _check_normalizer(logit_normalizer)
        weights = None if logit_weights is None else _check_weights(logit_weights, values)
        groups = None if logit_groups is None else check_groups(logit_groups, values, "logit_groups")
        # Nobody else asks, and of many classes it takes a while to tell.
        positives = None if self.element_miner is None else self.is_positive(targets)
        return element_terms(values, weights=weights, normalizer=normalizer, groups=groups, positives=positives)


def check_logits(logits: Tensor) -> Tensor:
    """Logits (n,) or (n, classes), in float32 at least.

    Raises
    ------
    InputError
        A shape or dtype does not fit.
    """
    if not isinstance(logits, Tensor):
        raise InputError(f"logits must be a tensor (n,) or (n, classes); got {type(logits).__name__}")
    if not logits.is_floating_point():
        raise InputError(f"logits must be floating; got {logits.dtype}")
    if logits.ndim not in (1, 2):
        raise InputError(f"logits must be of shape (n,) or (n, classes); got {tuple(logits.shape)}")
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def check_dense(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Logits and a target from 0 to 1 for each, in one floating dtype; and whether each is known to be 0 or 1.

    Raises
    ------
    InputError
        A shape, dtype or device does not fit, or (looked at on the CPU alone, where it stalls nothing) a target is
        out of its range.
    """
    logits = check_logits(logits)
    if not isinstance(targets, Tensor):
        raise InputError(f"targets must be a tensor in the shape of the logits; got {type(targets).__name__}")
    if logits.shape != targets.shape:
        hint = "; class ids are to be made one-hot" if logits.ndim == 2 and targets.ndim == 1 else ""
        raise InputError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape{hint}")
    if logits.device != targets.device:
        raise InputError(f"logits are on {logits.device}, targets on {targets.device}")
    if targets.is_complex():
        raise InputError(f"targets must hold real numbers; got {targets.dtype}")
    dtype = torch.promote_types(logits.dtype, targets.dtype)
    logits, is_hard, targets = logits.to(dtype), targets.dtype == torch.bool, targets.to(dtype)
    if not is_hard and targets.device.type == "cpu" and targets.numel():
        is_hard = _is_hard(targets.detach())
    return logits, targets, is_hard


def _is_hard(targets: Tensor) -> bool:
    """Whether all targets are 0 or 1, of targets that are none of them out of their range."""
    between = torch.addcmul(targets, targets, targets, value=-1)  # y − y², of which 0 are y = 0 and y = 1 alone
    # Two passes, each of which takes a third of the time of aminmax.
    if float(between.amax()) == 0 == float(between.amin()):
        return True
    low, high = float(targets.amin()), float(targets.amax())
    if not (low >= 0 and high <= 1):
        raise InputError(f"targets must be 0, 1 or a probability between; got values from {low:g} to {high:g}")
    return False


def check_class_ids(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, classes) and class ids (n,), int64, whose range is yet to be looked at.

    Raises
    ------
    InputError
        A shape, dtype or device does not fit.
    """
    logits = check_logits(logits)
    if logits.ndim != 2:
        raise InputError(f"logits must be of shape (n, classes); got {tuple(logits.shape)}")
    if not isinstance(targets, Tensor):
        raise InputError(f"targets must be a tensor of class ids (n,); got {type(targets).__name__}")
    if targets.shape != logits.shape[:1]:
        raise InputError(
            f"targets must be of shape ({len(logits)},), one class id for each of the logits {tuple(logits.shape)}; "
            f"got {tuple(targets.shape)}"
        )
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise InputError(f"targets must be class ids of an integer dtype; got {targets.dtype}")
    if logits.device != targets.device:
        raise InputError(f"logits are on {logits.device}, targets on {targets.device}")
    return logits, targets.to(torch.int64)


def check_ids(targets: Tensor, classes: int) -> None:
    """Class ids from 0 to ``classes`` − 1, without a wait for a GPU: there the program ends where they are not.

    Raises
    ------
    InputError
        An id is out of its range.
    """
    expected = f"targets are class ids from 0 to {classes - 1}, as there are logits of {classes} classes"
    check_range(targets, classes, expected + "; got targets from {low} to {high}")


def _check_weights(weights: Tensor, values: Tensor) -> Tensor:
    if not isinstance(weights, Tensor) or weights.is_complex():
        raise InputError("logit_weights must be a tensor of real numbers (n,), one for each element")
    if weights.shape != values.shape:
        raise InputError(f"logit_weights {tuple(weights.shape)} must be ({len(values)},), one for each element")
    if weights.device != values.device:
        raise InputError(f"logit_weights are on {weights.device}, the logits on {values.device}")
    return weights.to(values.dtype)


def _check_normalizer(normalizer: Tensor | float) -> Tensor | float:
    if isinstance(normalizer, Tensor):
        if normalizer.ndim or normalizer.is_complex():
            raise InputError(
                f"logit_normalizer must be one real number; got {normalizer.dtype} {tuple(normalizer.shape)}"
            )
        return normalizer.detach()
    if isinstance(normalizer, bool) or not isinstance(normalizer, int | float) or not 0 <= normalizer < float("inf"):
        raise InputError(f"logit_normalizer must be a finite number of at least 0, or a 0-d tensor; got {normalizer!r}")
    return normalizer
