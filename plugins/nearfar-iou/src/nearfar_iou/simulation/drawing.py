"""The two figures of the simulation: errors over the steps, and over the points the anchors start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nearfar.figures import figure
from nearfar_iou.simulation.cases import CENTRE
from nearfar_iou.simulation.record import Result

__all__ = ["curves", "surfaces"]


def curves(results: Sequence[Result]) -> Any:
    """The sum of all errors over the steps: a panel for each mode, a line for each loss."""
    modes = list(dict.fromkeys(result.mode for result in results))
    drawn = figure(1, len(modes), sharey=True)
    for axes, mode in zip(drawn.axes, modes, strict=True):
        for result in results:
            if result.mode == mode:
                axes.plot([error / 1e6 for error in result.curve], label=result.loss)
        axes.set(title=TITLES[mode], xlabel="step", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    drawn.axes[0].set_ylabel("sum of errors, millions")
    return drawn


TITLES = {"paper": "the published directions", "exact": "the true gradients"}


def surfaces(results: Sequence[Result], centres: Tensor) -> Any:
    """The final error at each point, from the target's centre: a row for each mode, a column for each loss."""
    modes = list(dict.fromkeys(result.mode for result in results))
    losses = list(dict.fromkeys(result.loss for result in results))
    drawn = figure(len(modes), len(losses), width=3.6, height=3.4, squeeze=False, sharex=True, sharey=True)
    cells = {
        (mode, loss): drawn.axes[i * len(losses) + j] for i, mode in enumerate(modes) for j, loss in enumerate(losses)
    }
    x, y = (centres - CENTRE).tolist()
    largest = max(max(result.surface) for result in results)
    for axes in drawn.axes:
        axes.set_axis_off()
    for result in results:
        axes = cells[result.mode, result.loss]
        axes.set_axis_on()
        seen = axes.tripcolor(x, y, result.surface, shading="gouraud", vmin=0, vmax=largest, rasterized=True)
        axes.set(title=f"{result.loss}, {TITLES[result.mode]}", aspect="equal")
        axes.title.set_fontsize(9)
    drawn.colorbar(seen, ax=drawn.axes, label="sum of a point's 343 final errors", shrink=0.8)
    return drawn
