"""Several optimisers as one, each for its own parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

__all__ = ["Together"]


class Together(torch.optim.Optimizer):
    """What steps with several optimisers, which have no parameter in common.

    Its groups are theirs, in their order, and so is its state: a schedule, a loss scaler and a checkpoint see one
    optimiser, with the ``state_dict`` that one over all the groups would have.

    Parameters
    ----------
    parts : sequence of Optimizer
        That have not stepped yet.
    """

    #: Each of them says for itself which gradients it takes.
    takes_rows = True

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([{"params": group["params"]} for part in parts for group in part.param_groups], {})
        self.param_groups = [group for part in parts for group in part.param_groups]
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def __getstate__(self) -> dict[str, Any]:
        # Of an optimiser's attributes torch copies and pickles its own alone.
        return {**super().__getstate__(), "parts": self.parts}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of each."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for part in self.parts:
            part.step()
        return value

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what an optimiser of as many groups with as many parameters had."""
        super().load_state_dict(dict(state_dict))
        self._share()
