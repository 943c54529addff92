"""``nearfar train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from nearfar.cli.complete import recipes
from nearfar.cli.written_recipe import read_recipe, recipes_and_files


@click.command("train")
@click.argument("config", required=False, type=click.Path(path_type=Path), metavar="[CONFIG.yaml]")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Set any key; may be repeated.")
@click.option(
    "--criterion",
    metavar="RECIPE",
    shell_complete=recipes_and_files,
    help="What is minimised, such as 'triplet(miner=semihard)', or a YAML file with it.",
)
@click.option(
    "--recipe",
    metavar="NAME",
    shell_complete=recipes,
    help="A criterion by name, with the settings published for it; nearfar show recipes lists them.",
)
@click.option("--model", metavar="NAME", help="Any timm backbone, with its own pooling.")
@click.option("--epochs", type=int, metavar="N", help="Draws of every training class, K images each.")
@click.option("--data", metavar="emoji|FOLDER", help="Images as FOLDER/class/file, or FOLDER/split/class/file.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to train.")
@click.option("--devices", type=int, metavar="N", help="How many processes share a batch, a device each.")
@click.option("--precision", type=click.Choice(["32", "bf16", "16"]), help="Of the network; losses are in 32.")
@click.option("--seed", type=int, metavar="N", help="Another seed, another run.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="RUN_DIR", help="The run folder.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="runs/latest",
    metavar="[RUN_DIR]",
    help="Go on with a run; without a value, the last one.",
)
def command(
    config: Path | None,
    assignments: tuple[str, ...],
    criterion: str | None,
    recipe: str | None,
    model: str | None,
    epochs: int | None,
    data: str | None,
    device: str | None,
    devices: int | None,
    precision: str | None,
    seed: int | None,
    output: Path | None,
    resume: str | None,
) -> None:
    """Train an embedding and write a run folder.

    Without a file: a small network on the embedded emoji, in a few minutes on two cores.

    \b
    nearfar train
    nearfar train run.yaml --set optimizer.lr=1e-3 --epochs 10
    nearfar train --data photos/ --model resnet18 --criterion "arcface(margin=0.3)"
    nearfar train --data photos/ --recipe facenet
    nearfar train --resume runs/latest
    """
    # Read when torch is loaded. Threads that spin while they wait for each other make a run on a machine with other
    # work several times slower; sleeping costs microseconds on an idle one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if resume is not None and output is not None:
        raise click.UsageError("--resume goes on in the run's own folder, so it takes no --output")
    if recipe is not None and criterion is not None:
        raise click.UsageError("--recipe and --criterion both say what is minimised: give one of them")
    flags = {
        "--criterion": ("criterion", _criterion(criterion)),
        "--model": ("model.name", model),
        "--epochs": ("epochs", epochs),
        "--data": ("data.source", data),
        "--device": ("device", device),
        "--devices": ("devices", devices),
        "--precision": ("precision", precision),
        "--seed": ("seed", seed),
    }
    _train(
        config, assignments, {flag: said for flag, said in flags.items() if said[1] is not None}, output, resume, recipe
    )


def _train(
    file: Path | None,
    assignments: tuple[str, ...],
    flags: dict[str, tuple[str, Any]],
    output: Path | None,
    resume: str | None,
    recipe: str | None,
) -> None:
    from nearfar.recipe import Recipe
    from nearfar.train import config
    from nearfar.train.signals import TERMINATED, Terminated, terminable

    said: list[config.Layer] = [(flag, config.nested(key, value)) for flag, (key, value) in flags.items()]
    said += [config.set_layer(assignment) for assignment in assignments]
    if recipe is not None:
        said.insert(0, _recipe_layer(recipe))
    files = [config.file_layer(file)] if file is not None else []
    base = files if files or resume is not None else [config.default_layer(), *config.own_pooling(said)]
    read = config.Config.of(*base, *said)
    if resume is None:
        Recipe.of(read.criterion).refuse_mistakes()

    # What is misspelt is told by now: importing these takes seconds.
    from nearfar.train import run
    from nearfar.train.progress import Narrator
    from nearfar.train.ranks import leave

    try:
        with terminable():
            if resume is not None:
                run.resume(resume, *files, *said, narrator=Narrator())
            else:
                run.start(read, output=output, narrator=Narrator())
            leave()
    except run.Interrupted as interrupted:
        click.echo(f"nearfar: {interrupted}", err=True)
        raise click.exceptions.Exit(TERMINATED if interrupted.terminated else 130) from None
    except Terminated:
        click.echo("nearfar: terminated before the first step", err=True)
        raise click.exceptions.Exit(TERMINATED) from None


def _criterion(said: str | None) -> str | dict[str, Any] | None:
    """As a configuration has it: a text as it is, of a file what it holds."""
    return read_recipe(said).to_dict() if said is not None and said.endswith((".yaml", ".yml")) else said


def _recipe_layer(name: str) -> tuple[str, dict[str, Any]]:
    """What a recipe that a plugin shows says of a run."""
    from nearfar.cli.shown_recipes import plain_settings
    from nearfar.registry import default_registry

    spec = default_registry().recipe(name)
    return f"--recipe {name}", {"criterion": spec.recipe, **plain_settings(spec)}
