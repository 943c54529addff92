"""``nearfar list``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import click

from nearfar.cli.complete import families, namespaces, part_names
from nearfar.cli.matches import nothing_matches
from nearfar.cli.namespaces import require_active, tell_inactive
from nearfar.registry import Entry, Registry, default_registry
from nearfar.spec import KINDS


@click.command("list")
@click.argument("patterns", nargs=-1, shell_complete=part_names)
@click.option("--kind", type=click.Choice(["all", *KINDS]), default="all", help="Only parts of this kind.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave these out; may be repeated.")
@click.option("--family", shell_complete=families, help="Only parts of this family.")
@click.option("--plugin", shell_complete=namespaces, help="Only parts of this plugin, by its namespace.")
@click.option("--inputs", help="Only losses that take this input, such as embeddings or pred_boxes.")
@click.option("--json", "as_json", is_flag=True, help="Everything the specs say, as JSON.")
def command(
    patterns: tuple[str, ...],
    kind: str,
    exclude: tuple[str, ...],
    family: str | None,
    plugin: str | None,
    inputs: str | None,
    as_json: bool,
) -> None:
    """List parts whose name matches any of the shell PATTERNS; all without one.

    \b
    nearfar list "*face*"
    nearfar list --kind miner --exclude "pml.*"
    """
    registry = default_registry()
    if plugin is not None:
        require_active(registry, plugin)
    kinds = list(KINDS) if kind == "all" else [kind]
    found = {
        name: registry.find(name, patterns or "*", exclude=exclude, family=family, plugin=plugin, inputs=inputs)
        for name in kinds
    }
    if as_json:
        rows = [_row(registry, entry) for entries in found.values() for entry in entries]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False, default=str))
    elif any(found.values()):
        _print(registry, found)
    else:
        click.echo(nothing_matches(registry, kinds, patterns, family=family, inputs=inputs), err=True)
    tell_inactive(registry)


def _print(registry: Registry, found: Mapping[str, Sequence[Entry]]) -> None:
    """By kind, a line a part, and one for its presets where it has any."""
    # Plain columns rather than rich: a table costs more to draw than everything else here together.
    width = max(len(registry.short_name(entry)) for entries in found.values() for entry in entries)
    origin = max(len(entry.plugin.provider) for entries in found.values() for entry in entries)
    for name, entries in found.items():
        if not entries:
            continue
        click.secho(f"{_PLURALS[name]} ({len(entries)})", bold=True)
        for entry in sorted(entries, key=lambda entry: entry.namespace == "pml"):
            line = f"  {registry.short_name(entry):<{width}}  {entry.plugin.provider:<{origin}}  {entry.spec.summary}"
            click.echo(line)
            if entry.spec.presets:
                click.secho(f"  {'':<{width}}  presets: {', '.join(entry.spec.presets)}", dim=True)


_PLURALS = {"loss": "losses", "miner": "miners", "reducer": "reducers", "distance": "distances"}


def _row(registry: Registry, entry: Entry) -> dict[str, object]:
    row = {
        "name": registry.short_name(entry),
        "full_name": entry.full_name,
        "plugin": entry.namespace,
        "distribution": entry.plugin.distribution,
        "version": entry.plugin.version,
    }
    return row | {key: value for key, value in entry.spec.to_dict().items() if key != "name"}
