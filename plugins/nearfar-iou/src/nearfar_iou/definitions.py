"""What similarities of boxes compute, said slowly and plainly: the checks of ``nearfar.testing`` hold parts to it."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["ciou", "diou", "giou", "iou", "probiou"]

Box = Sequence[float]


def iou(a: Box, b: Box, box_format: str = "xyxy") -> float:
    """|A ∩ B| / |A ∪ B|."""
    a, b = _corners(a, box_format), _corners(b, box_format)
    shared = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - shared
    return shared / union if union else float(a == b)


def giou(a: Box, b: Box, box_format: str = "xyxy") -> float:
    """IoU − |C − A ∪ B| / |C|, where |A ∪ B| = (|A| + |B|) / (1 + IoU)."""
    overlap = iou(a, b, box_format)
    a, b = _corners(a, box_format), _corners(b, box_format)
    union, hull = (_area(a) + _area(b)) / (1 + overlap), _area(_hull(a, b))
    return overlap - (hull - union) / hull


def diou(a: Box, b: Box, box_format: str = "xyxy") -> float:
    """IoU − ρ² / c²."""
    overlap = iou(a, b, box_format)
    a, b = _corners(a, box_format), _corners(b, box_format)
    hull = _hull(a, b)
    apart = math.dist(((a[0] + a[2]) / 2, (a[1] + a[3]) / 2), ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2))
    return overlap - (apart / math.dist(hull[:2], hull[2:])) ** 2


def ciou(a: Box, b: Box, box_format: str = "xyxy") -> float:
    """DIoU − α v."""
    overlap, value = iou(a, b, box_format), diou(a, b, box_format)
    a, b = _corners(a, box_format), _corners(b, box_format)
    v = (2 / math.pi * (math.atan((a[2] - a[0]) / (a[3] - a[1])) - math.atan((b[2] - b[0]) / (b[3] - b[1])))) ** 2
    return value - (v / (1 - overlap + v) * v if v else 0.0)


def probiou(a: Box, b: Box) -> float:
    """1 − H, by the covariances of both boxes and the matrix that is their sum."""
    (p, q, r), (s, t, u) = _covariance(a), _covariance(b)
    first, second, cross = p + s, q + t, r + u
    determinant = first * second - cross**2
    x, y = a[0] - b[0], a[1] - b[1]
    apart = (second * x**2 - 2 * cross * x * y + first * y**2) / determinant / 4
    shapes = math.log(determinant / (4 * math.sqrt((p * q - r**2) * (s * t - u**2)))) / 2
    return 1 - math.sqrt(1 - math.exp(-(apart + shapes)))


def _corners(box: Box, box_format: str) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2)."""
    a, b, c, d = box
    if box_format == "xywh":
        return a, b, a + c, b + d
    if box_format == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return (-a, -b, c, d) if box_format == "ltrb" else (a, b, c, d)


def _hull(a: Box, b: Box) -> tuple[float, float, float, float]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _covariance(box: Box) -> tuple[float, float, float]:
    """The variances along x and y, and the covariance, of points spread evenly over a rotated box."""
    _, _, width, height, angle = box
    along, across = width**2 / 12, height**2 / 12
    cosine, sine = math.cos(angle), math.sin(angle)
    return (
        along * cosine**2 + across * sine**2,
        along * sine**2 + across * cosine**2,
        (along - across) * cosine * sine,
    )
