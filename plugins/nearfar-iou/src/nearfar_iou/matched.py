"""The base of losses on matched boxes: what is checked, weighted and averaged, once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn import Loss, Terms, element_terms
from nearfar.nn.matching import Matches
from nearfar_iou.boxes import check_groups, check_normalizer, check_weights

__all__ = ["MatchedLoss", "wanted"]


class MatchedLoss(Loss):
    """A loss on predicted boxes and their targets; a subclass writes :meth:`check` and :meth:`values`.

    Called as ``loss(pred_boxes, target_boxes, box_weights=None, box_normalizer=None, box_groups=None)``. Box i is
    compared with target i, and there is one element term a box. Both get a gradient, which can be taken once, not
    differentiated again. A perfect prediction costs exactly 0, with a gradient of exactly 0.
    """

    @abstractmethod
    def check(self, pred_boxes: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes of one shape and one dtype, float32 or float64; :class:`InputError` where they do not fit."""

    @abstractmethod
    def values(self, pred: Tensor, target: Tensor) -> Tensor:
        """The losses (n,) of boxes that have been checked."""

    def forward(  # type: ignore[override]  # by name, as its inputs are not alike
        self,
        pred_boxes: Tensor,
        target_boxes: Tensor,
        box_weights: Tensor | None = None,
        box_normalizer: Tensor | float | None = None,
        box_groups: Tensor | None = None,
    ) -> Any:
        """The reduced loss of matched boxes.

        Parameters
        ----------
        pred_boxes, target_boxes
            (n, 4), or (n, 5) with an angle, as the loss says.
        box_weights
            (n,) What each box's loss is multiplied with.
        box_normalizer
            What ``core.mean`` divides the sum by instead of n: the number of positives, or a running average of it.
        box_groups
            (n,) integers: the group of each box, such as its image, for ``core.per_group`` and miners of elements.

        Raises
        ------
        InputError
            The boxes are not two tensors of the same shape, there is not one weight or group for each, or the
            normaliser is no number of at least 0.
        """
        # Autocast is left on: boxes are in full precision from here on, and nothing done to them is on its list.
        return self.reduce(
            self.terms(pred_boxes, target_boxes, box_weights, box_normalizer, box_groups), pred_boxes, None
        )

    def terms(
        self,
        pred_boxes: Tensor,
        target_boxes: Tensor,
        box_weights: Tensor | None = None,
        box_normalizer: Tensor | float | None = None,
        box_groups: Tensor | None = None,
    ) -> Terms:
        pred, target = self.check(pred_boxes, target_boxes)
        weights = None if box_weights is None else check_weights(box_weights, pred)
        normalizer = None if box_normalizer is None else check_normalizer(box_normalizer)
        groups = None if box_groups is None else check_groups(box_groups, pred, "box_groups")
        return self.weighed(pred, target, weights, normalizer=normalizer, groups=groups)

    def weighed(self, pred: Tensor, target: Tensor, weights: Tensor | None, **given: Any) -> Terms:
        """The terms of boxes that have been checked, with what else is known of them."""
        return element_terms(self.values(pred, target), weights=weights, **given)

    def of_matches(self, matches: Matches, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the loss is called with: the predictions that are matched, each with its target.

        The sum is divided by what the matches are altogether, unless a ``box_normalizer`` is given. ``box_weights`` are
        those of the targets, (m,).

        Raises
        ------
        InputError
            The boxes were matched in another format than the loss's.
        """
        box_format = getattr(self, "box_format", matches.box_format)
        if box_format != matches.box_format:
            raise InputError(
                f"boxes were matched as {matches.box_format}, and {type(self).__name__} takes {box_format}; give both "
                f"the same, the matcher by its distance: iou(box_format={box_format!r})"
            )
        weights, groups, normalizer = (given.get(name) for name in ("box_weights", "pred_groups", "box_normalizer"))
        if weights is not None:
            weights = check_weights(weights, given["target_boxes"])[matches.targets]
        if matches.weights is not None:
            weights = matches.weights if weights is None else weights * matches.weights
        return {
            "pred_boxes": given["pred_boxes"][matches.predictions],
            "target_boxes": given["target_boxes"][matches.targets],
            "box_weights": weights,
            "box_normalizer": matches.normalizer if normalizer is None else normalizer,
            "box_groups": None if groups is None else groups[matches.predictions],
        }


def wanted(*tensors: Tensor) -> tuple[bool, ...]:
    """Of each tensor, whether its gradient will be asked for."""
    return tuple(torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors)
