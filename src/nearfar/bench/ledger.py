"""Who does what: units of work in Optuna's storage, taken by any number of processes, each done once.

A unit is a trial of a study of Optuna's: of a search, or of the repeats with what the search found. Of each study the
units that count are the first so many; a process that was too late to take one of those marks its own as surplus. A
process that dies leaves its unit running. It is taken over, with the values that were drawn, by the next process that
finds the one that had it gone: on the same machine at once, from another one after some minutes without a sign of life.

Of several that find so at once, one has to win. A storage adds a trial with all that is told of it in one step, and
numbers trials in that order: each writes a claim to a study of claims, and the first claim on a unit of its last
owner's holds.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from nearfar.errors import ConfigError, DataError

#: In seconds: how often a process says that it is alive, and after what silence it is taken for dead.
BEAT, GRACE = 20.0, 180.0

# In seconds, between attempts to open a database.
_PAUSES = (0.2, 0.4, 0.8, 1.6)

_FINISHED = (TrialState.COMPLETE, TrialState.FAIL)


def open_storage(where: str | Path) -> BaseStorage:
    """Open a storage: ``sqlite:///…``, ``postgresql://…`` and the like, or the path of a journal file.

    Raises
    ------
    ConfigError
        It cannot be opened.
    """
    # What Optuna tells of each study and trial is told here in other words.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if "://" in str(where):
            return _open_database(str(where))
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(where)))
    except Exception as error:  # whatever a database's driver raises
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"the storage {where} cannot be opened: {reason}") from error


def _open_database(url: str) -> BaseStorage:
    """Open a database; where two processes make the tables of a new one at once, one of them fails and finds them."""
    from sqlalchemy.exc import DBAPIError

    for pause in _PAUSES:
        try:
            return RDBStorage(url)
        except DBAPIError:
            time.sleep(pause * random.uniform(0.5, 1))
    return RDBStorage(url)


class Worker:
    """One process that takes units, as others see it."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        self.host, self.pid = socket.gethostname(), os.getpid()

    def name(self) -> dict[str, Any]:
        """As it is written beside a unit."""
        return {"token": self.token, "host": self.host, "pid": self.pid}

    def is_at(self, owner: Owner) -> bool:
        """Whether this is the one that has the unit."""
        return owner.token == self.token

    def gone(self, owner: Owner) -> bool:
        """Whether whoever had a unit no longer works on it."""
        if self.is_at(owner):
            return False
        if owner.host == self.host and (owner.pid == self.pid or not _runs(owner.pid)):
            return True
        return time.time() - owner.alive > GRACE


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has a unit.

    Attributes
    ----------
    token, host, pid
        Of the process; None where it died before it said.
    alive : float
        When it was last known to be, in seconds since 1970.
    """

    token: str | None
    host: str | None
    pid: int | None
    alive: float


def _runs(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, TypeError, OSError):
        return True
    return True


class Units:
    """The units of one study.

    Parameters
    ----------
    storage : BaseStorage
    name : str
        Of the study; made where there is none.
    wanted : int
        How many units there are to be.
    data : str
        A fingerprint of what is worked on.

    Raises
    ------
    DataError
        The units that are there were done on other data.
    """

    def __init__(self, storage: BaseStorage, name: str, wanted: int, data: str) -> None:
        self.wanted = wanted
        self.study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        if self.study.user_attrs.get("data", data) != data:
            raise DataError(
                "the data is not what this comparison began with, its classes, labels or images changed: begin anew "
                "with another --output, and another --storage where there is one"
            )
        if "data" not in self.study.user_attrs:
            self.study.set_user_attr("data", data)
        self._claims = optuna.create_study(storage=storage, study_name=f"{name} claims", load_if_exists=True)

    def taken(self) -> list[FrozenTrial]:
        """The units that count and that somebody took, in order."""
        trials = self.study.get_trials(deepcopy=False)
        counting = [trial for trial in trials if not trial.user_attrs.get("surplus")]
        return sorted(counting, key=lambda trial: trial.number)[: self.wanted]

    def records(self) -> list[Mapping[str, Any]]:
        """What came of the units that are done, in order, each with its place as ``number``."""
        return [
            {"number": place, **trial.user_attrs["record"]}
            for place, trial in enumerate(self.taken())
            if trial.state in _FINISHED and "record" in trial.user_attrs
        ]

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do or to wait for."""
        taken = self.taken()
        return len(taken) == self.wanted and all(trial.state in _FINISHED for trial in taken)

    def busy(self, worker: Worker) -> int:
        """How many units others work on."""
        owners = [self.owner(trial) for trial in self.taken() if trial.state == TrialState.RUNNING]
        return sum(not worker.is_at(owner) and not worker.gone(owner) for owner in owners)

    def owner(self, trial: FrozenTrial) -> Owner:
        """Who has a unit that is running: who took it, or the last one that took it over."""
        said = trial.user_attrs.get("owner") or {}
        begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        heirs: dict[str | None, FrozenTrial] = {}
        for claim in sorted(self._claims.get_trials(deepcopy=False), key=lambda claim: claim.number):
            if claim.user_attrs["unit"] == trial.number:
                heirs.setdefault(claim.user_attrs["of"], claim)
        while (heir := heirs.pop(said.get("token"), None)) is not None:
            said, begun = heir.user_attrs["by"], heir.user_attrs["at"]
        beat = float(trial.user_attrs.get("beat", 0.0))
        return Owner(said.get("token"), said.get("host"), said.get("pid"), max(beat, begun))

    def _claim(self, trial: FrozenTrial, of: Owner, worker: Worker) -> bool:
        """Take a unit over from an owner that is gone; False where another process was first."""
        told = {"unit": trial.number, "of": of.token, "by": worker.name(), "at": time.time()}
        self._claims.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=told))
        return worker.is_at(self.owner(trial))

    def take(self, worker: Worker) -> tuple[int, optuna.Trial] | None:
        """Take the first unit that nobody works on, with its place; None where there is none."""
        for place, trial in enumerate(self.taken()):
            if trial.state != TrialState.RUNNING:
                continue
            found = self.owner(trial)
            if worker.gone(found) and self._claim(trial, found, worker):
                return place, optuna.Trial(self.study, trial._trial_id)
        if len(self.taken()) >= self.wanted:
            return None
        new = self.study.ask()
        new.set_user_attr("owner", worker.name())
        numbers = [trial.number for trial in self.taken()]
        if new.number in numbers:
            return numbers.index(new.number), new
        new.set_user_attr("surplus", True)
        self.study.tell(new, state=TrialState.FAIL)
        return None

    def finish(self, trial: optuna.Trial, record: Mapping[str, Any], value: float | None) -> None:
        """Say what came of a unit; ``value`` is None where it failed. Of one that is finished nothing changes."""
        if self.study.get_trials(deepcopy=False)[trial.number].state in _FINISHED:
            return  # by somebody who took this process for dead; the same work has the same result
        trial.set_user_attr("record", dict(record))
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self.study.tell(trial, value, state=state, skip_if_finished=True)


@contextlib.contextmanager
def beating(trial: optuna.Trial, every: float = BEAT) -> Iterator[None]:
    """Have others know that this process is alive, as long as it works on a unit."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(every):
            # A storage that is away for a moment costs a sign of life, not the training.
            with contextlib.suppress(Exception):
                trial.set_user_attr("beat", time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
