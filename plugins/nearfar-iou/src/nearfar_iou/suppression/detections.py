"""Boxes with scores: what is checked of them, their order, and how near they are to each other."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.arguments import finite
from nearfar_iou.corners import Corners
from nearfar_iou.distances.box_similarity import BoxSimilarity, check_set
from nearfar_iou.distances.iou import IoUSimilarity

__all__ = ["Detections", "by_class", "check_threshold", "detections"]


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
        A shape, dtype or device does not fit, or a score is no number.
    ArgumentError
        The similarity cannot be called.
    """
    distance = IoUSimilarity() if distance is None else distance
    if not callable(distance):
        raise ArgumentError(f"distance is a similarity such as create_distance('giou'); got {distance!r}")
    boxes = check_set(boxes, getattr(distance, "width", 4)).detach()
    if not isinstance(scores, Tensor) or scores.shape != boxes.shape[:1] or scores.is_complex():
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"scores must be a tensor ({len(boxes)},), one for each box; got {shape}")
    if scores.device != boxes.device:
        raise InputError(f"scores are on {scores.device}, the boxes on {boxes.device}")
    scores = scores.detach()
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if bool(scores.isnan().any()):
        raise InputError("scores hold what is no number, so there is no telling which box goes first")
    return boxes, scores, distance


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


def check_threshold(threshold: float, dtype: torch.dtype) -> float:
    """The greatest number of a dtype that is not above a threshold: what is greater is greater than the threshold.

    Raises
    ------
    ArgumentError
        It is no finite number.
    """
    value = finite("threshold", threshold)
    if dtype == torch.float64:
        return value
    nearest = torch.tensor(value, dtype=dtype)
    if nearest.item() > value:
        nearest = nearest.nextafter(torch.tensor(-torch.inf, dtype=dtype))
    return float(nearest)
