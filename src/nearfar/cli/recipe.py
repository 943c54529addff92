"""``nearfar recipe``: check a recipe, write it in another form."""

from __future__ import annotations

import json
from typing import Any

import click

from nearfar import yaml12
from nearfar.cli.written_recipe import read_recipe, recipes_and_files
from nearfar.errors import ConfigError, RecipeError


@click.group("recipe")
def command() -> None:
    """Check a recipe, or write it in another form."""


def _context(pairs: tuple[str, ...]) -> dict[str, Any]:
    context = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--context takes name=value, such as num_classes=10; got {pair!r}")
        context[name] = yaml12.load(value, source=f"--context {name}")
    return context


@command.command("check")
@click.argument("recipe", shell_complete=recipes_and_files)
@click.option("--context", "context", multiple=True, metavar="NAME=VALUE", help="What parts need: num_classes=10 …")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def check(recipe: str, context: tuple[str, ...], as_json: bool) -> None:
    """Say everything that is wrong with RECIPE, a string or a YAML file, without loading torch.

    Exits with 2 when it would not compose. What parts need from their context (num_classes …) counts as
    given unless another context is named.
    """
    read = read_recipe(recipe)
    given = {"num_classes": 2, "embedding_size": 2, "image_size": 2} | _context(context)
    problems = read.check(**given)
    errors = [problem for problem in problems if problem.severity == "error"]
    if as_json:
        rows = [{"severity": problem.severity, "message": problem.message} for problem in problems]
        click.echo(json.dumps({"recipe": str(read), "ok": not errors, "problems": rows}, indent=2, ensure_ascii=False))
    else:
        for problem in problems:
            click.echo(f"{problem.severity}: {problem.message}")
        if not errors:
            click.echo(f"{read}: it composes")
    if errors:
        raise click.exceptions.Exit(2)


@command.command("convert")
@click.argument("recipe", shell_complete=recipes_and_files)
@click.option("--to", "form", type=click.Choice(["string", "yaml", "json"]), default="yaml", show_default=True)
def convert(recipe: str, form: str) -> None:
    """Write RECIPE, a string or a YAML file, in another form."""
    read = read_recipe(recipe)
    if not read.terms:
        raise RecipeError("the recipe is empty")
    if form == "string":
        click.echo(str(read))
    elif form == "yaml":
        click.echo(read.to_yaml(), nl=False)
    else:
        click.echo(json.dumps(read.to_dict(), indent=2, ensure_ascii=False))
