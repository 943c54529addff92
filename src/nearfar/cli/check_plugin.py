"""``nearfar check-plugin``."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nearfar.testing import Report, Result

_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow", "expected": "cyan"}


@click.command("check-plugin")
@click.argument("plugin", metavar="NAMESPACE|FOLDER")
@click.option("-k", "pattern", default="", metavar="PATTERN", help="Only checks whose name has this, or matches it.")
@click.option("--seed", default=0, help="What everything random is started from.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Also write JUnit's XML to this file.")
@click.option("--badge", is_flag=True, help="Also print a line for a README.")
@click.option("-v", "--verbose", is_flag=True, help="Also list what passed.")
def command(
    plugin: str, pattern: str, seed: int, as_json: bool, junit: Path | None, badge: bool, verbose: bool
) -> None:
    """Hold every part of a plugin to the laws of its kind.

    Exits with 0 where all hold, with 1 where one does not, or where there was none to check.

    \b
    nearfar check-plugin acme
    nearfar check-plugin ./acme-losses -k gradient
    """
    from nearfar.testing import checks_of, run
    from nearfar.testing.project import find_plugin

    registry, namespace = find_plugin(plugin)
    checks = [check for check in checks_of(registry, namespace, seed=seed) if _matches(check.id, pattern)]
    found = next(p for p in registry.plugins if p.namespace == namespace and p.status == "active")
    report = run(checks, found, seen=lambda result: None if as_json else _tell(result, verbose))
    if junit is not None:
        junit.write_text(report.to_junit(), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        _conclude(report, pattern)
        if badge:
            click.echo(report.badge())
    if not report.is_good:
        raise click.exceptions.Exit(1)


def _matches(name: str, pattern: str) -> bool:
    return pattern in name or fnmatch.fnmatchcase(name, pattern)


def _tell(result: Result, verbose: bool) -> None:
    if result.status == "failed":
        click.secho(f"FAILED {result.id}", fg="red", bold=True)
        click.echo("\n".join(f"    {line}" for line in result.reason.splitlines()))
    elif verbose:
        reason = f"  ({next(iter(result.reason.splitlines()), '')})" if result.reason else ""
        click.secho(f"{result.status:<8}", fg=_COLOURS[result.status], nl=False)
        click.echo(f" {result.id}{reason}")


def _conclude(report: Report, pattern: str) -> None:
    counts = report.counts
    if not report.results:
        click.echo(f"no check has {pattern!r} in its name" if pattern else "there was nothing to check")
        return
    for result in report.results:
        if result.status == "expected":
            click.echo(f"expected failure: {result.id}: {result.reason}")
    said = ", ".join(
        click.style(f"{counts[status]} {status}", fg=colour) for status, colour in _COLOURS.items() if counts[status]
    )
    click.echo(f"{report.plugin.namespace} ({report.plugin.provider}): {said} of {len(report.results)} checks")
