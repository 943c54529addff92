"""When what a part keeps moves on: with its calls, or with the steps of an optimiser that it follows."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import nn

__all__ = ["Stepping", "follow"]


class Stepping(nn.Module):
    """A part of which something moves on once a step: a margin that comes in slowly, the centres of classes.

    A subclass does its bookkeeping in its calls, ends each with :meth:`called`, and moves on in :meth:`step`. Such a
    call in training mode is a step, until the part is made to :func:`follow` an optimiser: then its steps are, and
    calls whose gradients are accumulated count as one. A copy, also one that was pickled, follows nothing.
    """

    #: What :func:`follow` has put there; None: calls are steps.
    follows: object = None

    @abstractmethod
    def step(self) -> None:
        """Move on by what the calls since the last step have seen."""

    def called(self) -> None:
        """Tell that a call ends; in evaluation mode nothing moves."""
        if self.training and self.follows is None:
            self.step()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "follows"}


def follow(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Have every :class:`Stepping` part of ``module`` move on with each step of ``optimizer``, no longer with calls.

    A part follows the optimiser that it was told last. A step that a loss scaler skips is none.
    """
    token = object()
    parts = [part for part in module.modules() if isinstance(part, Stepping)]
    for part in parts:
        part.follows = token

    def moved(stepped: torch.optim.Optimizer, *_: Any) -> None:
        # A fused optimiser is called also where the scaler found what is not finite, and leaves its weights then.
        if getattr(stepped, "found_inf", None):
            return
        for part in parts:
            if part.follows is token:
                part.step()

    if parts:
        optimizer.register_step_post_hook(moved)
