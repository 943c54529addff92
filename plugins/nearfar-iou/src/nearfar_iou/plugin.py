"""Entry module of the plugin ``iou``: losses of detection, on boxes and on their scores."""

from __future__ import annotations

from nearfar.contributions import CommandSpec, RecipeSpec
from nearfar.hookspecs import hookimpl
from nearfar.spec import DistanceSpec, LossSpec, MinerSpec
from nearfar_iou.recipes import RECIPES
from nearfar_iou.specs import around, coordinates, elements, logits, matchers, overlap, rotated, similarities


@hookimpl
def nearfar_losses() -> list[LossSpec]:
    return [*overlap.SPECS, *around.SPECS, *coordinates.SPECS, *rotated.SPECS, *logits.SPECS]


@hookimpl
def nearfar_distances() -> list[DistanceSpec]:
    return [*similarities.SPECS]


@hookimpl
def nearfar_miners() -> list[MinerSpec]:
    return [*matchers.SPECS, *elements.SPECS]


@hookimpl
def nearfar_recipes() -> tuple[RecipeSpec, ...]:
    return RECIPES


@hookimpl
def nearfar_commands() -> list[CommandSpec]:
    return [
        CommandSpec(
            group="bench",
            name="boxes",
            target="nearfar_iou.commands.boxes:command",
            summary="Boxes that descend towards targets, as in the paper of DIoU.",
        ),
        CommandSpec(
            group="plot",
            name="focal",
            target="nearfar_iou.commands.focal:command",
            summary="Focal loss over γ, with its gradient.",
        ),
        CommandSpec(
            group="plot",
            name="regression",
            target="nearfar_iou.commands.regression:command",
            summary="L1, L2, smooth L1 and balanced L1, with their gradients.",
        ),
    ]
