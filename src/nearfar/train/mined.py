"""The batches of a run, some of them made of what the model finds hard when their epoch begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from safetensors.torch import load_file, save

from nearfar.data import HardSampler, PKSampler
from nearfar.files import replaced
from nearfar.train.job import Job
from nearfar.train.offline import Hardest, hardest
from nearfar.train.table import embed

__all__ = ["batches"]

Loader = Callable[[PKSampler], Iterable[Any]]


def batches(job: Job, loader: Loader) -> Iterable[Any]:
    """What a run's steps that are left are fed: a loader, or several one after the other where it mines offline.

    Parameters
    ----------
    job : Job
        The run, and how far it is.
    loader
        Makes what loads the batches of a sampler.
    """
    return loader(_drawn(job, job.step, job.steps)) if job.config.mining.offline is None else _Refreshed(job, loader)


class _Refreshed:
    """Loaders that follow each other; what is hard is searched for when one begins, and not ahead of the steps.

    The first epochs are drawn by chance: a network that has learned nothing finds nothing hard.
    """

    def __init__(self, job: Job, loader: Loader) -> None:
        assert job.config.mining.offline is not None
        self._job, self._loader = job, loader
        self._every = job.config.mining.offline * job.steps_per_epoch

    def __len__(self) -> int:
        return self._job.steps - self._job.step

    def __iter__(self) -> Iterator[Any]:
        job = self._job
        step = job.step
        while step < job.steps:
            begun = step // self._every * self._every
            end = min(begun + self._every, job.steps)
            sampler = _drawn(job, step, end) if begun == 0 else _hard(job, step, end, self._found(begun))
            yield from self._loader(sampler)
            step = end

    def _found(self, begun: int) -> Hardest:
        """What was hard at a step, as the first rank finds it.

        Not as each rank does: what is not averaged over the ranks, as statistics of batches are not, makes their models
        differ, and all are to draw the same batches.
        """
        found: Hardest = self._job.ranks.told(self._searched(begun) if self._job.ranks.first else None)
        return found

    def _searched(self, begun: int) -> Hardest:
        """Search; what is found is kept in a file, as a run that goes on after the step has no such model any more."""
        job = self._job
        path = job.folder.search(begun)
        if not path.exists():
            mining = job.config.mining
            found = hardest(
                embed(job.model, job.train, device=job.device, workers=job.workers),
                job.train.labels,
                positives=max(1, job.config.batch.samples_per_class - 1),
                negatives=job.config.batch.classes_per_batch,
                absolute_margin=mining.absolute_margin,
                relative_margin=mining.relative_margin,
                backend="torch",
            )
            tensors = {name: getattr(found, name).contiguous() for name in ("anchors", "positives", "negatives")}
            with replaced(path) as file:
                file.write(save(tensors))
        self._forget(begun)
        return Hardest(**load_file(path))

    def _forget(self, begun: int) -> None:
        """Remove what no checkpoint goes on with: those of epochs that ended before the last one can have been."""
        needed = begun - self._job.config.checkpoint_every
        for step, path in self._job.folder.searches().items():
            if step + self._every <= needed:
                path.unlink(missing_ok=True)


def _drawn(job: Job, start: int, end: int) -> PKSampler:
    return PKSampler(job.train.labels, **job.config.batch.drawn, steps=end, seed=job.config.seed, start_step=start)


def _hard(job: Job, start: int, end: int, found: Hardest) -> HardSampler:
    return HardSampler(
        job.train.labels,
        anchors=found.anchors,
        positives=found.positives,
        negatives=found.negatives,
        **job.config.batch.drawn,
        steps=end,
        seed=job.config.seed,
        start_step=start,
    )
