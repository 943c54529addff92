"""One cell: a criterion with all its values, trained on every fold with one seed, and what came of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from nearfar.bench.commands import train_command
from nearfar.data.size import input_size
from nearfar.files import write_text
from nearfar.models import load_model
from nearfar.train.checkpoint import Checkpoint
from nearfar.train.config import Config
from nearfar.train.folder import RunFolder
from nearfar.train.job import Job, anchored, prepare, resolve_device
from nearfar.train.progress import Narrator
from nearfar.train.run import restore_job
from nearfar.train.signals import Terminated
from nearfar.train.sources import loader_workers, open_sources
from nearfar.train.table import METRICS, Scores, embed, score

#: How the models of the folds are judged: each for itself, or all their embeddings side by side.
ENSEMBLES = ("separated", "concatenated")


@dataclass(frozen=True, slots=True)
class Trained:
    """One training of a cell, on all folds but one.

    Attributes
    ----------
    validation
        The metrics on the classes left out, of the weights that were kept.
    step, steps
        When they were kept, of how many steps.
    seconds
        What the training took.
    command
        That does it again.
    """

    validation: Scores
    step: int
    steps: int
    seconds: float
    command: str

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


def train_folds(configs: Sequence[Config], work: Path, tell: Callable[[str], None]) -> list[Trained]:
    """Train on each fold in turn, going on where an earlier call stopped.

    Parameters
    ----------
    configs : sequence of Config
        One for each fold.
    work : Path
        Where the runs are while they are needed.
    tell : callable
        Is told of each training that is done.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C, or, as :class:`~nearfar.train.signals.Terminated`, SIGTERM; the training was left so that it can go on.
    NearfarError
        A configuration does not fit, or a training diverged.
    """
    done: list[Trained] = []
    for number, config in enumerate(configs, 1):
        folder = work / f"fold-{number}"
        result = folder / "done.json"
        if not result.exists():
            trained = _train(config, folder)
            write_text(result, json.dumps(trained.to_dict()))
        done.append(Trained(**json.loads(result.read_text(encoding="utf-8"))))
        tell(f"fold {number} of {len(configs)}")
    return done


def _train(config: Config, folder: Path) -> Trained:
    from nearfar.train.loop import fit  # Lightning takes seconds to import

    run = RunFolder(folder)
    checkpoint = Checkpoint.read(run.checkpoint) if run.checkpoint.exists() else None
    if checkpoint is None:
        # Of a training that was killed before its first checkpoint.
        shutil.rmtree(folder, ignore_errors=True)
    job, _ = prepare(anchored(config), None, Narrator(quiet=True), checked=True, begins=checkpoint is None)
    if checkpoint is None:
        job.folder = RunFolder.create(folder, str(config.criterion))
        write_text(job.folder.config, job.config.to_yaml())
    else:
        job.folder = run
        restore_job(job, checkpoint)
    if job.step < job.steps:
        fit(job)
    if job.step < job.steps:
        raise Terminated if job.terminated else KeyboardInterrupt
    return _told(job, config)


def _told(job: Job, config: Config) -> Trained:
    seconds = round(job.seconds, 2)
    return Trained(dict(job.best["metrics"]), job.best["step"], job.steps, seconds, train_command(config))


def judge(configs: Sequence[Config], work: Path) -> dict[str, Scores]:
    """Judge the models of the folds on the test classes.

    ``separated``: the mean of their metrics. ``concatenated``: the metrics of their embeddings, each of length 1, side
    by side.

    Parameters
    ----------
    configs : sequence of Config
        As they were trained with, in order.
    work : Path
        Where the runs are.
    """
    device = resolve_device(configs[0].device)
    models = [load_model(RunFolder(work / f"fold-{number + 1}").model) for number in range(len(configs))]
    # The test classes are the same in all folds.
    test = open_sources(configs[0].data.source, None, image_size=input_size(models[0].data_config)).test
    workers = loader_workers(configs[0].data.workers, test)
    embedded = [normalize(embed(model, test, device=device, workers=workers), dim=1) for model in models]
    alone = [score(each, test) for each in embedded]
    separated = {name: sum(each[name] for each in alone) / len(alone) for name in METRICS}
    return {"separated": separated, "concatenated": score(torch.cat(embedded, dim=1), test)}


def mean_scores(trained: Sequence[Trained]) -> Scores:
    """The mean of the validation metrics over the folds."""
    return {name: sum(each.validation[name] for each in trained) / len(trained) for name in METRICS}
