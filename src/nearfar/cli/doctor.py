"""``nearfar doctor``."""

from __future__ import annotations

import json

import click

from nearfar.doctor import Finding, examine

_COLOURS = {"ok": "green", "note": "yellow", "wrong": "red"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what is installed, what is wrong, and what mends it.

    Exits with 0 where nothing is wrong, with 1 where something is.
    """
    parent = ctx.parent.params if ctx.parent is not None else {}
    findings = examine(no_plugin=parent.get("no_plugin", ()))
    wrong = [finding for finding in findings if finding.level == "wrong"]
    if as_json:
        rows = [finding.to_dict() for finding in findings]
        click.echo(json.dumps({"ok": not wrong, "findings": rows}, indent=2, ensure_ascii=False))
    else:
        _print(findings)
        number = {0: "nothing is wrong", 1: "one thing is wrong"}.get(len(wrong), f"{len(wrong)} things are wrong")
        click.secho(f"\n{number}", bold=True)
    if wrong:
        raise click.exceptions.Exit(1)


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.area) for finding in findings)
    for finding in findings:
        click.secho(f"{finding.level:<5}", fg=_COLOURS[finding.level], nl=False)
        click.echo(f"  {finding.area:<{width}}  {finding.says}")
        if finding.mend:
            click.echo(f"{'':<{width + 9}}mend: {finding.mend}")
