"""``nearfar plugins``."""

from __future__ import annotations

import json
from collections import Counter

import click

from nearfar.discovery import Plugin
from nearfar.registry import default_registry


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> None:
    """List every plugin that was found: version, status, what it registers, and why it is not active."""
    plugins = default_registry().plugins
    if as_json:
        click.echo(json.dumps([_row(plugin) for plugin in plugins], indent=2, ensure_ascii=False))
        return
    rows = [(p.namespace, p.provider, p.status, _registers(p)) for p in plugins]
    head = ("namespace", "provided by", "status", "registers")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
    click.secho("  ".join(f"{title:<{width}}" for title, width in zip(head, [*widths, 0], strict=True)), bold=True)
    for plugin, row in zip(plugins, rows, strict=True):
        namespace, provider, status, registers = row
        colour = {"active": "green", "blocked": "yellow"}.get(status, "red")
        line = f"{namespace:<{widths[0]}}  {provider:<{widths[1]}}  " + click.style(status, fg=colour)
        click.echo(line + " " * (widths[2] - len(status)) + f"  {registers}" if registers else line)
        if plugin.reason:
            click.echo(f"    {plugin.reason}")
        for line in plugin.output.splitlines()[:3]:
            click.echo(f"    it printed: {line}")


def _registers(plugin: Plugin) -> str:
    counts = Counter(spec.kind for spec in plugin.specs)
    counts |= Counter({"recipe": len(plugin.recipes), "command": len(plugin.commands)})
    plural = {"loss": "losses"}
    if plugin.status == "active" and not counts:
        return "nothing"
    return ", ".join(f"{n} {kind if n == 1 else plural.get(kind, kind + 's')}" for kind, n in counts.items())


def _row(plugin: Plugin) -> dict[str, object]:
    return {
        "namespace": plugin.namespace,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.module,
        "status": plugin.status,
        "reason": plugin.reason,
        "output": plugin.output,
        "registers": [f"{plugin.namespace}.{spec.name}" for spec in plugin.specs],
        "recipes": [f"{plugin.namespace}.{spec.name}" for spec in plugin.recipes],
        "commands": [f"{spec.group} {spec.name}" for spec in plugin.commands],
    }
