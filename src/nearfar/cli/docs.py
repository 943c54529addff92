"""``nearfar docs``."""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from nearfar.cli.complete import namespaces
from nearfar.errors import ConfigError, PluginError
from nearfar.registry import Registry, default_registry


@click.command("docs")
@click.option("--plugin", required=True, metavar="NAMESPACE", shell_complete=namespaces, help="Whose parts.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the pages go; files that are not nearfar's are left alone.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What `nearfar check-plugin NAMESPACE --json` printed; the pages then say which laws hold.",
)
def command(plugin: str, output: Path, report: Path | None) -> None:
    """Write the catalogue pages of a plugin, as Markdown for Sphinx with MyST.

    One page a part, made of its spec and its docstring as `nearfar show` is, an index, and a table of the laws that
    each part keeps. Run again, it rewrites its own pages and removes those of parts that are gone.

    \b
    nearfar docs --plugin acme -o docs/catalogue
    """
    from nearfar.catalogue import write
    from nearfar.conformance import load

    registry = default_registry()
    _require_active(registry, plugin)
    reports = [] if report is None else load(report)
    if report is not None and plugin not in {found.plugin for found in reports}:
        others = ", ".join(sorted({found.plugin for found in reports})) or "nothing"
        raise ConfigError(f"the report {report} is of {others}, not of {plugin}")
    written = write(output, registry, plugin=plugin, reports=reports)
    click.echo(f"{len(written)} pages in {output}; begin with {output / 'index.md'}")


def _require_active(registry: Registry, namespace: str) -> None:
    """Raise unless a plugin of this namespace is active."""
    found = [plugin for plugin in registry.plugins if plugin.namespace == namespace]
    if any(plugin.status == "active" for plugin in found):
        return
    if found:
        raise PluginError(f"the plugin {namespace!r} is {found[0].status}: {found[0].reason}")
    # By the name of its distribution it is found too, which is what was installed.
    names = {name: plugin.namespace for plugin in registry.plugins for name in (plugin.distribution, plugin.namespace)}
    close = difflib.get_close_matches(namespace, names, n=1)
    hint = f"did you mean {names[close[0]]!r}?" if close else "`nearfar plugins` lists those that are installed"
    raise PluginError(f"no plugin has the namespace {namespace!r}; {hint}")
