"""A device that is not there: tensors say they are on it, and what is computed of them is computed on the CPU.

What a GPU would refuse is refused, with the values that it would compute otherwise: so that code that was never run on
one is found to mix devices.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

from nearfar.testing.operators import OperatorMode

__all__ = ["ELSEWHERE", "MixedDevices", "NotThere", "elsewhere", "here", "is_beyond", "there"]

#: A device that torch knows of, has no kernels for, and differentiates on in the thread of the CPU.
ELSEWHERE = torch.device("lazy")


class MixedDevices(RuntimeError):
    """An operation on tensors of two devices."""


class NotThere(NotImplementedError):
    """What a GPU can do, and a device that is made up cannot."""


class _There(Tensor):
    """A tensor elsewhere, of which ``here`` is what it holds."""

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, here: Tensor) -> _There:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=ELSEWHERE,
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _computed(func, args, kwargs or {})

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True  # as code asks that means "not on the CPU"

    def get_device(self) -> int:
        return 0

    def tolist(self) -> Any:
        return self.here.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.here.detach().numpy()
        raise MixedDevices("an array of NumPy's is made of a tensor that is not on the CPU: call cpu() first")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"there({self.here})"


def there(tensor: Tensor) -> Tensor:
    """A leaf elsewhere that holds what a tensor does."""
    return _There(tensor.detach()).requires_grad_(tensor.requires_grad)


def here(tensor: Tensor) -> Tensor:
    """What a tensor holds, wherever it is."""
    return tensor.here if isinstance(tensor, _There) else tensor


def is_beyond(error: BaseException) -> bool:
    """Whether an error is of what torch cannot do on a device that is not there, and could on a GPU."""
    return isinstance(error, NotThere) or ELSEWHERE.type in str(error).lower()


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Have tensors made on, and moved to, :data:`ELSEWHERE`; operations on tensors of both are refused.

    Raises
    ------
    MixedDevices
        In the block: an operation has a tensor elsewhere and one on the CPU. One number on the CPU beside them is
        allowed, and so are indices there, as on a GPU.
    """
    with contextlib.ExitStack() as stack:
        # What of torch knows devices by their names knows nothing of this one.
        stack.enter_context(mock.patch.object(torch.autocast, "__init__", _on_the_cpu(torch.autocast.__init__)))
        for name in ("is_autocast_enabled", "get_autocast_dtype", "set_autocast_enabled", "set_autocast_dtype"):
            stack.enter_context(mock.patch.object(torch, name, _on_the_cpu(getattr(torch, name))))
        # Views of a tensor of this sort are none in inference mode.
        stack.enter_context(mock.patch.object(torch._C, "_InferenceMode", _without_gradient))
        stack.enter_context(_Made())
        stack.enter_context(_Dispatched())  # type: ignore[no-untyped-call]
        yield


def _without_gradient(mode: bool) -> contextlib.AbstractContextManager[None]:
    return torch.no_grad() if mode else contextlib.nullcontext()


def _on_the_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is told of the CPU where it is asked about :data:`ELSEWHERE`."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        args = tuple("cpu" if isinstance(each, str) and each == ELSEWHERE.type else each for each in args)
        kwargs = {k: "cpu" if isinstance(v, str) and v == ELSEWHERE.type else v for k, v in kwargs.items()}
        return function(*args, **kwargs)

    return called


_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor)


