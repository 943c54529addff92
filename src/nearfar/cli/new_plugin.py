"""``nearfar new-plugin``."""

from __future__ import annotations

import datetime
import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from nearfar.errors import ArgumentError, NearfarError
from nearfar.scaffold import FAMILIES, LICENCES, Draft, check_folder, render, write
from nearfar.scaffold.names import (
    check_distribution,
    check_namespace,
    check_part,
    owner_of,
    split_family,
    suggest_namespace,
)

EXAMPLE = "nearfar new-plugin acme-losses --namespace acme --loss my_loss --miner my_miner"


@click.command("new-plugin")
@click.argument("name", required=False)
@click.option("--namespace", help="What its parts' full names begin with; a part of NAME unless given.")
@click.option(
    "--loss", "losses", multiple=True, metavar="PART[:FAMILY]", help="Write a loss of this name; may be repeated."
)
@click.option("--miner", "miners", multiple=True, metavar="PART", help="Write a miner; may be repeated.")
@click.option("--reducer", "reducers", multiple=True, metavar="PART", help="Write a reducer; may be repeated.")
@click.option("--distance", "distances", multiple=True, metavar="PART", help="Write a distance; may be repeated.")
@click.option(
    "--family",
    type=click.Choice(list(FAMILIES)),
    help="What losses are like that do not say it themselves; triplet unless given.",
)
@click.option(
    "--licence", "--license", type=click.Choice(LICENCES, case_sensitive=False), help="SPDX; MIT unless given."
)
@click.option("--author", help="Whose the copyright is.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Where; ./NAME unless given.")
def command(
    name: str | None,
    namespace: str | None,
    losses: tuple[str, ...],
    miners: tuple[str, ...],
    reducers: tuple[str, ...],
    distances: tuple[str, ...],
    family: str | None,
    licence: str | None,
    author: str | None,
    output: Path | None,
) -> None:
    """Write a plugin called NAME that installs, registers, documents and tests itself.

    Without NAME it asks. Nothing that is there already is overwritten.

    \b
    nearfar new-plugin
    nearfar new-plugin acme-losses --namespace acme --loss my_loss --miner my_miner
    nearfar new-plugin acme-boxes --loss my_iou --family iou --licence Apache-2.0
    nearfar new-plugin acme --loss near:pair --loss far:proxy --loss taught:other
    """
    asked = {"loss": losses, "miner": miners, "reducer": reducers, "distance": distances}
    if name is None:
        if not _somebody_is_there():
            raise ArgumentError(f"name the plugin, since nobody is there to be asked: {EXAMPLE}")
        name = _ask("Name of the distribution", lambda text: _distribution(text, output))
        namespace = namespace or _ask("Namespace", check_namespace, suggest_namespace(name))
        if not any(asked.values()):
            asked = _ask_parts(namespace)
        if family is None and any(":" not in loss for loss in asked["loss"]):
            for known, what in FAMILIES.items():
                click.echo(f"  {known}: {what}")
            family = _choose("Family of the losses that do not say theirs", list(FAMILIES))
        licence = licence or _choose("Licence", LICENCES)
        author = author or _ask("Author", str.strip, f"The {name} authors")
    parts = [(kind, part) for kind, names in asked.items() for part in names]
    if family is not None and parts and not asked["loss"]:
        raise ArgumentError("--family says what losses are like, and no loss is to be written; add --loss NAME")
    draft = Draft.of(
        name,
        suggest_namespace(name) if namespace is None else namespace,
        parts,
        family=family or "triplet",
        licence=licence or LICENCES[0],
        author=author or "",
        year=datetime.date.today().year,
    )
    folder = Path(name) if output is None else output
    write(render(draft), folder)
    _warn(draft)
    _tell(draft, folder)


def _warn(draft: Draft) -> None:
    """Say which parts share their bare name with another plugin's, so that it will stand for neither."""
    for part in draft.parts:
        if owner := owner_of(part.kind, part.name):
            click.echo(
                f"nearfar: warning: {owner}.{part.name} is a {part.kind} too: where both are installed, the bare name "
                f"{part.name} stands for neither, and recipes have to say {draft.namespace}.{part.name}",
                err=True,
            )


def _tell(draft: Draft, folder: Path) -> None:
    """What was written, and the commands that come next."""
    click.echo(f"{folder}: {draft.listed}, of the namespace {draft.namespace}")
    click.echo("Next:")
    here = folder.resolve() == Path.cwd()
    for line in (
        *([] if here else [f"cd {shlex.quote(str(folder))}"]),
        "python -m pip install -e '.[test]'",
        "python -m pytest",
        f"nearfar check-plugin {draft.namespace}",
    ):
        click.echo(f"  {line}")


# ---- asking


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


_Answer = TypeVar("_Answer")


def _ask(what: str, read: Callable[[str], _Answer], default: str | None = None) -> _Answer:
    """What is answered, read; asked again with what was wrong for as long as it cannot be."""

    def convert(text: str) -> _Answer:
        try:
            return read(text)
        except (NearfarError, FileExistsError) as error:
            raise click.UsageError(_sentence(error)) from None

    answer: _Answer = click.prompt(what, default=default, value_proc=convert)
    return answer


def _sentence(error: NearfarError | FileExistsError) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, FileExistsError) else str(error)


def _choose(what: str, choices: Sequence[str]) -> str:
    answer: str = click.prompt(what, default=choices[0], type=click.Choice(choices, case_sensitive=False))
    return answer


def _ask_parts(namespace: str) -> dict[str, tuple[str, ...]]:
    click.echo(
        "Names of the parts to write, parted by spaces; - for none. A loss may say its family, as near:pair does."
    )
    plurals = {"loss": "Losses", "miner": "Miners", "reducer": "Reducers", "distance": "Distances"}
    return {
        kind: _ask(what, functools.partial(_part_names, kind), namespace.lower() if kind == "loss" else "-")
        for kind, what in plurals.items()
    }


def _part_names(kind: str, text: str) -> tuple[str, ...]:
    names = () if text.strip() == "-" else tuple(text.replace(",", " ").split())
    for name in names:
        check_part(kind, split_family(name, FAMILIES)[0] if kind == "loss" else name)
    return names


def _distribution(name: str, output: Path | None) -> str:
    """``name``, where a distribution of that name can be written."""
    check_distribution(name)
    check_folder(Path(name) if output is None else output)
    return name
