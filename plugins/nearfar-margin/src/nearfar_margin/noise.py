"""Random numbers that are counted rather than drawn: a function of a seed, a step and a place.

No generator has a state to lose, so a run that is resumed goes on as one that was not interrupted; several ranks that
hold the same batch find the same numbers; and a step that lives on a GPU is never waited for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["counted_below", "counted_normal"]

# The increment and the multipliers of splitmix64 (Steele, Lea, Flood 2014), as signed 64-bit numbers.
_INCREMENT, _FIRST, _SECOND = (n - 2**64 for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def counted_normal(seed: int, step: Tensor, count: int) -> Tensor:
    """The first ``count`` standard normal numbers of a step, (count,) float32, on the device of ``step``.

    Parameters
    ----------
    seed
        Which sequence of steps.
    step
        0-d int64.
    count
        How many; the first ones are the same for any number.
    """
    place = torch.arange(2 * count, device=step.device).view(count, 2)
    uniform = (_mixed(_mixed(_mixed(step) ^ seed) + place) >> 40 & 0xFFFFFF).float()
    # Box and Muller: 24 bits each, the first moved off 0, of which there is no logarithm.
    radius = (-2 * ((uniform[:, 0] + 0.5) / 2**24).log()).sqrt()
    return radius * (2 * math.pi * uniform[:, 1] / 2**24).cos()


def counted_below(seed: int, step: Tensor, places: Tensor, share: float) -> Tensor:
    """Whether each place's uniform number of a step is below ``share``, (n,) of bool, for places (n,) of int64.

    It depends on nothing but the seed, the step and the place itself, whatever other places are asked for.
    """
    bits = _shifted(_mixed(_mixed(_mixed(step) ^ seed) + places), 11)
    return bits < int(share * 2**53)


def _mixed(x: Tensor) -> Tensor:
    """splitmix64's output function, wrapped around at 64 bits."""
    x = x + _INCREMENT
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """``x >> by`` with zeros from the left, where torch repeats the sign."""
    return (x >> by).bitwise_and(2 ** (64 - by) - 1)
