"""What a plugin gives besides parts: recipes that compose, commands that load."""

from __future__ import annotations

import importlib
from typing import Any

import click

from nearfar.errors import NearfarError
from nearfar.recipe import Recipe
from nearfar.testing.law import LawBroken, law
from nearfar.testing.scene import CLASSES, DIM
from nearfar.testing.subject import PluginSubject

_CONTEXT = {"num_classes": CLASSES, "embedding_size": DIM, "image_size": 16}


def _recipes(subject: Any) -> list[str]:
    return [spec.name for spec in subject.plugin.recipes]


def _commands(subject: Any) -> list[str]:
    return [f"{spec.group} {spec.name}" for spec in subject.plugin.commands]


@law("plugin", cases=_recipes)
def shown_recipes(subject: PluginSubject, case: str) -> None:
    """Every recipe that the plugin shows can be read and composes, and no part has its name."""
    (spec,) = [spec for spec in subject.plugin.recipes if spec.name == case]
    if kinds := subject.registry.kinds_of(case):
        raise LawBroken(f"the recipe {case} has the name of a {kinds[0]}, and `nearfar show {case}` shows that instead")
    try:
        problems = Recipe.of(spec.recipe).check(subject.registry, **_CONTEXT)
    except NearfarError as error:
        raise LawBroken(f"the recipe {case} cannot be read: {error}") from error
    if wrong := [problem.message for problem in problems if problem.severity == "error"]:
        raise LawBroken(f"the recipe {case}, {spec.recipe}, does not compose: {'; '.join(wrong)}")


@law("plugin", cases=_commands)
def commands(subject: PluginSubject, case: str) -> None:
    """Every command that the plugin adds can be imported, is a click command, and has help."""
    (spec,) = [spec for spec in subject.plugin.commands if f"{spec.group} {spec.name}" == case]
    module, _, name = spec.target.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        raise LawBroken(f"{spec.target} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, click.Command):
        raise LawBroken(f"{spec.target}, of {case}, is no click command but {found!r}")
    if not found.help:
        raise LawBroken(f"{case} has no help: the command's function has no docstring")
