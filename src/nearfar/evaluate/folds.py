"""Verification accuracy by folds: a threshold chosen on nine tenths of the pairs, judged on the tenth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate.roc import check_pairs
from nearfar.evaluate.topk import check_integers

ThresholdRule = Literal["exact", "insightface"]


@dataclass(frozen=True, slots=True)
class FoldAccuracy:
    """Accuracy over folds.

    Attributes
    ----------
    mean, std : float
        Over the folds; the deviation is that of a population, as the field reports it.
    thresholds : tuple of float
        The similarity each fold was judged by.
    rule : str
        How they were chosen.
    """

    mean: float
    std: float
    thresholds: tuple[float, ...]
    rule: str


def fold_accuracy(
    similarities: Tensor, same: Tensor, *, folds: int | Tensor = 10, rule: ThresholdRule = "exact"
) -> FoldAccuracy:
    """The share of pairs told right, each fold by the threshold that is best on the others.

    Folds are consecutive pairs, as LFW's ten are: the order of the pairs is part of the protocol, and a file that
    lists all genuine pairs first gives another figure.

    Parameters
    ----------
    similarities : Tensor
        (n,) finite; for ``insightface`` cosines.
    same : Tensor
        (n,) bool.
    folds : int or Tensor
        [2..n] How many; where n is no multiple, the first are longer by one, as scikit-learn's ``KFold`` has it. Or
        (n,) integers: the fold of each pair, of two at least.
    rule : {"exact", "insightface"}
        ``exact``: every threshold between two similarities is tried, the strictest of the best is taken, in the
        middle of its gap, and pairs at least as similar are accepted. ``insightface``: squared distances 2 − 2 cos
        below a threshold of 0, 0.01 … 3.99 are accepted, and the first of the best is taken, which is a grid of 0.005
        in cosines: for figures that are compared with published ones.

    Raises
    ------
    InputError
        The pairs do not fit (see :func:`~nearfar.evaluate.roc`), or ``folds`` is out of range.
    """
    check_pairs(similarities, same)
    if rule not in get_args(ThresholdRule):
        raise InputError(f"rule is {rule!r}, but must be one of {', '.join(get_args(ThresholdRule))}")
    tests = _told(folds, len(same)) if isinstance(folds, Tensor) else _consecutive(folds, len(same))
    scores, same = similarities.detach().double().cpu(), same.cpu()
    choose = _exact if rule == "exact" else _on_grid
    accuracies, thresholds = [], []
    for test in tests:
        train = torch.ones(len(scores), dtype=torch.bool)
        train[test] = False
        threshold, accepts = choose(scores[train], same[train])
        accuracies.append(float((accepts(scores[test]) == same[test]).double().mean()))
        thresholds.append(threshold)
    values = torch.tensor(accuracies, dtype=torch.float64)
    return FoldAccuracy(float(values.mean()), float(values.std(correction=0)), tuple(thresholds), rule)


def _consecutive(folds: int, pairs: int) -> tuple[Tensor, ...]:
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= pairs:
        raise InputError(f"folds is {folds!r}, but must be an integer from 2 to {pairs}, the number of pairs")
    return torch.arange(pairs).tensor_split(folds)


def _told(folds: Tensor, pairs: int) -> list[Tensor]:
    check_integers("folds", folds, pairs)
    values = torch.unique(folds)
    if len(values) < 2:
        raise InputError("folds are all the same: give two or more, one to be judged by the thresholds of the others")
    return [(folds == value).nonzero()[:, 0].cpu() for value in values]


def _exact(scores: Tensor, same: Tensor) -> tuple[float, Callable[[Tensor], Tensor]]:
    """The best threshold of all, and what it accepts; ``scores`` and ``same`` are (n,)."""
    values, order = scores.sort(descending=True)
    gained = torch.where(same[order], 1, -1).cumsum(0)
    ends = torch.cat([values[1:] != values[:-1], torch.tensor([True])])
    gained = torch.where(ends, gained, torch.iinfo(torch.int64).min)
    best = int(gained.argmax())
    if int(gained[best]) <= 0:  # best is to accept none
        threshold = float(values[0]) + 1.0
    elif best + 1 == len(values):
        threshold = float(values[best]) - 1.0
    else:
        threshold = float((values[best] + values[best + 1]) / 2)
    return threshold, lambda tested: tested >= threshold


def _on_grid(scores: Tensor, same: Tensor) -> tuple[float, Callable[[Tensor], Tensor]]:
    """The first of the best distances of the grid, as a cosine, and what it accepts."""
    distances, order = (2 - 2 * scores).sort()
    grid = torch.arange(400, dtype=torch.float64) * 0.01
    gained = torch.cat([torch.zeros(1, dtype=torch.int64), torch.where(same[order], 1, -1).cumsum(0)])
    threshold = float(grid[gained[torch.searchsorted(distances, grid)].argmax()])
    return 1 - threshold / 2, lambda tested: 2 - 2 * tested < threshold
