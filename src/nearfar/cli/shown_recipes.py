"""Recipes as ``nearfar show`` prints them."""

from __future__ import annotations

import textwrap
from typing import Any

import click

from nearfar.contributions import RecipeSpec
from nearfar.discovery import Plugin
from nearfar.errors import NearfarError
from nearfar.plan import PlannedPart
from nearfar.recipe import Recipe
from nearfar.registry import Registry
from nearfar.spec import LossSpec

__all__ = ["data", "plain_settings", "show"]

#: Stands for what a recipe's context would give, so that it can be checked.
_CONTEXT = {"num_classes": 2, "embedding_size": 2, "image_size": 2}


def show(name: str, spec: RecipeSpec, plugin: Plugin, registry: Registry, width: int) -> None:
    """Print one recipe: what it is for, what it is called with, where it comes from."""
    said = data(name, spec, plugin, registry)
    click.secho(name, bold=True, nl=False)
    click.echo(f"  recipe, {plugin.provider}")
    click.secho(f"  {spec.recipe}", fg="cyan")
    lines = [spec.summary, *spec.notes]
    if said["inputs"]:
        optional = f"; where wanted: {', '.join(said['optional_inputs'])}" if said["optional_inputs"] else ""
        lines.append(f"called with: {', '.join(said['inputs'])}{optional}")
    if said["needs"]:
        lines.append(f"from its context: {', '.join(said['needs'])}")
    if spec.paper is not None:
        lines.append(f"paper: {spec.paper}")
    if spec.source:
        lines.append(f"source: {spec.source}")
    if spec.settings:
        settings = ", ".join(f"{k}.{n}={v}" for k, section in said["settings"].items() for n, v in section.items())
        lines.append(f"trained with: {settings}")
    lines += [f"it does not compose here: {problem}" for problem in said["problems"]]
    for line in lines:
        wrapped = textwrap.fill(line, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
        click.echo(wrapped)


def data(name: str, spec: RecipeSpec, plugin: Plugin, registry: Registry) -> dict[str, Any]:
    """A recipe as data, with what the parts that are installed say of it."""
    row: dict[str, Any] = {
        "name": name,
        "full_name": f"{plugin.namespace}.{spec.name}",
        "plugin": plugin.namespace,
        "recipe": spec.recipe,
        "summary": spec.summary,
        "paper": str(spec.paper) if spec.paper is not None else "",
        "source": spec.source,
        "notes": list(spec.notes),
        "settings": plain_settings(spec),
    }
    try:
        planned = Recipe.of(spec.recipe).plan(registry, **_CONTEXT)
    except NearfarError as error:
        return row | {"inputs": [], "optional_inputs": [], "needs": [], "problems": [str(error)]}
    losses = [term.loss.entry.spec for term in planned.terms if isinstance(term.loss, PlannedPart)]
    inputs = _distinct(name for loss in losses if isinstance(loss, LossSpec) for name in loss.inputs)
    optional = _distinct(name for loss in losses if isinstance(loss, LossSpec) for name in loss.optional_inputs)
    return row | {
        "inputs": inputs,
        "optional_inputs": [each for each in optional if each not in inputs],
        "needs": _distinct(name for loss in losses for name in loss.needs),
        "problems": [problem.message for problem in planned.errors],
    }


def plain_settings(spec: RecipeSpec) -> dict[str, dict[str, Any]]:
    """The settings of a recipe as plain data."""
    return {
        section: {key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()}
        for section, keys in spec.settings.items()
    }


def _distinct(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
