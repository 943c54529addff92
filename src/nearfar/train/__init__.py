"""Training runs: a configuration in, a run folder out.

::

    from nearfar.train import train

    run = train()  # the default: a small network on the embedded emoji
    run = train({"criterion": "arcface", "epochs": 10}, data=my_dataset)
    run.metrics["test"]["trained"]["recall@1"]
    model = run.model()

What this package needs besides nearfar's own dependencies comes with ``nearfar[train]``.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from nearfar.errors import MissingExtra

if TYPE_CHECKING:
    from nearfar.train.config import Config
    from nearfar.train.evaluation import evaluate
    from nearfar.train.run import Interrupted, Run, resume, train

_HOME = {
    "Config": "nearfar.train.config",
    "Interrupted": "nearfar.train.run",
    "Run": "nearfar.train.run",
    "evaluate": "nearfar.train.evaluation",
    "resume": "nearfar.train.run",
    "train": "nearfar.train.run",
}

__all__ = ["Config", "Interrupted", "Run", "evaluate", "resume", "train"]

if any(importlib.util.find_spec(name) is None for name in ("filelock", "lightning", "pydantic", "tensorboard")):
    raise MissingExtra("training", extra="train")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nearfar.train' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
