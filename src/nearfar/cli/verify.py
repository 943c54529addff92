"""``nearfar verify``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nearfar.cli.run_model import device_option, load


@click.command("verify")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--threshold", metavar="NUMBER|FILE", required=True, help="A cosine, or a file of `nearfar calibrate`.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@device_option
def command(run: Path, first: Path, second: Path, threshold: str, as_json: bool, device: str) -> None:
    """Say whether two images are of one identity, by the model of RUN. Exits with 0 if so, with 1 if not.

    \b
    nearfar verify runs/latest a.jpg b.jpg --threshold threshold.json
    """
    from nearfar.inference.queries import judge

    model, where = load(run, device)
    similarity, limit, note = judge(model, first, second, threshold, device=where)
    same = similarity >= limit
    if as_json:
        click.echo(json.dumps({"same": same, "similarity": similarity, "threshold": limit}))
    else:
        sign, verdict = (">=", "one identity") if same else ("<", "two identities")
        click.echo(f"{verdict}: cosine {similarity:.4f} {sign} {limit:.4f}{note}")
    raise click.exceptions.Exit(0 if same else 1)
