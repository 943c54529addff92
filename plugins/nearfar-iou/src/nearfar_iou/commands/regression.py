"""``nearfar plot regression``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nearfar import figures


@click.command("regression")
@click.option("--beta", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="Of smooth L1.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("regression"),
    show_default=True,
    help="Without ending.",
)
@click.option("--overwrite", is_flag=True, help="Write over files that are there already.")
def command(beta: float, output: Path, overwrite: bool) -> None:
    """Draw L1, L2, smooth L1 and balanced L1 of one coordinate, with their gradients.

    Writes OUTPUT.png and OUTPUT.svg.
    """
    figures.require_matplotlib("drawing")
    figures.require_free([output], overwrite=overwrite)
    for path in figures.save(draw(beta), output, overwrite=overwrite):
        click.echo(str(path))


def draw(beta: float) -> Any:
    """The figure: values left, gradients right."""
    import torch

    from nearfar.nn.reducers import NoReduction
    from nearfar_iou.balanced_l1 import BalancedL1
    from nearfar_iou.l1 import L1
    from nearfar_iou.l2 import L2
    from nearfar_iou.smooth_l1 import SmoothL1

    off = torch.linspace(-3, 3, 601, dtype=torch.float64)
    losses = {
        "L1": L1(reducer=NoReduction()),
        "L2": L2(reducer=NoReduction()),
        f"smooth L1, β = {beta:g}": SmoothL1(beta=beta, reducer=NoReduction()),
        "balanced L1": BalancedL1(reducer=NoReduction()),
    }
    drawn = figures.figure(1, 2, sharex=True)
    values, slopes = drawn.axes
    for name, loss in losses.items():
        boxes = torch.zeros(len(off), 4, dtype=torch.float64)
        boxes[:, 0] = off
        boxes.requires_grad_()
        value = loss(boxes, torch.zeros_like(boxes))
        (slope,) = torch.autograd.grad(value.sum(), boxes)
        values.plot(off, value.detach(), label=name)
        slopes.plot(off, slope[:, 0], label=name)
    values.set(xlabel="error of a coordinate", ylabel="loss", title="loss", ylim=(0, 4))
    slopes.set(xlabel="error of a coordinate", ylabel="gradient", title="gradient", ylim=(-3, 3))
    for axes in drawn.axes:
        axes.grid(alpha=0.3)
    values.legend()
    return drawn
