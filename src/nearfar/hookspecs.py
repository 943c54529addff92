"""The hooks a plugin may implement.

Each returns an iterable of specs; returning data, rather than pushing it into a registrar, keeps its
provenance known. A plugin that implements a hook newer than the nearfar installed marks it
``@hookimpl(optionalhook=True)``; without the mark the plugin is reported as failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import pluggy

from nearfar.contributions import CommandSpec, RecipeSpec
from nearfar.spec import KINDS, DistanceSpec, LossSpec, MinerSpec, ReducerSpec

PROJECT = "nearfar"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

#: Kind of part → the hook that declares parts of that kind.
HOOKS: Mapping[str, str] = MappingProxyType(
    {
        "loss": "nearfar_losses",
        "miner": "nearfar_miners",
        "reducer": "nearfar_reducers",
        "distance": "nearfar_distances",
    }
)

#: Hook → what it returns an iterable of.
RETURNS: Mapping[str, type[object]] = MappingProxyType(
    {hook: KINDS[kind] for kind, hook in HOOKS.items()}
    | {"nearfar_recipes": RecipeSpec, "nearfar_commands": CommandSpec}
)


@hookspec
def nearfar_losses() -> Iterable[LossSpec]:
    """Declare losses."""
    return ()


@hookspec
def nearfar_miners() -> Iterable[MinerSpec]:
    """Declare miners."""
    return ()


@hookspec
def nearfar_reducers() -> Iterable[ReducerSpec]:
    """Declare reducers."""
    return ()


@hookspec
def nearfar_distances() -> Iterable[DistanceSpec]:
    """Declare distances."""
    return ()


@hookspec
def nearfar_recipes() -> Iterable[RecipeSpec]:
    """Declare recipes that are worth knowing by name."""
    return ()


@hookspec
def nearfar_commands() -> Iterable[CommandSpec]:
    """Declare commands below ``nearfar bench`` and ``nearfar plot``."""
    return ()
