"""``nearfar show``."""

from __future__ import annotations

import json
import shutil
import textwrap

import click

from nearfar.describe import Description, describe
from nearfar.errors import UnknownPart
from nearfar.registry import Entry, default_registry
from nearfar.spec import KINDS, is_identifier


@click.command("show")
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Where parts of several kinds share the name.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(name: str, kind: str | None, as_json: bool) -> None:
    """Show what the part NAME is: formula, parameters with units, paper, deviations, presets."""
    descriptions = [describe(entry, default_registry()) for entry in _entries(name, kind)]
    if as_json:
        rows = [description.to_dict() for description in descriptions]
        click.echo(json.dumps(rows[0] if len(rows) == 1 else rows, indent=2, ensure_ascii=False))
        return
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    for position, description in enumerate(descriptions):
        if position:
            click.echo()
        _print(description, width)


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
        raise UnknownPart(
            str(error).replace(f"no {best} is", "no part is", 1), name=name, suggestions=error.suggestions
        ) from None
    raise AssertionError("an unknown name was resolved")


def _print(d: Description, width: int) -> None:
    def section(title: str) -> None:
        click.echo()
        click.secho(title, bold=True)

    def paragraph(text: str, indent: str = "  ", first: str | None = None) -> None:
        click.echo(
            textwrap.fill(text, width, initial_indent=first or indent, subsequent_indent=indent, break_long_words=False)
        )

    click.secho(d.full_name, bold=True, nl=False)
    click.echo(f"  {d.kind}, {d.provider}" + (f", family {d.family}" if d.family else ""))
    paragraph(d.summary)
    for defect in d.defects:
        click.secho("  known defect: ", fg="red", nl=False)
        click.echo(textwrap.fill(defect, width, subsequent_indent="    ").lstrip())
    if d.formula:
        section("Formula")
        click.echo(textwrap.indent(d.formula, "  "))
    if d.parameters:
        section("Parameters")
        for p in d.parameters:
            bounds = f" in [{p.low:.6g}, {p.high:.6g}]" if p.low is not None and p.high is not None else ""
            unit = f" ({p.unit})" if p.unit else ""
            click.echo(f"  {p.name}{unit}" + ("" if p.required else f" = {p.default!r}") + bounds)
            if p.description:
                paragraph(p.description, "      ")
    if d.composes:
        section("Composes with")
        for line in d.composes:
            paragraph(line, "    ", "  ")
    if d.presets:
        section("Presets")
        for preset, text in d.presets.items():
            paragraph(f"{preset}: {text}", "      ", "  ")
    if d.deviations:
        section("Deviations")
        for deviation in d.deviations:
            paragraph(deviation, "    ", "  - ")
    if d.paper:
        section("Paper")
        paragraph(d.paper)
    if d.names:
        section("Also called")
        paragraph(", ".join(d.names))
    section("Recipe")
    click.echo(f"  {d.recipe}")
