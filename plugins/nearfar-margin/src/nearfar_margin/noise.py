"""Random numbers that are counted rather than drawn: a function of a seed, a step and a place.

No generator has a state to lose, so a run that is resumed goes on as one that was not interrupted; several ranks that
hold the same batch find the same numbers; and a step that lives on a GPU is never waited for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nearfar.nn.counted import mixed

__all__ = ["counted_below", "counted_normal"]


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
    uniform = (mixed(mixed(mixed(step) ^ seed) + place) >> 40 & 0xFFFFFF).float()
    # Box and Muller: 24 bits each, the first moved off 0, of which there is no logarithm.
    radius = (-2 * ((uniform[:, 0] + 0.5) / 2**24).log()).sqrt()
    return radius * (2 * math.pi * uniform[:, 1] / 2**24).cos()


def counted_below(seed: int, step: Tensor, places: Tensor, share: float) -> Tensor:
    """Whether each place's uniform number of a step is below ``share``, (n,) of bool, for places (n,) of int64.

    It depends on nothing but the seed, the step and the place itself, whatever other places are asked for.
    """
    bits = mixed(mixed(mixed(step) ^ seed) + places) >> 11 & 2**53 - 1
    return bits < int(share * 2**53)
