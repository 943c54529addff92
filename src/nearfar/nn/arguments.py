"""Checks of constructor arguments that parts share."""

from __future__ import annotations

import math

from nearfar.errors import ArgumentError

__all__ = ["check_choice", "finite", "non_negative", "positive", "within"]


def check_choice(part: object, name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return ``value``, or raise :class:`ArgumentError` where it is none of ``choices``."""
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise ArgumentError(f"{type(part).__name__}: {name} must be one of {known}; got {value!r}")
    return value


def finite(name: str, value: float) -> float:
    """``value`` as a float, or :class:`ArgumentError` where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ArgumentError(f"{name} must be a finite number; got {value!r}")
    return float(value)


def non_negative(name: str, value: float) -> float:
    """``value`` as a float, or :class:`ArgumentError` where it is no finite number of at least 0."""
    if finite(name, value) < 0:
        raise ArgumentError(f"{name} must not be negative; got {value!r}")
    return float(value)


def within(name: str, value: float, low: float, high: float, unit: str = "") -> float:
    """``value`` as a float, or :class:`ArgumentError` where it is no number from ``low`` to ``high``."""
    if not low <= finite(name, value) <= high:
        raise ArgumentError(f"{name} lies in {low:.4g}..{high:.4g}{f' {unit}' if unit else ''}; got {value!r}")
    return float(value)


def positive(name: str, value: float) -> float:
    """``value`` as a float, or :class:`ArgumentError` where it is no finite number above 0."""
    if finite(name, value) <= 0:
        raise ArgumentError(f"{name} must be greater than 0; got {value!r}")
    return float(value)
