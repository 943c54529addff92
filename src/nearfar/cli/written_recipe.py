"""A recipe on the command line: written there, or in a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nearfar.cli.complete import expressions
from nearfar.errors import ConfigError
from nearfar.recipe import Recipe

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

__all__ = ["read_recipe", "recipes_and_files"]


def read_recipe(source: str) -> Recipe:
    """A recipe from a string, or from a YAML file when the argument is the path of one.

    Raises
    ------
    ConfigError
        The file cannot be read.
    RecipeError
        It is no recipe.
    """
    if not source.endswith((".yaml", ".yml")):
        return Recipe.of(source)
    try:
        text = Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the recipe {source} cannot be read: {error.strerror}") from error
    return Recipe.from_yaml(text, source=source)


def recipes_and_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of parts; files where no part begins so."""
    from click.shell_completion import CompletionItem

    return expressions(ctx, param, incomplete) or [CompletionItem(incomplete, type="file")]
