"""What sees the operators of a call, and says where in the source each was called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["OperatorMode", "operator_name", "where"]


class OperatorMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that does not load torch's compiler, which takes seconds, to be left out by it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def operator_name(function: Any) -> str:
    """``aten.nonzero``, of whatever overload."""
    return str(getattr(function, "overloadpacket", function))


_OURS = tuple(str(Path(path).parent) + os.sep for path in (__file__, torch.__file__))


def where() -> str:
    """The line of source that called the operator: the innermost outside of torch and of what measures."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "_engine_run_backward":
            return "in the backward pass"
        if not file.startswith((*_OURS, "<")):
            return f"at {Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "somewhere"
