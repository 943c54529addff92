"""Entry module of the plugin ``pair``: losses and miners on pairs and triplets."""

from __future__ import annotations

from nearfar.contributions import RecipeSpec
from nearfar.hookspecs import hookimpl
from nearfar.spec import LossSpec, MinerSpec
from nearfar_pair.combinator_specs import COMBINATORS
from nearfar_pair.loss_specs import LOSSES
from nearfar_pair.miner_specs import MINERS
from nearfar_pair.recipes import RECIPES


@hookimpl
def nearfar_recipes() -> tuple[RecipeSpec, ...]:
    return RECIPES


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [*LOSSES, *COMBINATORS]


@hookimpl
def nearfar_miners() -> list[MinerSpec]:
    return list(MINERS)
