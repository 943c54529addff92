"""Boxes moved, scaled, mirrored, or written another way: ``xyxy`` with four numbers, ``cxcywhr`` with five."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nearfar.testing.definition import arguments_of
from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject

__all__ = ["FORMATS", "flipped", "format_of", "formatted", "scaled", "sized", "translated"]

#: From ``xyxy`` to another format of four numbers.
FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "xyxy": lambda b: b,
    "xywh": lambda b: torch.cat([b[:, :2], b[:, 2:] - b[:, :2]], 1),
    "ltrb": lambda b: torch.cat([-b[:, :2], b[:, 2:]], 1),  # from the origin
    "cxcywh": lambda b: torch.cat([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1),
}


def translated(boxes: Tensor, by: float) -> Tensor:
    """Boxes moved, in x by so much and in y by somewhat less the other way."""
    shift = torch.tensor([by, -0.7 * by, by, -0.7 * by] if boxes.shape[1] == 4 else [by, -0.7 * by, 0, 0, 0])
    return boxes + shift.to(boxes)


def scaled(boxes: Tensor, by: float) -> Tensor:
    """Boxes exp(``by`` / 10) times as large, and as far from the origin."""
    factor = math.exp(by / 10)
    return boxes * torch.tensor([factor] * 4 + [1.0] * (boxes.shape[1] - 4)).to(boxes)


def flipped(boxes: Tensor, by: float) -> Tensor:
    """Boxes in a mirror: x for an even ``by``, y for an odd one."""
    sign, axis = torch.ones(boxes.shape[1]).to(boxes), int(by) % 2
    if boxes.shape[1] == 5:
        sign[[axis, 4]] = -1
        return sign * boxes
    sign[[axis, axis + 2]] = -1
    return (sign * boxes)[:, [2, 1, 0, 3] if axis == 0 else [0, 3, 2, 1]]


def sized(boxes: Tensor, width: float, height: float) -> Tensor:
    """Boxes whose sides are multiplied with ``width`` and ``height``."""
    factors = torch.tensor([width, height], dtype=boxes.dtype)
    if boxes.shape[1] == 5:
        return torch.cat([boxes[:, :2], factors * boxes[:, 2:4], boxes[:, 4:]], 1)
    return torch.cat([boxes[:, :2], boxes[:, :2] + factors * (boxes[:, 2:] - boxes[:, :2])], 1)


def format_of(subject: Subject, arguments: Mapping[str, Any]) -> str:
    """The format that one of the arguments of a part names; ``xyxy`` where none does."""
    values = arguments_of(subject, arguments).values()
    return next((value for value in values if isinstance(value, str) and value in FORMATS), "xyxy")


def formatted(subject: Subject, scene: Scene, arguments: Mapping[str, Any]) -> Scene:
    """Boxes that are ``xyxy`` in the format that a part takes them in; anything else as it is."""
    asked = format_of(subject, arguments)
    if asked == "xyxy" or "pred_boxes" not in scene or scene["pred_boxes"].shape[1] != 4:
        return scene
    return scene.replace(**{name: FORMATS[asked](scene[name]) for name in ("pred_boxes", "target_boxes")})
