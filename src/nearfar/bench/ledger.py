"""Who does what: units of work in Optuna's storage, taken by any number of processes, each done once.

A unit is a trial of a study of Optuna's: of a search, or of the repeats with what the search found. Of each study the
units that count are the first so many; a process that was too late to take one of those marks its own as surplus. A
process that dies leaves its unit running. It is taken over, with the values that were drawn, by the next process that
finds the one that had it gone: on the same machine at once, from another one after some minutes without a sign of life.
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

    def has(self, trial: FrozenTrial) -> bool:
        """Whether this is the one that has the unit."""
        return bool(_owner(trial).get("token") == self.token)

    def gone(self, trial: FrozenTrial) -> bool:
        """Whether whoever had this unit no longer works on it."""
        owner = _owner(trial)
        if self.has(trial):
            return False
        if owner.get("host") == self.host and (owner.get("pid") == self.pid or not _runs(owner.get("pid"))):
            return True
        begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        beat = float(trial.user_attrs.get("beat", 0.0))
        return time.time() - max(beat, begun) > GRACE


def _owner(trial: FrozenTrial) -> Mapping[str, Any]:
    return trial.user_attrs.get("owner") or {}


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
        running = [trial for trial in self.taken() if trial.state == TrialState.RUNNING]
        return sum(not worker.has(trial) and not worker.gone(trial) for trial in running)

    def take(self, worker: Worker) -> tuple[int, optuna.Trial] | None:
        """Take the first unit that nobody works on, with its place; None where there is none."""
        for place, trial in enumerate(self.taken()):
            if trial.state == TrialState.RUNNING and worker.gone(trial):
                again = optuna.Trial(self.study, trial._trial_id)
                again.set_user_attr("owner", worker.name())
                if worker.has(self.taken()[place]):
                    return place, again
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
