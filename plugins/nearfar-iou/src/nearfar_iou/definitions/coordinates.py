"""Losses on the coordinates of boxes, as their formulas read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

__all__ = ["balanced_l1", "l1", "l2", "smooth_l1"]


def over_coordinates(cost: Callable[[float], float], pred_boxes: Any, target_boxes: Any, coord: str) -> float:
    """The mean over boxes of the sum, or mean, over how far their coordinates are off."""
    boxes = list(zip(pred_boxes.tolist(), target_boxes.tolist(), strict=True))
    total = sum(cost(abs(p - t)) for pred, target in boxes for p, t in zip(pred, target, strict=True))
    return total / max(len(boxes), 1) / (4 if coord == "mean" else 1)


def l1(pred_boxes: Any, target_boxes: Any, coord: str) -> float:
    """|p − t|."""
    return over_coordinates(lambda d: d, pred_boxes, target_boxes, coord)


def l2(pred_boxes: Any, target_boxes: Any, coord: str) -> float:
    """(p − t)²."""
    return over_coordinates(lambda d: d**2, pred_boxes, target_boxes, coord)


def smooth_l1(pred_boxes: Any, target_boxes: Any, beta: float, coord: str) -> float:
    """d² / 2β below β, d − β / 2 from there on."""
    return over_coordinates(lambda d: d**2 / (2 * beta) if d < beta else d - beta / 2, pred_boxes, target_boxes, coord)


def balanced_l1(pred_boxes: Any, target_boxes: Any, alpha: float, gamma: float, beta: float, coord: str) -> float:
    """α β / b (t + 1) ln(t + 1) − α d below β, with t = b d / β; a line of slope γ from there on."""
    b = math.exp(gamma / alpha) - 1

    def cost(d: float) -> float:
        if d >= beta:
            return gamma * d + gamma * beta / b - alpha * beta
        t = b * d / beta
        return alpha * beta / b * (t + 1) * math.log(t + 1) - alpha * d

    return over_coordinates(cost, pred_boxes, target_boxes, coord)
