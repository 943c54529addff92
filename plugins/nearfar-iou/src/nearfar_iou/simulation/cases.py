"""The boxes of the simulation and the steps they take: Zheng et al. 2020, arXiv:1911.08287, section 3.1.

All boxes are (x, y, w, h) with the centre first, in float64, one a column.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["CASES", "FULL", "PER_POINT", "RATES", "cases", "points"]

#: The paper's number of points, and of cases.
FULL = 5000
PER_POINT = 7 * 7 * 7
CASES = FULL * PER_POINT

#: Width over height, of targets and of anchors.
RATIOS = (1 / 4, 1 / 3, 1 / 2, 1.0, 2.0, 3.0, 4.0)
#: Areas of anchors; that of a target is 1.
AREAS = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)
#: Where the targets' centre is, and how far from it an anchor's may be.
CENTRE, RADIUS = 10.0, 3.0

#: The learning rate of each of the 200 steps.
RATES = (0.1,) * 160 + (0.01,) * 20 + (0.001,) * 20


def points(count: int, seed: int) -> Tensor:
    """(2, count): centres of anchors, spread evenly over the disc.

    They lie on a spiral of the golden angle, turned by a random angle: a tenth of the paper's random points estimates
    its totals within one per cent.
    """
    generator = torch.Generator().manual_seed(seed)
    turn = 2 * math.pi * torch.rand((), generator=generator, dtype=torch.float64)
    number = torch.arange(count, dtype=torch.float64)
    radius = RADIUS * ((number + 0.5) / count).sqrt()
    angle = turn + number * math.pi * (3 - math.sqrt(5))
    return CENTRE + torch.stack([radius * angle.cos(), radius * angle.sin()])


def cases(centres: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors and targets, (4, 343 k) each, of k centres (2, k): every target with every anchor, point after point."""
    ratios = torch.tensor(RATIOS, dtype=torch.float64)
    areas = torch.tensor(AREAS, dtype=torch.float64)
    k = centres.shape[1]
    shape = (k, len(RATIOS), len(AREAS), len(RATIOS))  # point, target's ratio, anchor's area, anchor's ratio

    def filled(values: Tensor, axis: int) -> Tensor:
        return values.reshape([-1 if each == axis else 1 for each in range(4)]).expand(shape)

    anchors = [
        filled(centres[0], 0),
        filled(centres[1], 0),
        filled(areas.sqrt(), 2) * filled(ratios.sqrt(), 3),
        filled(areas.sqrt(), 2) / filled(ratios.sqrt(), 3),
    ]
    middle = torch.full((k,), CENTRE, dtype=torch.float64)
    targets = [filled(middle, 0), filled(middle, 0), filled(ratios.sqrt(), 1), 1 / filled(ratios.sqrt(), 1)]
    return (torch.stack([each.reshape(-1) for each in made]) for made in (anchors, targets))  # type: ignore[return-value]
