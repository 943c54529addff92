"""``nearfar plot focal``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nearfar import figures

#: Those of the paper's first figure.
GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)


@click.command("focal")
@click.option("--gamma", "gammas", type=click.FloatRange(0), multiple=True, help="One curve; may be repeated.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("focal"), show_default=True, help="Without ending."
)
@click.option("--overwrite", is_flag=True, help="Write over files that are there already.")
def command(gammas: tuple[float, ...], output: Path, overwrite: bool) -> None:
    """Draw focal loss, and its gradient by the logit, over the probability of the true class, for some γ.

    Writes OUTPUT.png and OUTPUT.svg. With γ = 0 it is cross-entropy, and the figure is the first of Lin et al. 2017.
    """
    figures.require_matplotlib("drawing")
    figures.require_free([output], overwrite=overwrite)
    for path in figures.save(draw(gammas or GAMMAS), output, overwrite=overwrite):
        click.echo(str(path))


def draw(gammas: tuple[float, ...]) -> Any:
    """The figure: values left, gradients right."""
    import torch

    from nearfar.nn.reducers import NoReduction
    from nearfar_iou.focal import Focal

    p = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    drawn = figures.figure(1, 2, sharex=True)
    values, slopes = drawn.axes
    for gamma in gammas:
        logits = torch.logit(p).requires_grad_()
        value = Focal(alpha=None, gamma=gamma, reducer=NoReduction())(logits, torch.ones_like(p))
        (slope,) = torch.autograd.grad(value.sum(), logits)
        values.plot(p, value.detach(), label=f"γ = {gamma:g}")
        slopes.plot(p, slope, label=f"γ = {gamma:g}")
    values.set(xlabel="probability of the true class", ylabel="loss", title="focal loss, α left out")
    slopes.set(xlabel="probability of the true class", ylabel="gradient by the logit", title="its gradient")
    for axes in drawn.axes:
        axes.grid(alpha=0.3)
    values.legend()
    return drawn
