"""``nearfar evaluate``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--data", metavar="emoji|FOLDER|TABLE", help="Other images than the run's own test classes.")
@click.option(
    "--protocol",
    type=click.Choice(["retrieval", "verification", "identification", "reidentification"]),
    default="retrieval",
    show_default=True,
    help="What is asked of the network.",
)
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE.bin|TABLE",
    help="Pairs to verify: a set of insightface's, such as lfw.bin, or a table with columns a, b and same, of images "
    "or, with --data, of what that names; may be repeated.",
)
@click.option("--flip", type=click.Choice(["none", "sum", "concatenate"]), default="none", help="Of mirror images.")
@click.option(
    "--post", type=click.Choice(["none", "expand", "k_reciprocal"]), default="none", help="Of queries and a gallery."
)
@click.option(
    "--engine",
    type=click.Choice(["torch", "faiss"]),
    default="torch",
    help="What finds the neighbours of the table; faiss is often faster on a CPU.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what a protocol draws.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(run: Path, data: str | None, as_json: bool, **asked: Any) -> None:
    """Recompute the table of RUN, a run folder, on its unseen test classes, or judge it by another protocol.

    \b
    nearfar evaluate runs/latest
    nearfar evaluate runs/latest --data photos/
    nearfar evaluate runs/latest --protocol verification --flip sum
    nearfar evaluate runs/latest --pairs lfw.bin --pairs cfp_fp.bin
    nearfar evaluate runs/latest --pairs pairs.csv
    nearfar evaluate runs/latest --data ijbc.csv --pairs ijbc-pairs.csv
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `nearfar train` does, which says why
    from nearfar.train import evaluate

    metrics, text = evaluate(run, data=data, **asked)
    click.echo(json.dumps(metrics, indent=2) if as_json else text)
