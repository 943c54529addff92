"""The work of a comparison: search for each criterion, then repeat with what was found, in any number of processes."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from optuna.storages import BaseStorage

from nearfar import __version__
from nearfar.bench.cell import judge, mean_scores, train_folds
from nearfar.bench.commands import cell_command
from nearfar.bench.comparison import Comparison, Contender
from nearfar.bench.folder import ComparisonFolder
from nearfar.bench.ledger import Units, Worker, beating, open_storage
from nearfar.bench.results import Results
from nearfar.bench.search import draw
from nearfar.errors import ArgumentError, ConfigError, Diverged, InputError, NearfarWarning
from nearfar.train.checkpoint import data_digest
from nearfar.train.config import Config
from nearfar.train.job import anchored, prepare, resolve_device
from nearfar.train.progress import Narrator

#: What values of hyper-parameters can bring about; anything else is wrong with the comparison and ends it.
FAILURES = (Diverged, InputError, ArgumentError, ConfigError)

# In seconds, between two looks at what others do.
_WAIT = 1.0


def _silent(_: str) -> None:
    pass


def compare(
    comparison: Comparison,
    output: str | Path,
    *,
    storage: str | None = None,
    only: Sequence[str] = (),
    tell: Callable[[str], None] = _silent,
) -> Results:
    """Do what is left of a comparison, together with other processes that were called the same.

    Parameters
    ----------
    comparison : Comparison
    output : path
        Its folder; one that holds this comparison goes on.
    storage : str, optional
        Where processes agree who does what: a URL such as ``postgresql://…``, or a file; by default one in the folder.
    only : sequence of str
        Do the work of these criteria alone.
    tell : callable
        Is given a line at a time of what is done.

    Returns
    -------
    Results
        As far as they are known, which is all of them without ``only``; written to the folder too.

    Raises
    ------
    ConfigError, DataError, RecipeError, ArgumentError, UnknownPart
        Something does not fit; found before the first step.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; the same call goes on.
    """
    folder = ComparisonFolder(output)
    wanted = comparison.only(only).contenders if only else comparison.contenders
    data = _rehearse(comparison)
    folder.claim(comparison)
    opened = open_storage(folder.journal if storage is None else storage)
    worker = Worker()
    lanes = [Lane(comparison, each, folder, opened, worker, data, tell) for each in comparison.contenders]
    mine = [lane for lane in lanes if lane.contender in wanted]
    waiting = False
    while left := [lane for lane in mine if not lane.done]:
        # Where each process has a criterion of its own, each search knows all that was found before.
        if any(lane.turn() for lane in sorted(left, key=lambda lane: lane.busy())):
            waiting = False
            continue
        if not waiting:
            tell(f"waiting for what others do of {', '.join(lane.contender.name for lane in left)}")
        waiting = True
        time.sleep(_WAIT)
    for lane in lanes:
        lane.keep()
    results = Results.of(comparison, {lane.contender.name: (lane.trials(), lane.cells()) for lane in lanes})
    results.write(folder)
    if all(lane.done for lane in lanes):
        shutil.rmtree(folder.work, ignore_errors=True)
    return results


def _rehearse(comparison: Comparison) -> str:
    """Make what each criterion's first training needs, so that what is wrong is found before any.

    Returns
    -------
    str
        A fingerprint of the data.
    """
    if comparison.train.devices != 1:
        raise ConfigError("a comparison trains on one device a process: leave devices out, and start more processes")
    digests: list[str] = []
    for each in comparison.contenders:
        folds = range(comparison.folds if not digests else 1)
        for fold in folds:
            config = each.config(comparison.train, each.start, seed=0, fold=f"{fold + 1}/{comparison.folds}")
            with _in_the_name_of(each.name):
                job, sources = prepare(
                    anchored(config), None, Narrator(quiet=True), checked=bool(digests), begins=False
                )
            digests += [job.digest, data_digest(sources.test)]
    return hashlib.sha256("".join(digests[: 2 * comparison.folds]).encode()).hexdigest()


@contextlib.contextmanager
def _in_the_name_of(name: str) -> Iterator[None]:
    try:
        yield
    except (ArgumentError, ConfigError, InputError) as error:
        raise ConfigError(f"criteria.{name}: {error}") from error


class Lane:
    """The work on one criterion: its search, then its repeats."""

    def __init__(
        self,
        comparison: Comparison,
        contender: Contender,
        folder: ComparisonFolder,
        storage: BaseStorage,
        worker: Worker,
        data: str,
        tell: Callable[[str], None],
    ) -> None:
        self.comparison, self.contender, self.folder = comparison, contender, folder
        self.worker, self.tell = worker, tell
        key = f"nearfar {comparison.key(contender)} {contender.name}"
        self.searched = Units(storage, f"{key} search", comparison.tried(contender), data)
        self.repeated = Units(storage, f"{key} repeats", comparison.repeats, data)

    def trials(self) -> list[Mapping[str, Any]]:
        """What came of its trials, as far as they are done."""
        return self.searched.records()

    def cells(self) -> list[Mapping[str, Any]]:
        """What came of its repeats, as far as they are done."""
        return self.repeated.records()

    def best(self) -> Mapping[str, float] | None:
        """The values that the repeats have; None where no trial came to anything."""
        if not self.searched.wanted:
            return {}
        found = [record for record in self.trials() if "failed" not in record]
        metric = self.comparison.train.validation.metric
        return max(found, key=lambda record: record["validation"][metric])["values"] if found else None

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do or to wait for."""
        return self.searched.done and (self.repeated.done or self.best() is None)

    def busy(self) -> int:
        """How many of its units others work on."""
        return self.searched.busy(self.worker) + self.repeated.busy(self.worker)

    def keep(self) -> None:
        """Write a file for each unit that is done, whoever did it."""
        for record in self.trials():
            self.folder.keep(self.folder.trial(self.contender.name, record["number"]), record)
        for record in self.cells():
            self.folder.keep(self.folder.cell(self.contender.name, record["seed"]), record)

    def turn(self) -> bool:
        """Do one unit; False where there is none to take."""
        searching = not self.searched.done
        units = self.searched if searching else self.repeated
        if (taken := units.take(self.worker)) is None:
            return False
        place, trial = taken
        # Where nothing can be written, that is no fault of the values.
        self.folder.work.mkdir(exist_ok=True)
        with beating(trial):
            if searching:
                values: Mapping[str, float] | None = draw(trial, place, self.contender, self.comparison)
                seed, sort = self.comparison.seed, "trial"
            else:
                values = self.best()
                seed, sort = self.comparison.seed + 1 + place, "repeat"
            assert values is not None
            work = self.folder.work / f"{self.contender.name}-{sort}-{place}"
            record = self._unit(f"{sort} {place + 1} of {units.wanted}", values, seed, work, test=not searching)
        metric = self.comparison.train.validation.metric
        units.finish(trial, record, None if "failed" in record else record["validation"][metric])
        shutil.rmtree(work, ignore_errors=True)
        self.keep()
        return True

    def _unit(self, title: str, values: Mapping[str, float], seed: int, work: Path, *, test: bool) -> dict[str, Any]:
        begun = time.monotonic()
        comparison, said = self.comparison, f"{self.contender.name}, {title}"
        record: dict[str, Any] = {"criterion": str(self.contender.recipe), "values": dict(values), "seed": seed}
        try:
            configs = self._configs(values, seed)
            record["criterion"] = str(configs[0].criterion)
            trained = _quietly(train_folds, configs, work, lambda fold: self.tell(f"{said}: {fold}"))
            record["validation"] = mean_scores(trained)
            record["trainings"] = [each.to_dict() for each in trained]
            if test:
                record["test"] = judge(configs, work)
                record["command"] = cell_command(configs[0], folds=comparison.folds)
        except FAILURES as error:
            record["failed"] = str(error)
            self.tell(f"{said} failed: {error}")
        else:
            metric = comparison.train.validation.metric
            self.tell(f"{said}: {record['criterion']}, validation {metric} {100 * record['validation'][metric]:.1f}")
        return record | {"seconds": round(time.monotonic() - begun, 2), "environment": _environment(comparison.train)}

    def _configs(self, values: Mapping[str, float], seed: int) -> list[Config]:
        folds = self.comparison.folds
        return [
            self.contender.config(self.comparison.train, values, seed=seed, fold=f"{number + 1}/{folds}")
            for number in range(folds)
        ]


def _quietly(train: Callable[..., Any], *arguments: Any) -> Any:
    """Values that are no good are for the search to find: that embeddings collapse is told by the metrics."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearfarWarning)
        return train(*arguments)


def _environment(config: Config) -> dict[str, Any]:
    """What the digits depend on besides all that was configured."""
    return {
        "nearfar": __version__,
        "torch": torch.__version__,
        "device": resolve_device(config.device).type,
        "threads": torch.get_num_threads(),
    }
