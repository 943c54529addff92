"""nearfar: the registry of metric-learning parts.

Losses, miners, reducers and distances are plugins with names, and named parts compose into one criterion.
Everything here is imported when it is first used: ``import nearfar`` and listing parts never load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearfar import data as data
    from nearfar import errors as errors
    from nearfar import evaluate as evaluate
    from nearfar import explain as explain
    from nearfar import inference as inference
    from nearfar import models as models
    from nearfar import nn as nn
    from nearfar import report as report
    from nearfar import testing as testing
    from nearfar import train as train
    from nearfar.build import compose, create_distance, create_loss, create_miner, create_reducer
    from nearfar.contributions import CommandSpec, RecipeSpec
    from nearfar.errors import NearfarError
    from nearfar.evaluate import retrieval_metrics
    from nearfar.hookspecs import hookimpl
    from nearfar.local import register, unregister
    from nearfar.models import create_model
    from nearfar.nn import (
        ClassLoss,
        Criterion,
        Distance,
        EmbeddingLoss,
        Loss,
        MaterialTerms,
        Miner,
        Reducer,
        Selection,
        Terms,
    )
    from nearfar.recipe import Recipe
    from nearfar.registry import list_distances, list_losses, list_miners, list_plugins, list_reducers
    from nearfar.schedule import Schedule
    from nearfar.spec import Defect, DistanceSpec, LossSpec, MinerSpec, Paper, Preset, ReducerSpec

__version__ = "0.1.0"

_HOME = {
    "nearfar.build": ("compose", "create_distance", "create_loss", "create_miner", "create_reducer"),
    "nearfar.contributions": ("CommandSpec", "RecipeSpec"),
    "nearfar.errors": ("NearfarError",),
    "nearfar.evaluate": ("retrieval_metrics",),
    "nearfar.hookspecs": ("hookimpl",),
    "nearfar.local": ("register", "unregister"),
    "nearfar.models": ("create_model",),
    "nearfar.nn": (
        "ClassLoss",
        "Criterion",
        "Distance",
        "EmbeddingLoss",
        "Loss",
        "MaterialTerms",
        "Miner",
        "Reducer",
        "Selection",
        "Terms",
    ),
    "nearfar.recipe": ("Recipe",),
    "nearfar.registry": ("list_distances", "list_losses", "list_miners", "list_plugins", "list_reducers"),
    "nearfar.schedule": ("Schedule",),
    "nearfar.spec": ("Defect", "DistanceSpec", "LossSpec", "MinerSpec", "Paper", "Preset", "ReducerSpec"),
}
#: Packages that need no import of their own: ``nearfar.train.train()`` works after ``import nearfar``.
_PACKAGES = ("data", "errors", "evaluate", "explain", "inference", "models", "nn", "report", "testing", "train")
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "ClassLoss",
    "CommandSpec",
    "Criterion",
    "Defect",
    "Distance",
    "DistanceSpec",
    "EmbeddingLoss",
    "Loss",
    "LossSpec",
    "MaterialTerms",
    "Miner",
    "MinerSpec",
    "NearfarError",
    "Paper",
    "Preset",
    "Recipe",
    "RecipeSpec",
    "Reducer",
    "ReducerSpec",
    "Schedule",
    "Selection",
    "Terms",
    "__version__",
    "compose",
    "create_distance",
    "create_loss",
    "create_miner",
    "create_model",
    "create_reducer",
    "hookimpl",
    "list_distances",
    "list_losses",
    "list_miners",
    "list_plugins",
    "list_reducers",
    "register",
    "retrieval_metrics",
    "unregister",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        try:
            return importlib.import_module(f"nearfar.{name}")
        except ImportError as error:  # an extra that is not installed; not what hasattr() should stop at
            raise AttributeError(str(error)) from error
    if name not in _WHERE:
        raise AttributeError(f"module 'nearfar' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
