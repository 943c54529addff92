"""What anchors cost by sums of exponentials of their distances: the rules of the kernel ``soft``.

Each is of P, the logarithm of the sum over the positives, whose exponents are ``near`` times the distance, and of N,
that over the negatives with ``far``; where a positive or a negative is missing that it needs there is no cost.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar_pair.chosen import by_label, is_alike
from nearfar_pair.compiled.rows import RowLoop
from nearfar_pair.compiled.work import Work
from nearfar_pair.pair_rules import BesideOpposite
from nearfar_pair.sloped import Found, Sloped, is_not_asked

__all__ = ["Rule", "mined", "soft_loop"]


class Rule(IntEnum):
    """What a cost is; k is the number of positives."""

    #: log(1 + exp(N − P)), and the same + log k.
    ODDS = 0
    MEAN_ODDS = 1
    #: 1 / (1 + exp(P − N)).
    PROBABILITY = 2
    #: [P + N + number]₊.
    HINGE_OF_BOTH = 3
    #: log(1 + exp(P + N)), exponents being near · [d + 1 + number]₊ (d + 1 − number) of positives, and of negatives
    #: −far · [number − d]₊ (number + d).
    CIRCLE = 4
    #: log(1 + exp(P − near · number)) / near + log(1 + exp(N − far · number)) / −far.
    EACH_SIDE = 5
    #: The mean of log(exp P + exp N) less the exponent of each positive.
    MEAN_SHARE = 6
    #: Of each positive log(1 + exp(N less its exponent)), and N less its exponent.
    EACH_ODDS = 7
    EACH_DIFFERENCE = 8
    #: As EACH_ODDS, with near · cos(θ − number) for the exponent of a positive at the angle θ, 1 for it below number.
    EACH_RELAXED = 9

    @property
    def is_of_each(self) -> bool:
        """Whether each positive has a cost."""
        return self >= Rule.EACH_ODDS


def soft_loop(rule: Rule, near: float, far: float, number: float = 0.0) -> RowLoop:
    """The pass of a rule."""
    return RowLoop("soft", (rule, near, far, number, math.inf), _of_each if rule.is_of_each else _of_anchors)


def mined(loop: Any, batch: Batch, distance: Any) -> tuple[Any, Batch | None]:
    """The same pass of what a miner chooses, and the batch it chooses of, where kernels know how; else no batch."""
    rule = batch.selection
    if not (isinstance(loop, RowLoop) and loop.name == "soft" and isinstance(rule, BesideOpposite)):
        return loop, None
    if not is_alike(rule, batch, distance):
        return loop, None
    return loop._replace(numbers=(*loop.numbers[:4], rule.slack)), by_label(batch, rule.batch)


def _of_anchors(costs: Tensor, counts: Tensor, work: Work) -> tuple[Tensor, Tensor]:
    return costs, counts > 0


def _of_each(costs: Tensor, counts: Tensor, work: Work) -> Found:
    torch = work.torch
    assert torch is not None
    return Found(Sloped((), (lambda: torch.outputs()[0], lambda: counts), is_not_asked))
