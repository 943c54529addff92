"""Boxes with scores: what is checked of them, their order, and how near they are to each other."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError, NearfarWarning
from nearfar.nn.arguments import finite, within
from nearfar_iou.corners import Corners
from nearfar_iou.distances.box_similarity import BoxSimilarity, PairSimilarity, check_finite_set
from nearfar_iou.distances.iou import IoUSimilarity

__all__ = ["Detections", "at_once", "by_class", "check_threshold", "detections"]

#: Packages between whoever suppresses and a warning.
_OURS = ("nearfar_iou", "torch")
#: Pairs that are compared at once: torch does not share so few among threads, which would wait for each other.
PIECE = 32768


def at_once(n: int) -> int:
    """How many boxes are compared with n others at once."""
    return max(1, PIECE // max(n, 1))


class Detections:
    """Boxes in the order of their scores, the greatest first; of equal scores the first is first.

    Attributes
    ----------
    boxes, scores
        (n, 4) and (n,), in that order.
    order
        (n,) the places that they had.
    """

    def __init__(self, boxes: Tensor, scores: Tensor, distance: nn.Module) -> None:
        self.order = scores.argsort(descending=True, stable=True)
        self.boxes, self.scores = boxes[self.order], scores[self.order]
        self._distance = distance
        self._corners: Corners | None = None
        self._points: Tensor | None = None  # (n,): which have no area, where there are any
        if isinstance(distance, BoxSimilarity):
            extents = distance.prepare(self.boxes)
            corners = Corners.of(torch.cat((-extents[:2], extents[2:])))
            if corners.are_bounded():
                self._corners, self._formula = corners, distance.formula()
                # Of two without an area a quotient of areas says nothing.
                without = corners.area == 0
                self._points = without if bool(without.any()) else None

    def __len__(self) -> int:
        return len(self.boxes)

    def similarity(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """The similarities of some to others: greater is nearer, whatever the distance."""
        if self._corners is None:
            table: Tensor = self._distance(self.boxes[rows], self.boxes[columns])
            return table if self._distance.is_inverted else -table
        table = self._formula(self._corners.rows(rows), self._corners.columns(columns))
        if self._points is not None:
            some, others = self._points[rows].nonzero()[:, 0], self._points[columns].nonzero()[:, 0]
            if len(some) and len(others):
                near = self._distance(self.boxes[rows][some], self.boxes[columns][others])
                table[some[:, None], others] = near
        return table


def detections(boxes: Tensor, scores: Tensor, distance: nn.Module | None) -> tuple[Tensor, Tensor, nn.Module]:
    """Boxes and scores, checked and without a history, and the similarity, ``iou`` by default.

    Raises
    ------
    InputError
        A shape, dtype or device does not fit, a coordinate is not finite, or a score is no number.
    ArgumentError
        The similarity cannot be called.
    """
    distance = IoUSimilarity() if distance is None else distance
    if not callable(distance):
        raise ArgumentError(f"distance is a similarity such as create_distance('giou'); got {distance!r}")
    boxes = check_finite_set(boxes, getattr(distance, "width", 4)).detach()
    if not isinstance(scores, Tensor) or scores.shape != boxes.shape[:1] or scores.is_complex():
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"scores must be a tensor ({len(boxes)},), one for each box; got {shape}")
    if scores.device != boxes.device:
        raise InputError(f"scores are on {scores.device}, the boxes on {boxes.device}")
    scores = scores.detach()
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if bool(scores.isnan().any()):
        raise InputError("scores hold what is no number, so there is no telling which box goes first")
    if isinstance(distance, BoxSimilarity):
        _tell_inverted(boxes, distance)
    return boxes, scores, distance


def _tell_inverted(boxes: Tensor, distance: BoxSimilarity) -> None:
    """Warn of boxes that are none, which most often are of another format than they are read as."""
    inverted = distance.inverted(boxes).any(0)
    if count := int(inverted.sum()):
        first = int(inverted.nonzero()[0])
        warnings.warn(
            f"{count} of {len(boxes)} boxes, the first at {first}, have an end before their start when they are read "
            f"as {distance.box_format}, and count as points at their middle: where they are of another format, give a "
            "distance with that box_format",
            NearfarWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """The ``stacklevel`` of whoever suppresses, past torch's decorators, for the function that asks."""
    frames = enumerate(traceback.walk_stack(sys._getframe(1)), 1)
    return next((n for n, (frame, _) in frames if frame.f_globals.get("__name__", "").split(".")[0] not in _OURS), 2)


def by_class(classes: Tensor | None, boxes: Tensor) -> Iterator[Tensor]:
    """The places of the boxes of each class; of all where there are no classes.

    Raises
    ------
    InputError
        There is not one class id for each box.
    """
    if classes is None:
        if len(boxes):
            yield torch.arange(len(boxes), device=boxes.device)
        return
    if not isinstance(classes, Tensor) or classes.shape != boxes.shape[:1] or classes.is_floating_point():
        raise InputError(f"classes must be class ids ({len(boxes)},), one for each box, of an integer dtype")
    if not len(boxes):
        return
    order = classes.argsort(stable=True)
    yield from torch.split(order, torch.unique_consecutive(classes[order], return_counts=True)[1].tolist())


def check_threshold(threshold: float, dtype: torch.dtype, distance: nn.Module) -> float:
    """The greatest number of a dtype that is not above a threshold: what is greater is greater than the threshold.

    Raises
    ------
    ArgumentError
        It is no finite number, or beyond what the similarity can be: all boxes would be kept, or one.
    """
    value = finite("threshold", threshold)
    if isinstance(distance, PairSimilarity):
        value = within("threshold", value, distance.lowest, 1.0)
    if dtype == torch.float64:
        return value
    nearest = torch.tensor(value, dtype=dtype)
    if nearest.item() > value:
        nearest = nearest.nextafter(torch.tensor(-torch.inf, dtype=dtype))
    return float(nearest)
