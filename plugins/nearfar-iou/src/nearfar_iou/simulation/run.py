"""The whole simulation: every mode and loss over all points, block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import nearfar
from nearfar.errors import ConfigError
from nearfar.registry import default_registry
from nearfar.spec import LossSpec
from nearfar_iou.box_loss import BoxLoss
from nearfar_iou.simulation.cases import points
from nearfar_iou.simulation.descent import Direction, along_gradient, along_published, descend
from nearfar_iou.simulation.published import PUBLISHED
from nearfar_iou.simulation.record import Record, Result

__all__ = ["BLOCK", "MODES", "combinations", "simulate"]

MODES = ("paper", "exact")
#: Points a block: as many of whose cases stay in the processor's cache.
BLOCK = 40


def combinations(modes: Sequence[str], losses: Sequence[str]) -> list[tuple[str, str]]:
    """Modes and losses to be run; in ``paper`` mode those that the paper has.

    Raises
    ------
    ConfigError
        A loss is none on the overlap of boxes, or the only mode asked for does not have it.
    """
    for loss in losses:
        entry = default_registry().resolve("loss", loss)
        spec = entry.spec
        assert isinstance(spec, LossSpec)
        if spec.family != "iou" or entry.namespace != "iou" or spec.needs:
            raise ConfigError(f"{loss} cannot be simulated: it is no loss on the overlap of boxes alone")
        if loss not in PUBLISHED and "exact" not in modes:
            raise ConfigError(
                f"the paper has no direction for {loss}, only for {', '.join(PUBLISHED)}; try --mode exact"
            )
    return [(mode, loss) for mode in modes for loss in losses if mode == "exact" or loss in PUBLISHED]


def simulate(
    record: Record,
    wanted: Sequence[tuple[str, str]],
    *,
    seed: int,
    tell: Callable[[str, str, int], None] = lambda mode, loss, done: None,
) -> list[Result]:
    """Run what of ``wanted`` is not done yet.

    Parameters
    ----------
    record
        Keeps each block as it is done.
    wanted
        Modes and losses: :func:`combinations`.
    seed
        What turns the points.
    tell
        Called with mode, loss and how many points of it are done, at first and after each block.
    """
    centres = points(record.points, seed)
    for mode, loss in wanted:
        blocks = record.done(mode, loss)
        begin = sum(len(block.surface) for block in blocks)
        tell(mode, loss, begin)
        towards = _direction(mode, loss)
        for start in range(begin, record.points, BLOCK):
            blocks.append(descend(centres[:, start : start + BLOCK], towards))
            record.keep(mode, loss, blocks)
            tell(mode, loss, start + len(blocks[-1].surface))
    return [record.result(mode, loss) for mode, loss in wanted]


def _direction(mode: str, loss: str) -> Direction:
    if mode == "paper":
        return along_published(loss)
    made = nearfar.create_loss(f"iou.{loss}")
    assert isinstance(made, BoxLoss)
    return along_gradient(made.eval())  # what a loss keeps of earlier boxes has no place here
