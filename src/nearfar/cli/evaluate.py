"""``nearfar evaluate``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--data", metavar="emoji|FOLDER", help="Other images than the run's own test classes.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(run: Path, data: str | None, device: str, as_json: bool) -> None:
    """Recompute the table of RUN, a run folder, on its unseen test classes.

    \b
    nearfar evaluate runs/latest
    nearfar evaluate runs/latest --data photos/
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `nearfar train` does, which says why
    from nearfar.train import evaluate

    metrics, table = evaluate(run, data=data, device=device)
    click.echo(json.dumps(metrics, indent=2) if as_json else table)
