"""The base of losses on the scores of classes, which can be asked what they are of matches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn.matching import Matches
from nearfar_iou.logits import LogitLoss, check_ids, check_logits

__all__ = ["ScoreLoss", "class_ids", "matched_ids"]


class ScoreLoss(LogitLoss):
    """A loss on scores of classes; a subclass writes :meth:`matched_targets` and :meth:`LogitLoss.values`."""

    @abstractmethod
    def matched_targets(self, matches: Matches, logits: Tensor, classes: Tensor | None) -> Tensor:
        """The targets of all predictions, of the class ids (m,) of targets some of them are matched with."""

    def of_matches(self, matches: Matches, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the loss is called with: every prediction, matched or background; what is ignored weighs nothing.

        ``targets`` are the class ids (m,) of the targets, or left out where there is one class. The sum is divided by
        what the matches are altogether, unless a ``logit_normalizer`` is given.

        Raises
        ------
        InputError
            There are not as many logits as predictions were matched, not as many class ids as targets, or these do not
            fit.
        """
        logits = check_logits(given["logits"])
        if len(logits) != matches.size:
            raise InputError(f"there are {len(logits)} logits and {matches.size} predicted boxes; each needs its own")
        classes, boxes = given.get("targets"), given.get("target_boxes")
        if isinstance(classes, Tensor) and isinstance(boxes, Tensor) and classes.ndim and len(classes) != len(boxes):
            shape = tuple(classes.shape)
            raise InputError(f"targets must have a row for each of {len(boxes)} target_boxes; got {shape}")
        weights = given.get("logit_weights")
        if len(matches.ignored):
            kept = torch.ones(len(logits), dtype=logits.dtype, device=logits.device)
            kept[matches.ignored] = 0
            weights = kept if weights is None else weights * kept
        normalizer = given.get("logit_normalizer")
        return {
            "logits": logits,
            "targets": self.matched_targets(matches, logits, classes),
            "logit_weights": weights,
            "logit_normalizer": matches.normalizer if normalizer is None else normalizer,
            "logit_groups": given.get("pred_groups"),
        }


def class_ids(classes: Tensor | None, matches: Matches, count: int) -> Tensor:
    """The class of the target of each match, (k,) int64.

    Raises
    ------
    InputError
        There are none though there are several classes, they are no class ids (m,), or one is out of range.
    """
    if classes is None:
        if count > 1:
            raise InputError(f"logits of {count} classes need targets: the class id of each target box, (m,)")
        return torch.zeros_like(matches.targets)
    if not isinstance(classes, Tensor) or classes.ndim != 1 or classes.is_floating_point() or classes.is_complex():
        raise InputError("targets must be the class ids (m,) of the target boxes, of an integer dtype")
    check_ids(classes, count)
    return classes.to(torch.int64)[matches.targets]


def matched_ids(matches: Matches, logits: Tensor, classes: Tensor | None, background: int) -> Tensor:
    """The class id of every prediction, (n,): that of its target, or that of the background."""
    if logits.ndim != 2:
        raise InputError(f"logits of classes, one of them the background, are (n, classes); got {tuple(logits.shape)}")
    made = torch.full((len(logits),), background, dtype=torch.int64, device=logits.device)
    made[matches.predictions] = class_ids(classes, matches, logits.shape[1])
    return made
