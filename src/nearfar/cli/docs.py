"""``nearfar docs``."""

from __future__ import annotations

from pathlib import Path

import click

from nearfar.cli.complete import namespaces_or_folders
from nearfar.cli.namespaces import require_active
from nearfar.errors import ConfigError
from nearfar.project import find_plugin


@click.command("docs")
@click.option(
    "--plugin",
    required=True,
    metavar="NAMESPACE|FOLDER",
    shell_complete=namespaces_or_folders,
    help="Whose parts; a folder need not be installed.",
)
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
    nearfar docs --plugin ./acme-losses -o docs/catalogue
    """
    from nearfar.catalogue import write
    from nearfar.conformance import load

    registry, plugin = find_plugin(plugin)
    require_active(registry, plugin, takes_folder=True)
    reports = [] if report is None else load(report)
    if report is not None and plugin not in {found.plugin for found in reports}:
        others = ", ".join(sorted({found.plugin for found in reports})) or "nothing"
        raise ConfigError(f"the report {report} is of {others}, not of {plugin}")
    written = write(output, registry, plugin=plugin, reports=reports)
    click.echo(f"{len(written)} pages in {output}; begin with {output / 'index.md'}")
