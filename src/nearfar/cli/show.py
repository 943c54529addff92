"""``nearfar show``."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable

import click

from nearfar.cli.complete import shown_names
from nearfar.cli.namespaces import tell_inactive
from nearfar.contributions import RecipeSpec
from nearfar.describe import Description, describe
from nearfar.discovery import Plugin
from nearfar.errors import UnknownPart
from nearfar.project import not_installed
from nearfar.prose import Block, plain
from nearfar.registry import Entry, default_registry
from nearfar.signature import Parameter
from nearfar.spec import KINDS, is_identifier

#: In place of a name: every recipe.
RECIPES = "recipes"


@click.command("show")
@click.argument("name", shell_complete=shown_names)
@click.option("--kind", type=click.Choice(list(KINDS)), help="Where parts of several kinds share the name.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(name: str, kind: str | None, as_json: bool) -> None:
    """Show what the part NAME is: formula, parameters with units, paper, deviations, presets.

    Or, where NAME is that of a recipe, what that is; with `recipes` in place of a name, every recipe that a plugin
    shows.
    """
    recipes = {} if kind else _recipes(name)
    if recipes or name == RECIPES:
        _show_recipes(recipes, as_json=as_json, listed=name == RECIPES)
        return
    registry = default_registry()
    try:
        descriptions = [describe(entry, registry) for entry in _entries(name, kind)]
    except UnknownPart:
        if "." not in name:  # of a full name the error itself says what became of the plugin
            tell_inactive(registry)
        raise
    if as_json:
        rows = [description.to_dict() for description in descriptions]
        click.echo(json.dumps(rows[0] if len(rows) == 1 else rows, indent=2, ensure_ascii=False))
    else:
        for position, description in enumerate(descriptions):
            if position:
                click.echo()
            _Printer(_width()).print(description)
    tell_inactive(registry)


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 100)


def _recipes(name: str) -> dict[str, tuple[RecipeSpec, Plugin]]:
    """The recipes that are meant; none where a part has the name."""
    registry = default_registry()
    if registry.kinds_of(name):
        return {}
    found = registry.recipes()
    return {
        short: (spec, plugin)
        for short, (spec, plugin) in found.items()
        if name in (RECIPES, short, f"{plugin.namespace}.{spec.name}")
    }


def _show_recipes(recipes: dict[str, tuple[RecipeSpec, Plugin]], *, as_json: bool, listed: bool) -> None:
    from nearfar.cli import shown_recipes

    registry = default_registry()
    if as_json:
        rows = [shown_recipes.data(name, *found, registry) for name, found in recipes.items()]
        click.echo(json.dumps(rows if listed else rows[0], indent=2, ensure_ascii=False))
        return
    if not recipes:
        click.echo("no plugin that is installed shows a recipe", err=True)
    for position, (name, found) in enumerate(recipes.items()):
        if position:
            click.echo()
        shown_recipes.show(name, *found, registry, _width())


def _entries(name: str, kind: str | None) -> list[Entry]:
    registry = default_registry()
    if not all(map(is_identifier, name.split("."))):
        raise UnknownPart(f"{name!r} is not the name of a part: write name or namespace.name", name=name)
    kinds = [kind] if kind else registry.kinds_of(name)
    if kinds:
        return [registry.resolve(found, name) for found in kinds]
    # Nothing has it: say what is closest in any kind.
    close = {found: registry.suggest(found, name, limit=1) for found in KINDS}
    best = next((found for found in KINDS if close[found]), "loss")
    try:
        registry.resolve(best, name)
    except UnknownPart as error:
        namespace = name.rpartition(".")[0]
        is_known = namespace in {plugin.namespace for plugin in registry.plugins}
        if namespace and not is_known and (hint := not_installed(namespace, takes_folder=False)):
            said = f"no part is called {name!r}, and no plugin has the namespace {namespace!r}; {hint}"
            raise UnknownPart(said, name=name) from None
        raise UnknownPart(
            str(error).replace(f"no {best} is", "no part is", 1), name=name, suggestions=error.suggestions
        ) from None
    raise AssertionError("an unknown name was resolved")


class _Printer:
    """Prints a description, wrapped to a width."""

    def __init__(self, width: int) -> None:
        self.width = width

    def print(self, d: Description) -> None:
        click.secho(d.full_name, bold=True, nl=False)
        click.echo(f"  {d.kind}, {d.provider}" + (f", family {d.family}" if d.family else ""))
        self.paragraph(d.summary)
        for defect in d.defects:
            click.secho("  known defect: ", fg="red", nl=False)
            click.echo(textwrap.fill(plain(defect), self.width, subsequent_indent="    ").lstrip())
        self.section("Formula" if d.formula else "Description", d.opening)
        if d.parameters:
            self.title("Parameters")
            for parameter in d.parameters:
                self.parameter(parameter)
        self.lines("Composes with", d.composes)
        self.lines("Presets", [f"{name}: {said}" for name, said in d.presets.items()])
        self.lines("Properties", d.properties)
        self.lines("Cost", d.cost)
        for section in d.sections:
            self.section(section.title, section.blocks)
        self.lines("Raises", [f"{name}: {said}" for name, said in d.raises])
        self.lines("Deviations", [f"- {deviation}" for deviation in d.deviations])
        self.lines("Paper", [d.paper] if d.paper else [])
        self.section("References", d.references)
        self.title("Conformance")
        click.echo(f"  {d.check}")
        for law, why in d.exceptions.items():
            self.paragraph(f"does not keep {law}: {why}", "    ", "  - ")
        self.lines("Also called", [", ".join(d.names)] if d.names else [])
        self.lines("Provided by", d.provided)
        self.title("Recipe")
        click.echo(f"  {d.recipe}")

    def title(self, text: str) -> None:
        click.echo()
        click.secho(text, bold=True)

    def lines(self, title: str, lines: Iterable[str]) -> None:
        """A section of lines of prose, each with a hanging indent; nothing where there are none."""
        for position, line in enumerate(lines):
            if not position:
                self.title(title)
            self.paragraph(line, "    ", "  ")

    def section(self, title: str, blocks: Iterable[Block]) -> None:
        """A section of a docstring; nothing where it is empty."""
        for position, block in enumerate(blocks):
            if position:
                click.echo()
            else:
                self.title(title)
            if block.kind == "paragraph":
                self.paragraph(block.text)
            elif block.kind == "list":
                for item in block.lines:
                    self.paragraph(item, "    ", "  ")
            else:
                click.echo(textwrap.indent(block.text, "  " if block.kind == "math" else "    "))

    def parameter(self, p: Parameter) -> None:
        click.echo(f"  {p}{_range(p)}")
        if p.description:
            self.paragraph(p.description, "      ")

    def paragraph(self, text: str, indent: str = "  ", first: str | None = None) -> None:
        wrapped = textwrap.fill(
            plain(text),
            self.width,
            initial_indent=first or indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        click.echo(wrapped)


def _range(p: Parameter) -> str:
    if p.low is not None and p.high is not None:
        return f" in {'(' if p.low_open else '['}{p.low:.6g}, {p.high:.6g}{')' if p.high_open else ']'}"
    return f", one of {', '.join(map(repr, p.choices))}" if p.choices else ""
