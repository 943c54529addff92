"""``nearfar bench losses``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearfar.cli.complete import expressions
from nearfar.words import number_of

if TYPE_CHECKING:
    from nearfar.bench.comparison import Comparison


@click.command("losses")
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[COMPARISON.yaml]")
@click.option(
    "--criterion",
    "criteria",
    multiple=True,
    metavar="RECIPE",
    shell_complete=expressions,
    help="What is compared; repeated, the first being what the others are tested against.",
)
@click.option("--data", metavar="emoji|FOLDER", help="Images, as of nearfar train.")
@click.option("--model", metavar="NAME", help="Any timm backbone, with its own pooling.")
@click.option("--epochs", type=int, metavar="N", help="Of each training.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any key of nearfar train.")
@click.option("--trials", type=int, metavar="N", help="Of each criterion's search; 0: as it is written. Default 20.")
@click.option("--repeats", type=int, metavar="N", help="Seeds that the best values are trained with. Default 5.")
@click.option("--folds", type=int, metavar="N", help="Parts of the classes that are not for the test. Default 4.")
@click.option("--seed", type=int, metavar="N", help="Of the search; the repeats have those that follow. Default 0.")
@click.option("--only", multiple=True, metavar="NAME", help="Do the work of this criterion alone; may be repeated.")
@click.option("--storage", metavar="URL|FILE", help="Where processes agree who does what; default: in the folder.")
@click.option("--plan", is_flag=True, help="Say what would be searched, and how many trainings it takes.")
@click.option("--json", "as_json", is_flag=True, help="End with the results as JSON.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FOLDER", help="Where results are.")
def command(
    file: Path | None,
    criteria: tuple[str, ...],
    assignments: tuple[str, ...],
    only: tuple[str, ...],
    storage: str | None,
    plan: bool,
    as_json: bool,
    output: Path | None,
    **said: Any,
) -> None:
    """Compare criteria fairly: the protocol of "A Metric Learning Reality Check" on any data.

    Folds of classes, the same network, batches and length for each, equal trials of Optuna's, repeats, intervals and
    tests. The same command goes on with a folder, and may be given in as many processes as there are cores.

    \b
    nearfar bench losses --criterion softmax --criterion arcface --criterion triplet -o comparison
    nearfar bench losses comparison.yaml --plan
    nearfar bench losses comparison.yaml -o comparison --storage postgresql://host/name
    nearfar bench losses -o comparison
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `nearfar train` does, which says why
    from nearfar.bench import compare
    from nearfar.bench.table import brief
    from nearfar.train.signals import TERMINATED, Terminated, terminable

    comparison = _comparison(file, criteria, assignments, said, output)
    if plan:
        click.echo(_planned(comparison))
        return
    if output is None:
        raise click.UsageError("say with --output which folder the results go to")
    click.echo(_planned(comparison), err=as_json)
    try:
        with terminable():
            results = compare(
                comparison, output, storage=storage, only=only, tell=lambda line: click.echo(line, err=as_json)
            )
    except KeyboardInterrupt as stopped:
        click.echo(f"nearfar: stopped; the same command goes on with {output}", err=True)
        raise click.exceptions.Exit(TERMINATED if isinstance(stopped, Terminated) else 130) from None
    click.echo(json.dumps(results.to_dict(), indent=2) if as_json else f"\n{brief(results)}\n\n{output} holds it all")


def _comparison(
    file: Path | None,
    criteria: tuple[str, ...],
    assignments: tuple[str, ...],
    said: dict[str, Any],
    output: Path | None,
) -> Comparison:
    from nearfar.bench.comparison import Comparison
    from nearfar.bench.folder import ComparisonFolder
    from nearfar.train.config import Layer, file_layer, nested, set_layer

    layers: list[Layer] = [file_layer(file)] if file is not None else []
    keys = {"data": "train.data.source", "model": "train.model.name", "epochs": "train.epochs"}
    flags = {name: value for name, value in said.items() if value is not None}
    layers += [(f"--{name}", nested(keys.get(name, name), value)) for name, value in flags.items()]
    layers += [(name, {"train": data}) for name, data in map(set_layer, assignments)]
    if criteria:
        layers.append(("--criterion", {"criteria": list(criteria)}))
    saved = ComparisonFolder(output).saved() if output is not None and file is None and not criteria else None
    if saved is not None:
        layers.insert(0, (f"{output}", saved.to_dict()))
    return Comparison.of(*layers)


def _planned(comparison: Comparison) -> str:
    """What is to be done, in lines."""
    lines = []
    for each in comparison.contenders:
        searched = ", ".join(f"{key} {searched}" for key, searched in each.space.items())
        begins = f"searched: {searched}" if searched and comparison.trials > 1 else "as it is written"
        lines.append(f"{each.name}: {each.recipe}; {begins}")
    train = comparison.train
    return "\n".join(
        [
            *lines,
            f"{number_of(len(comparison.contenders), 'criterion', 'criteria')} on {train.data.source}, "
            f"{number_of(comparison.trials, 'trial')} and {number_of(comparison.repeats, 'repeat')} each, "
            f"{number_of(comparison.folds, 'fold')}: {number_of(comparison.trainings, 'training')} of "
            f"{number_of(train.epochs, 'epoch')} with {train.model.name}",
        ]
    )
