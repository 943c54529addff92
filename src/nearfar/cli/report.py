"""``nearfar report``."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command("report")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="RUN…")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The HTML file to write.")
@click.option("--data", metavar="emoji|FOLDER", help="Other images than the runs' own test classes.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
def command(runs: tuple[Path, ...], output: Path, data: str | None, device: str, overwrite: bool) -> None:
    """Write one page about each RUN, a run folder, side by side: curves, figures, neighbours, a map, recipes.

    \b
    nearfar report runs/latest -o report.html
    nearfar report runs/arcface runs/triplet -o report.html
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `nearfar train` does, which says why
    from nearfar.report import write_report

    made = write_report(runs, output, data=data, device=device, overwrite=overwrite)
    for note in made.notes:
        click.echo(note, err=True)
    click.echo(f"wrote {made.path} ({made.size / 1024:.0f} KiB)")
