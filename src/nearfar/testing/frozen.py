"""Hold constant what a loss computes without a gradient, so that finite differences see what autograd sees.

A loss that weighs its terms by a detached function of its input has, on purpose, a gradient that is not that of
its value. Frozen, that function keeps the values it had when :class:`Frozen` was first entered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Frozen"]

_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
#: What changes its first argument and returns nothing.
_SETTERS = {_SET_DATA, Tensor.__setitem__}


class Frozen(TorchFunctionMode):
    """Records, the first time it is entered, everything that is cut from the graph, and replays it ever after.

    Cut is each result without a gradient of something with one: what ``detach``, ``data``, ``item`` and ``float``
    give, what is computed under ``no_grad``, what is written into a buffer there. So the inputs must require a
    gradient while it is entered, also where none is taken. Calls between its entries must be the same but for the
    values of their inputs. The forward pass of an autograd function is one operation, but for what it detaches of
    what it has computed itself: so a pass written by hand says which of its factors its gradient holds constant.

    It cannot hold what is written into a tensor through an alias (``x.data[0] = 1``), nor what a backward pass
    written by hand leaves out.

    Raises
    ------
    RuntimeError
        On a later entry other things were cut than on the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tape: list[Any] = []
        self._recording = True
        self._position = 0
        self._busy = False

    def __enter__(self) -> Frozen:
        self._position = 0
        self._apply = torch.autograd.Function.__dict__["apply"]
        original = self._apply

        def apply(cls: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
            return self._call(original.__get__(None, cls), args, kwargs)

        # A mode sees the operations of an autograd function's forward pass, but not that they are one.
        torch.autograd.Function.apply = classmethod(apply)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        super().__exit__(kind, *error)  # type: ignore[no-untyped-call]
        torch.autograd.Function.apply = self._apply
        if kind is not None:
            return
        if not self._recording and self._position != len(self._tape):
            raise RuntimeError(f"{len(self._tape)} things were cut from the graph at first, now {self._position}")
        self._recording = False

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._call(function, args, kwargs or {})

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._busy:
            # Within a pass written by hand only its inputs have a history: what else is detached is so on purpose.
            found = function(*args, **kwargs)
            on_purpose = function is Tensor.detach and not args[0].requires_grad
            return self._hold(found, in_place=False) if on_purpose else found
        arguments = list(_leaves((args, list(kwargs.values()))))
        has_gradient = any(isinstance(x, Tensor) and x.requires_grad for x in arguments)
        self._busy = True
        try:
            found = function(*args, **kwargs)
            if not has_gradient:
                return found
            if function in _SETTERS:
                self._hold(args[0], in_place=True, as_data=function == _SET_DATA)
                return found
            changed = {id(x) for x in arguments if isinstance(x, Tensor)}
            return _mapped(found, lambda x: self._hold(x, in_place=id(x) in changed))
        finally:
            self._busy = False

    def _hold(self, value: Any, *, in_place: bool, as_data: bool = False) -> Any:
        """A result as it was recorded, where it is cut; in the result's own memory where it is one of the inputs."""
        if not _is_cut(value, is_input=in_place):
            return value
        if self._recording:
            with torch.no_grad():
                self._tape.append(value.clone() if isinstance(value, Tensor) else value)
            return value.detach() if isinstance(value, Tensor) and value.requires_grad else value
        if self._position == len(self._tape):
            raise RuntimeError(f"more is cut from the graph than the {len(self._tape)} things at first")
        recorded = self._tape[self._position]
        self._position += 1
        if isinstance(recorded, Tensor) != isinstance(value, Tensor):
            raise RuntimeError("a number and a tensor were cut from the graph in another order than at first")
        if not isinstance(value, Tensor):
            return recorded
        if recorded.shape != value.shape:
            raise RuntimeError(f"cut from the graph was {tuple(recorded.shape)} at first, now {tuple(value.shape)}")
        if not in_place:
            return recorded.clone()
        with torch.no_grad():
            if as_data:
                value.data = recorded.clone()
            else:
                value.copy_(recorded)
        return value


def _is_cut(value: Any, *, is_input: bool) -> bool:
    if not isinstance(value, Tensor):
        return isinstance(value, float)
    # A view that is taken under no_grad requires a gradient like what it is a view of, and passes none on.
    connected = value.requires_grad and (is_input or value.grad_fn is not None)
    return value.is_floating_point() and not connected


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """``value`` with ``function`` of everything in its lists and tuples, those with names among them."""
    if not isinstance(value, list | tuple):
        return function(value)
    items = [_mapped(item, function) for item in value]
    return value._make(items) if hasattr(value, "_make") else type(value)(items)
