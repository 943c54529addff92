"""``nearfar check-plugin``."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearfar.cli.complete import namespaces_or_folders
from nearfar.errors import NearfarError, PluginError

if TYPE_CHECKING:
    from nearfar.testing import Check, Report, Result

_COLOURS = {"passed": "green", "failed": "red", "skipped": "yellow", "expected": "cyan"}
_SLOWEST = 5


def _writable(context: click.Context, parameter: click.Parameter, file: Path | None) -> Path | None:
    """The file of a report, once it is sure that it can be written: the checks take a while."""
    if file is not None and not file.parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(file.parent)!r}", context, parameter)
    if file is not None and not os.access(file if file.exists() else file.parent, os.W_OK):
        raise click.BadParameter(f"{str(file)!r} cannot be written", context, parameter)
    return file


@click.command("check-plugin")
@click.argument("plugin", metavar="NAMESPACE|FOLDER", shell_complete=namespaces_or_folders)
@click.option("-k", "pattern", default="", metavar="PATTERN", help="Only checks whose name has this, or matches it.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="What everything random is started from.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option(
    "--junit",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_writable,
    help="Also write JUnit's XML to this file.",
)
@click.option("--badge", is_flag=True, help="Also print a line for a README.")
@click.option("--traceback", is_flag=True, help="Show all of the traceback of what a part raises.")
@click.option("-v", "--verbose", is_flag=True, help="Also list what passed, what was skipped and why, and the slowest.")
@click.pass_context
def command(
    ctx: click.Context,
    plugin: str,
    pattern: str,
    seed: int,
    as_json: bool,
    junit: Path | None,
    badge: bool,
    traceback: bool,
    verbose: bool,
) -> None:
    """Hold every part of a plugin to the laws of its kind.

    Exits with 0 where all hold, with 1 where one does not, or where there was none to check.

    \b
    nearfar check-plugin acme
    nearfar check-plugin ./acme-losses -k gradient
    """
    if badge and (pattern or as_json):
        raise click.UsageError(
            f"--badge tells of all checks, in a line of its own: leave out {'-k' if pattern else '--json'}"
        )
    try:
        from nearfar.testing import checks_of, find_plugin, run
    except NearfarError:
        raise
    except Exception as error:  # torch, most likely: whatever a broken installation raises
        raise PluginError(
            f"nothing can be checked here: {type(error).__name__}: {error}; `nearfar doctor` says what is wrong"
        ) from error

    registry, namespace = find_plugin(plugin)
    checks = _chosen(checks_of(registry, namespace, seed=seed, folder=plugin if plugin != namespace else ""), pattern)
    if traceback or (ctx.obj or {}).get("traceback"):  # nearfar's own option is taken to mean the same
        checks = [dataclasses.replace(check, traceback=True) for check in checks]
    found = next(p for p in registry.plugins if p.namespace == namespace and p.status == "active")
    progress = _Progress(len(checks), verbose=verbose, quiet=as_json)
    try:
        report = run(checks, found, starts=progress.starts, seen=progress.seen)
    except KeyboardInterrupt:
        progress.clear()
        click.echo(f"stopped in {progress.current}, {progress.done} of {len(checks)} checks done", err=True)
        raise
    progress.clear()
    if junit is not None:
        junit.write_text(report.to_junit(), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        _conclude(report, pattern, verbose)
        if badge:
            click.echo(report.badge())
    if not report.is_good:
        raise click.exceptions.Exit(1)


def _chosen(checks: Sequence[Check], pattern: str) -> list[Check]:
    """Those whose name has the pattern or matches it; one alone whose name it is."""
    exact = [check for check in checks if check.id == pattern]
    return exact or [check for check in checks if pattern in check.id or fnmatch.fnmatchcase(check.id, pattern)]


class _Progress:
    """What is told while the checks run: failures, and on a terminal how far they are."""

    def __init__(self, total: int, *, verbose: bool, quiet: bool) -> None:
        self._total, self._verbose, self._quiet = total, verbose, quiet
        self._is_live = sys.stderr.isatty()
        self.done, self.current = 0, ""

    def starts(self, check: Check) -> None:
        self.current = check.id
        if self._is_live:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80  # of a terminal that does not say
            click.echo(f"\r\x1b[K{f'{self.done}/{self._total} {check.id}'[: columns - 1]}", err=True, nl=False)

    def seen(self, result: Result) -> None:
        self.done += 1
        if self._quiet or not (self._verbose or result.status == "failed"):
            return
        self.clear()
        if result.status == "failed":
            click.secho(f"FAILED {result.id}", fg="red", bold=True)
            click.echo(f"{result.reason}\n")
        else:
            reason = f"  ({next(iter(result.reason.splitlines()))})" if result.reason else ""
            click.echo(f"{click.style(f'{result.status:<8}', fg=_COLOURS[result.status])} {result.id}{reason}")

    def clear(self) -> None:
        if self._is_live:
            click.echo("\r\x1b[K", err=True, nl=False)


def _conclude(report: Report, pattern: str, verbose: bool) -> None:
    counts = report.counts
    if not report.results:
        click.echo(f"no check has {pattern!r} in its name" if pattern else "there was nothing to check")
        return
    if verbose:
        click.secho("slowest", bold=True)
        for result in sorted(report.results, key=lambda result: -result.seconds)[:_SLOWEST]:
            click.echo(f"  {result.seconds:6.2f} s  {result.id}")
    _table(report)
    for result in report.results:
        if result.status == "failed":
            click.echo(f"{click.style('FAILED', fg='red')} {result.id}: {result.reason.partition(chr(10))[0]}")
    said = ", ".join(
        click.style(f"{counts[status]} {status}", fg=colour) for status, colour in _COLOURS.items() if counts[status]
    )
    click.echo(f"{report.plugin.namespace} ({report.plugin.provider}): {said} of {len(report.results)} checks")
    if not counts["passed"] and not counts["failed"]:
        click.echo("nothing was checked: every law was skipped")


def _table(report: Report) -> None:
    """Part × status: how many."""
    rows = report.by_part
    width = max(map(len, ("part", *rows)))
    click.secho("  ".join([f"{'part':<{width}}", *_COLOURS]), bold=True)
    for part, counts in rows.items():
        cells = [
            click.style(f"{counts[status] or '·':>{len(status)}}", fg=colour if counts[status] else None)
            for status, colour in _COLOURS.items()
        ]
        click.echo("  ".join([f"{part:<{width}}", *cells]))
