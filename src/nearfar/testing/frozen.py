"""Hold constant what a loss computes without a gradient, so that finite differences see what autograd sees.

A loss that weighs its terms by a detached function of its input has, on purpose, a gradient that is not that of
its value. Frozen, that function keeps the values it had when :class:`Frozen` was first entered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Frozen"]

_CUTS = {Tensor.detach, Tensor.detach_, torch.detach, torch.detach_, Tensor.data.__get__}  # type: ignore[attr-defined]


class Frozen(TorchFunctionMode):
    """Records every detached tensor the first time it is entered, and replays it afterwards.

    Detached is what ``detach`` returns and what is computed under ``no_grad``, outside autograd functions, whose
    own forward passes run without a gradient and are differentiated nevertheless.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tape: list[Any] = []
        self._position: int | None = None
        self._inside = 0

    def __enter__(self) -> Frozen:
        self._position = None if self._position is None and not self._tape else 0
        self._apply = torch.autograd.Function.__dict__["apply"]
        frozen, original = self, self._apply.__func__

        def apply(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
            frozen._inside += 1
            try:
                return original(cls, *args, **kwargs)
            finally:
                frozen._inside -= 1

        torch.autograd.Function.apply = classmethod(apply)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.autograd.Function.apply = self._apply

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        cut = function in _CUTS or not torch.is_grad_enabled()
        if self._inside or not cut or not (isinstance(found, Tensor) and found.is_floating_point()):
            return found
        if self._position is None:
            self._tape.append(found.detach().clone())
            return found
        replayed: Tensor = self._tape[self._position]
        self._position += 1
        return replayed