class _Made(TorchFunctionMode):
    """Tensors of Python's numbers, which torch makes and moves where no other mode sees it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = tree_map(_placed, args)
        kwargs = {name: _placed(value, is_device=name == "device") for name, value in (kwargs or {}).items()}
        if func is Tensor.cuda:
            return args[0].to(ELSEWHERE)
        if func is Tensor.to and len(args) > 1:
            args = (args[0], _placed(args[1], is_device=True), *args[2:])
        if func in _FROM_DATA and _is_elsewhere(kwargs.get("device")):
            return func(*args, **kwargs | {"device": "cpu"}).to(ELSEWHERE)
        if func is Tensor.new_tensor and isinstance(args[0], _There):
            device = kwargs.pop("device", ELSEWHERE)
            kwargs.setdefault("dtype", args[0].dtype)
            made = torch.tensor(*args[1:], **kwargs)
            return made.to(ELSEWHERE) if _is_elsewhere(device) else made
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], _There):
            args = (args[0], _indices(args[1]), *args[2:])
        return func(*args, **kwargs)


def _placed(item: Any, *, is_device: bool = False) -> Any:
    """A GPU, which there is none of, as the device that stands for it."""
    if isinstance(item, torch.device):
        return ELSEWHERE if item.type == "cuda" else item
    return ELSEWHERE if is_device and isinstance(item, str) and item.startswith("cuda") else item


def _indices(index: Any) -> Any:
    """What stands in brackets; a list of lists there is a tuple of them, as torch has it."""
    is_nested = isinstance(index, list) and any(isinstance(each, list | tuple) for each in index)
    return tuple(map(_index, index)) if is_nested or isinstance(index, tuple) else _index(index)


def _index(item: Any) -> Any:
    """Indices in a list, or in whatever has no tensors in it, as the tensor that torch would make of them."""
    if not isinstance(item, list | tuple | range) or any(isinstance(each, Tensor) for each in item):
        return item
    return torch.tensor(list(item), dtype=None if len(item) else torch.int64)


def _is_elsewhere(device: Any) -> bool:
    return device is not None and not isinstance(device, int) and torch.device(device).type == ELSEWHERE.type


class _Dispatched(OperatorMode):  # type: ignore[no-untyped-call]
    """Sees the operations that no tensor elsewhere takes part in, which may make one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


#: Operations that take tensors of two devices.
_MOVES = ("copy_", "_to_copy", "set_")
#: Those that take indices of another device, as their second argument.
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")
#: And those that take not even one number of another device.
_JOINED = ("cat", "stack")


def _computed(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    given = tree_flatten((args, kwargs))[0]
    away = [each for each in given if isinstance(each, _There)]
    name = func.overloadpacket.__name__
    is_there = _is_elsewhere(kwargs["device"]) if kwargs.get("device") is not None else bool(away)
    if away and name not in _MOVES:
        _refuse_mixed(name, args, kwargs)
    if is_there and any(isinstance(each, torch.Generator) for each in given):
        raise MixedDevices(f"{name} draws on another device with a generator of the CPU")
    out = func(*tree_map(_unwrapped, args), **tree_map(_unwrapped, dict(kwargs)))
    if not is_there:
        return out
    known = {id(each.here): each for each in away}
    out = tree_map(lambda each: _wrapped(each, known), out)
    return return_and_correct_aliasing(func, args, dict(kwargs), out) if away else out  # type: ignore[no-untyped-call]


def _refuse_mixed(name: str, args: Any, kwargs: Mapping[str, Any]) -> None:
    looked_at = (args[0], *args[2:]) if name in _INDEXED and isinstance(args[0], _There) else args
    tensors = [each for each in tree_flatten((looked_at, kwargs))[0] if isinstance(each, Tensor)]
    least = 0 if name in _JOINED else 1
    if left := [each for each in tensors if not isinstance(each, _There) and each.ndim >= least]:
        shapes = ", ".join(str(tuple(each.shape)) for each in left)
        raise MixedDevices(f"{name} has inputs on another device and a tensor {shapes} on the CPU")


def _unwrapped(item: Any) -> Any:
    if isinstance(item, torch.device):
        return torch.device("cpu") if _is_elsewhere(item) else item
    return item.here if isinstance(item, _There) else item


def _wrapped(item: Any, known: Mapping[int, Tensor]) -> Any:
    """A tensor elsewhere; the one that it was written into, where there is one."""
    if not isinstance(item, Tensor) or isinstance(item, _There):
        return item
    if item.layout != torch.strided:
        raise NotThere("sparse tensors are beyond a device that is made up")
    return known[id(item)] if id(item) in known else _There(item)
