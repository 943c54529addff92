"""The base of matchers: predictions and targets of each image apart, and what comes of them put together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.matching import Matcher, Matches
from nearfar_iou.boxes import check_groups
from nearfar_iou.distances.box_similarity import PairSimilarity, check_finite_set
from nearfar_iou.distances.iou import IoUSimilarity

__all__ = ["BACKGROUND", "IGNORED", "Assigned", "BoxMatcher", "CornerMatcher", "Image"]

#: What a prediction is assigned that stands for no target: background, or nothing at all.
BACKGROUND, IGNORED = -1, -2


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """What is to be matched with each other.

    Attributes
    ----------
    pred, target
        (n, 4) and (m, 4), or five numbers each where they are rotated.
    anchors
        (n, 4): what predictions started from, or the predictions themselves.
    logits, classes
        (n, c) and (m,), or None.
    levels, strides
        (n,) each, or None.
    """

    pred: Tensor
    target: Tensor
    anchors: Tensor
    logits: Tensor | None = None
    classes: Tensor | None = None
    levels: Tensor | None = None
    strides: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """What comes of it.

    Attributes
    ----------
    target
        (n,) int64: the target that each prediction stands for, :data:`BACKGROUND` or :data:`IGNORED`.
    weight
        (n,) how much each counts, or None where all do the same.
    """

    target: Tensor
    weight: Tensor | None = None


class BoxMatcher(Matcher):
    """A matcher of boxes by a similarity; a subclass writes :meth:`assign`.

    Predictions are matched with targets of the same group, such as an image, where groups are given, and with any where
    not. Nothing has a gradient.

    Parameters
    ----------
    distance : nn.Module, optional
        A similarity of boxes; ``iou`` by default.
    """

    inputs: ClassVar[tuple[str, ...]] = ("pred_boxes", "target_boxes")
    optional_inputs: ClassVar[tuple[str, ...]] = ("anchors", "pred_groups", "target_groups")

    def __init__(self, *, distance: nn.Module | None = None) -> None:
        super().__init__()
        self.distance: Any = self.default_distance() if distance is None else distance

    def default_distance(self) -> nn.Module:
        """The similarity it has unless told otherwise."""
        return IoUSimilarity()

    @abstractmethod
    def assign(self, image: Image) -> Assigned:
        """What each prediction of an image stands for; there is at least one prediction, and one target."""

    def similarity(self, boxes: Tensor, targets: Tensor) -> Tensor:
        """(n, m): greater is nearer, whatever the distance."""
        table: Tensor = self.distance(boxes, targets)
        return table if self.distance.is_inverted else -table

    @torch.no_grad()
    def match(self, *inputs: Tensor, **options: Tensor | None) -> Matches:
        """Which predictions stand for which targets.

        Parameters
        ----------
        *inputs
            ``pred_boxes`` (n, 4) and ``target_boxes`` (m, 4), and what else the matcher names as its inputs.
        **options
            ``anchors`` (n, 4): what predictions started from. ``pred_groups`` (n,) and ``target_groups`` (m,), given
            together: integers, such as the number of an image. What else the matcher names among its optional inputs.

        Raises
        ------
        InputError
            A shape or dtype does not fit, something is missing or unknown, or a box is not finite: it would stand for
            nothing, without a word, and the loss that follows would know of no boxes.
        """
        given = self._bind(inputs, options)
        pred = given["pred_boxes"]
        found = torch.full((len(pred),), BACKGROUND, dtype=torch.int64, device=pred.device)
        weight: Tensor | None = None
        for rows, columns, image in _images(given):
            if not len(image.pred) or not len(image.target):
                continue
            assigned = self.assign(image)
            found[rows] = torch.where(assigned.target < 0, assigned.target, columns[assigned.target.clamp_min(0)])
            if assigned.weight is not None:
                weight = pred.new_zeros(len(pred)) if weight is None else weight
                weight[rows] = assigned.weight.to(pred.dtype)
        return self._matches(given, found, weight)

    def _bind(self, inputs: tuple[Tensor, ...], options: dict[str, Tensor | None]) -> dict[str, Tensor]:
        """What was given, by name, boxes checked and in one dtype."""
        name = type(self).__name__
        if len(inputs) > len(self.inputs):
            raise InputError(f"{name} takes {', '.join(self.inputs)}; got {len(inputs)} inputs")
        given = dict(zip(self.inputs, inputs, strict=False))
        given |= {key: value for key, value in options.items() if value is not None}
        if unknown := sorted(given.keys() - {*self.inputs, *self.optional_inputs}):
            raise InputError(
                f"{name} takes no {unknown[0]}; it takes {', '.join((*self.inputs, *self.optional_inputs))}"
            )
        if missing := [key for key in self.inputs if key not in given]:
            raise InputError(f"{name} needs {', '.join(missing)}")
        if ("pred_groups" in given) != ("target_groups" in given):
            raise InputError("pred_groups and target_groups are given together: the image of each box")
        width = getattr(self.distance, "width", 4)
        for key in ("pred_boxes", "target_boxes", "anchors"):
            if key in given:
                given[key] = check_finite_set(given[key], width, key)
        sizes = {"pred_boxes": len(given["pred_boxes"]), "target_boxes": len(given["target_boxes"])}
        for key, value in given.items():
            of = "target_boxes" if key in ("target_boxes", "target_groups", "targets") else "pred_boxes"
            if not isinstance(value, Tensor) or not value.ndim or len(value) != sizes[of]:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InputError(f"{key} must have a row for each of {sizes[of]} {of}; got {shape}")
            if key.endswith("_groups"):
                check_groups(value, given[of], key)
        dtype = torch.promote_types(given["pred_boxes"].dtype, given["target_boxes"].dtype)
        return {k: v.to(dtype) if k in ("pred_boxes", "target_boxes", "anchors") else v for k, v in given.items()}

    def _matches(self, given: dict[str, Tensor], found: Tensor, weight: Tensor | None) -> Matches:
        predictions = (found >= 0).nonzero()[:, 0]
        targets = found[predictions]
        near = self.distance.pairwise_distance(given["pred_boxes"][predictions], given["target_boxes"][targets])
        near = near if self.distance.is_inverted else -near
        return Matches(
            predictions,
            targets,
            (found == IGNORED).nonzero()[:, 0],
            len(found),
            near.clamp(0, 1),
            None if weight is None else weight[predictions],
            getattr(self.distance, "box_format", "cxcywhr"),
        )


class CornerMatcher(BoxMatcher):
    """A matcher that asks where centres lie, so of boxes that are not rotated.

    Raises
    ------
    ArgumentError
        ``distance`` is one of rotated boxes.
    """

    def __init__(self, *, distance: nn.Module | None = None) -> None:
        super().__init__(distance=distance)
        if isinstance(self.distance, PairSimilarity) and self.distance.width != 4:
            raise ArgumentError(f"{type(self).__name__} is of boxes that are not rotated; give it another distance")

    def corners(self, boxes: Tensor) -> Tensor:
        """Boxes as ``xyxy``."""
        made: Tensor = self.distance.corners(boxes) if hasattr(self.distance, "corners") else boxes
        return made

    def centres(self, boxes: Tensor) -> Tensor:
        """(n, 2)"""
        corners = self.corners(boxes)
        return (corners[:, :2] + corners[:, 2:]) / 2

    def is_inside(self, points: Tensor, boxes: Tensor) -> Tensor:
        """(n, m): whether points (n, 2) lie within boxes, and not on their edges."""
        corners = self.corners(boxes)
        low, high = points[:, None] - corners[:, :2], corners[:, 2:] - points[:, None]
        return (torch.minimum(low, high) > 0).all(2)


def _images(given: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor, Image]]:
    """The places of the predictions and of the targets of each image, and what is known of them."""
    pred, target = given["pred_boxes"], given["target_boxes"]
    if "pred_groups" not in given:
        every = (torch.arange(len(each), device=each.device) for each in (pred, target))
        parts = [tuple(every)]
    else:
        first, second = given["pred_groups"], given["target_groups"]
        parts = [((first == g).nonzero()[:, 0], (second == g).nonzero()[:, 0]) for g in torch.unique(first)]
    for rows, columns in parts:
        names = {"logits": rows, "targets": columns, "levels": rows, "strides": rows}
        some = {name: given[name][places] if name in given else None for name, places in names.items()}
        anchors = given.get("anchors", pred)[rows]
        yield (
            rows,
            columns,
            Image(
                pred[rows],
                target[columns],
                anchors,
                some["logits"],
                some["targets"],
                some["levels"],
                some["strides"],
            ),
        )
