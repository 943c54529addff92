"""The learning rate as a function of the step: nothing to restore, and the same in a run that was interrupted."""

from __future__ import annotations

import math

from nearfar.train.config import Schedule


def factor(schedule: Schedule, step: int, steps: int) -> float:
    """What the learning rates are multiplied with in a step.

    Parameters
    ----------
    schedule : Schedule
        ``cosine``: half a cosine from 1 to 0. ``linear``: a straight line from 1 to 0. ``step``: times ``gamma`` at
        each milestone. ``constant``: 1. Each after a linear rise over the warm-up, whose last step reaches 1.
    step, steps : int
        The number of the step, from 0, and of all steps of the run.
    """
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    if schedule.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule.name == "linear":
        return 1 - done
    if schedule.name == "step":
        passed = sum(step >= round(milestone * steps) for milestone in schedule.milestones)
        return schedule.gamma**passed
    return 1.0
