"""``nearfar plot margins``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearfar import figures
from nearfar.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from nearfar_margin.margin_softmax import MarginSoftmax

#: What the papers compare.
RECIPES = ("norm_softmax", "sphereface(lambda_min=0)", "cosface", "arcface")

#: Enough for every loss of the family; neither enters a curve.
CONTEXT: dict[str, Any] = {"num_classes": 10, "embedding_size": 2}


@click.command("margins")
@click.argument("losses", nargs=-1, metavar="[LOSS]...")
@click.option(
    "--length",
    type=click.FloatRange(0, min_open=True),
    default=20.0,
    show_default=True,
    help="Of the embeddings, for losses that mind it.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("margins"),
    show_default=True,
    help="Without ending.",
)
@click.option("--overwrite", is_flag=True, help="Write over files that are there already.")
def command(losses: tuple[str, ...], length: float, output: Path, overwrite: bool) -> None:
    """Draw what margin-softmax losses do to the target's logit, and where they tell two classes apart.

    Each LOSS is written as in a recipe: arcface, or "cosface(margin=0.2)". The target's logit is drawn without the
    scale, over the angle to the own class; below it, one square a loss: the angles to two classes at which a sample is
    surely the first's, surely the second's, or in the margin between them. Annealed losses are drawn as they are in
    the end, adaptive ones as they are made. Writes OUTPUT.png and OUTPUT.svg.
    """
    figures.require_matplotlib("drawing")
    if output.suffix.removeprefix(".") in figures.FORMATS:  # which it is written in both of
        output = output.with_suffix("")
    figures.require_free([output], overwrite=overwrite)
    made = {text: _made(text) for text in losses or RECIPES}
    for path in figures.save(draw(made, length), output, overwrite=overwrite):
        click.echo(str(path))


def _made(recipe: str) -> MarginSoftmax:
    import nearfar
    from nearfar_margin.curves import settled

    found = list(nearfar.compose(recipe, **CONTEXT).losses.values())
    if len(found) != 1:
        raise RecipeError(f"{recipe} is a sum of {len(found)} losses; name one, or each by itself")
    return settled(found[0])


def draw(losses: dict[str, MarginSoftmax], length: float) -> Any:
    """The figure: all curves in the first row's only axes, a square for each loss in the second row."""
    drawn = figures.figure(2, len(losses), width=3.6, height=3.4, squeeze=False)
    for axes in drawn.axes[: len(losses)]:
        axes.remove()
    curves = drawn.add_subplot(drawn.axes[0].get_gridspec()[0, :])
    _draw_curves(curves, losses, length)
    for axes, (name, loss) in zip(drawn.axes, losses.items(), strict=False):
        _draw_boundary(axes, name, loss, length)
    return drawn


def _draw_curves(axes: Any, losses: dict[str, MarginSoftmax], length: float) -> None:
    import torch

    from nearfar_margin.curves import target_curve

    theta = torch.linspace(0, math.pi, 721, dtype=torch.float64)
    axes.plot(_degrees(theta), theta.cos(), color="0.6", linestyle=":", label="cos θ")
    for name, loss in losses.items():
        axes.plot(_degrees(theta), target_curve(loss, theta, length), label=name)
    axes.set(xlabel="angle to the own class, θ [°]", ylabel="target's logit / scale", xlim=(0, 180))
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_boundary(axes: Any, name: str, loss: MarginSoftmax, length: float) -> None:
    import torch

    from nearfar_margin.curves import advantage

    side = torch.linspace(0, math.pi / 2, 181, dtype=torch.float64)
    first, second = torch.meshgrid(side, side, indexing="xy")
    wins = advantage(loss, first.flatten(), second.flatten(), length).view_as(first)
    axes.set_facecolor("0.85")
    # The second class wins where the first would with the angles changed over.
    for won, colour in ((wins, "C0"), (wins.T, "C1")):
        axes.contourf(_degrees(side), _degrees(side), won, levels=[0, math.inf], colors=[colour])
    axes.plot([0, 90], [0, 90], color="0.3", linestyle=":", linewidth=1)
    axes.set(xlabel="θ₁ [°]", ylabel="θ₂ [°]", title=name, aspect="equal")


def _degrees(theta: Tensor) -> Tensor:
    return theta * (180 / math.pi)
