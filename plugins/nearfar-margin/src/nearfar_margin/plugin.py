"""Entry module of the plugin ``margin``."""

from __future__ import annotations

from nearfar.contributions import CommandSpec, RecipeSpec
from nearfar.hookspecs import hookimpl
from nearfar.spec import LossSpec
from nearfar_margin.recipes import RECIPES
from nearfar_margin.specs import adaptive, additive, multiplicative, softmax


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [*softmax.SPECS, *multiplicative.SPECS, *additive.SPECS, *adaptive.SPECS]


@hookimpl
def nearfar_recipes() -> tuple[RecipeSpec, ...]:
    return RECIPES


@hookimpl
def nearfar_commands() -> list[CommandSpec]:
    return [
        CommandSpec(
            group="plot",
            name="margins",
            target="nearfar_margin.commands.margins:command",
            summary="The target's logit, and where two classes are told apart, of margin losses.",
        ),
    ]
