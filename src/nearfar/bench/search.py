"""What a trial draws: Optuna's tree-structured Parzen estimator, its draws a function of the seed and what is known."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import optuna
from optuna.samplers import BaseSampler, PartialFixedSampler, TPESampler

from nearfar.bench.comparison import Comparison, Contender
from nearfar.nn import counted

#: What the key is for; those of nearfar.train.job are below it.
_SEARCH_KEY = 104

# After as many, half of all at most, what is drawn goes by what was found.
_RANDOM = 10


def draw(trial: optuna.Trial, place: int, contender: Contender, comparison: Comparison) -> dict[str, float]:
    """The values of one trial; the first has those that the criterion would have without a search.

    A trial that was begun by a process that died has the values that it was given then.

    Parameters
    ----------
    trial : optuna.Trial
    place : int
        [0..inf] Which of the criterion's trials it is.
    contender : Contender
    comparison : Comparison
    """
    trial.study.sampler = _sampler(place, contender.start, comparison)
    return {name: searched.suggest(trial, name) for name, searched in contender.space.items()}


def _sampler(place: int, start: Mapping[str, float], comparison: Comparison) -> BaseSampler:
    # A sampler of its own for each trial: one that lives on would have drawn other numbers after a restart.
    seed = counted.key(comparison.seed, _SEARCH_KEY, place) % 2**32
    sampler = TPESampler(seed=seed, n_startup_trials=max(2, min(_RANDOM, comparison.trials // 2)))
    if place:
        return sampler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return PartialFixedSampler(dict(start), sampler)
