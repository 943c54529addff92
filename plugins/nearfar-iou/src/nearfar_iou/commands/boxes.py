"""``nearfar bench boxes``."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearfar import figures
from nearfar.errors import ConfigError

if TYPE_CHECKING:
    from nearfar_iou.simulation.record import Result

#: The totals that the paper's figure shows after the last step, read off it; in millions.
FIGURE = {"iou": "5.91", "giou": "1.51", "diou": "0", "ciou": "0"}


@click.command("boxes")
@click.option(
    "--mode",
    "modes",
    type=click.Choice(["paper", "exact"]),
    multiple=True,
    help="Along the published directions, or the true gradients; both unless given.",
)
@click.option("--loss", "losses", multiple=True, metavar="NAME", help="Only this loss; may be repeated.")
@click.option("--points", type=click.IntRange(3, 5000), default=200, show_default=True, help="343 boxes start at each.")
@click.option("--full", is_flag=True, help="The paper's 5,000 points: 1,715,000 boxes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Turns the points about the targets.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-boxes"),
    show_default=True,
    help="The folder of what is done, of the table and the figures.",
)
@click.option("--figures/--no-figures", "draw", default=True, help="Whether to draw, which takes matplotlib.")
@click.option("--overwrite", is_flag=True, help="Write a table and figures over those of an earlier run.")
def command(
    modes: tuple[str, ...],
    losses: tuple[str, ...],
    points: int,
    full: bool,
    seed: int,
    output: Path,
    draw: bool,
    overwrite: bool,
) -> None:
    """Rerun the regression simulation of "Distance-IoU Loss": boxes descend towards targets, and how fast is told.

    In mode `paper` along the directions that the paper's figure was made with, in mode `exact` along the true
    gradients; they differ, and the documentation says why. Errors are scaled to the paper's 1,715,000 boxes. A run that
    was interrupted goes on where it stopped, in the same folder.
    """
    stems = [output / "curves", output / "surface"] if draw else []
    if draw:
        figures.require_matplotlib("drawing the figures (or give --no-figures)")
        figures.require_free(stems, overwrite=overwrite)
    table = output / "table.json"
    if table.exists() and not overwrite:
        raise ConfigError(f"{table} is there already; give --overwrite, or another folder with -o")

    from nearfar_iou.simulation import cases
    from nearfar_iou.simulation.record import Record
    from nearfar_iou.simulation.run import MODES, combinations, simulate

    count = cases.FULL if full else points
    wanted = combinations(list(dict.fromkeys(modes)) or MODES, list(dict.fromkeys(losses)) or list(FIGURE))
    record = Record(output, points=count, seed=seed)
    with _progress(wanted, count) as tell:
        results = simulate(record, wanted, seed=seed, tell=tell)
    rows = [dataclasses.asdict(result) for result in results]
    table.write_text(json.dumps(rows), encoding="utf-8")
    click.echo("\n".join(lines(results, count)))
    if not draw:
        return
    from nearfar_iou.simulation import drawing

    for stem, drawn in zip(
        stems, (drawing.curves(results), drawing.surfaces(results, cases.points(count, seed))), strict=True
    ):
        click.echo(f"drawn: {', '.join(str(path) for path in figures.save(drawn, stem, overwrite=overwrite))}")


def lines(results: Sequence[Result], points: int) -> list[str]:
    """The table: the sum of all errors after some steps, in millions, and how many boxes arrived."""
    scaled = "" if points == 5000 else f"; {points} points, scaled to 5,000"
    head = (
        f"{'mode':<6} {'loss':<6} {'step 1':>8} {'50':>8} {'160':>8} {'200':>8} {'paper, 200':>11} {'within .01':>11}"
    )
    said = [f"Sum of errors of 1,715,000 boxes, in millions{scaled}", head]
    for result in results:
        sums = " ".join(f"{result.curve[step] / 1e6:8.4f}" for step in (1, 50, 160, 200))
        figure = FIGURE.get(result.loss, "") if result.mode == "paper" else ""
        said.append(f"{result.mode:<6} {result.loss:<6} {sums} {figure:>11} {result.near:11.1%}")
    return said


@contextmanager
def _progress(wanted: Sequence[tuple[str, str]], points: int) -> Iterator[Callable[[str, str, int], None]]:
    """What tells of the points that are done, on standard error: by a bar on a terminal, else by a line a loss."""
    if not sys.stderr.isatty():
        begun = time.monotonic()

        def line(mode: str, loss: str, done: int) -> None:
            if done == points:
                click.echo(f"{mode} {loss}: done, {time.monotonic() - begun:.0f} s from the start", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("points"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=points * len(wanted))
        before = {each: index * points for index, each in enumerate(wanted)}
        yield lambda mode, loss, done: bar.update(
            task, completed=before[mode, loss] + done, description=f"{mode} {loss}"
        )
