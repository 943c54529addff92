"""``nearfar init``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click


@click.command("init")
@click.argument("source", type=click.Path(path_type=Path), metavar="FOLDER|TABLE|RECORDS")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("run.yaml"),
    show_default=True,
    metavar="FILE",
    help="The configuration to write.",
)
def command(source: Path, output: Path) -> None:
    """Look at images and write a configuration to train on them.

    Each setting comes with the reason for it. A file that is there already is not overwritten.

    \b
    nearfar init photos/ -o run.yaml
    nearfar train run.yaml
    """
    from nearfar.errors import ConfigError, DataError
    from nearfar.files import require_folder
    from nearfar.registry import default_registry

    if not source.exists():  # before torch is imported
        raise DataError(
            f"there is no folder or file {source}: give images of your own; `nearfar train` by itself trains on images "
            "that come with nearfar"
        )
    there = ConfigError(f"{output} is there already, and is not overwritten: choose another file with --output")
    if os.path.lexists(output):
        raise there
    require_folder(output)
    from nearfar.train.advice import advise, document, remarks
    from nearfar.train.survey import survey

    found = survey(source)
    choices, notes = advise(found, default_registry()), remarks(found)
    begin = f"nearfar train {shlex.quote(str(output))}"
    title = [f"What to begin with on {found.source}; every key is in the documentation", *notes]
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(document(choices, title, begin))
    except FileExistsError:
        raise there from None
    for choice in choices:
        click.echo(f"{choice.key}: {'null' if choice.value is None else choice.value}", nl=False)
        click.secho(f"  {choice.why}", dim=True)
    for note in notes:
        click.echo(f"note: {note}")
    click.echo(f"\n{output} has all of it; to train: {begin}")
