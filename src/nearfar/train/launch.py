"""Starts a process a device, waits for all of them, and makes one error of theirs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from nearfar.errors import ConfigError, NearfarError, RankFailed
from nearfar.train.signals import Terminated, hearing, terminate

__all__ = ["launch"]

#: How long the others may take to say what went wrong with them, and to end when they are told to; in seconds.
_GRACE = 5.0


@dataclass(slots=True)
class _Worker:
    rank: int
    process: Any
    reports: Connection
    outcome: Any = None
    #: Whether it has said how it went, of which nothing may have come.
    done: bool = False
    #: Whether it hears signals.
    ready: bool = False


def launch(work: Callable[..., Any], devices: int, *arguments: Any, cuda: bool) -> Any:
    """Call ``work(*arguments)`` in as many processes; what the first of them returns.

    Parameters
    ----------
    work
        A function of a module; what it is given and returns is pickled.
    devices
        How many.
    cuda
        Whether each has a GPU.

    Raises
    ------
    ConfigError
        An argument cannot be sent to another process.
    NearfarError, KeyboardInterrupt
        What one of them raised; the others are ended.
    RankFailed
        One was killed, or raised something else, of which the traceback is a note.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="nearfar-") as folder:
        meet = (Path(folder) / "ranks").as_uri()
        workers: list[_Worker] = []
        try:
            with _forwarding(workers):
                for rank in range(devices):
                    ours, theirs = context.Pipe(duplex=False)
                    process = context.Process(
                        target=_rank, args=(rank, devices, meet, cuda, theirs, work, arguments), name=f"rank {rank}"
                    )
                    _start(process)
                    theirs.close()
                    workers.append(_Worker(rank, process, ours))
                _await(workers)
        finally:
            _end(workers)
    return workers[0].outcome


def _start(process: Any) -> None:
    # Until it is ready a process takes no Ctrl-C, which a terminal sends to all: it would die of it with a traceback.
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        process.start()
    except (AttributeError, TypeError, ValueError) as error:  # whatever pickle stumbles over
        raise ConfigError(
            f"with devices of 2 or more the data is sent to other processes, and this cannot be: {error}; give a "
            "folder, or a dataset that can be pickled"
        ) from error
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _await(workers: list[_Worker]) -> None:
    """Until all are through, or one is not."""
    waiting = {worker.reports: worker for worker in workers}
    failed: list[BaseException] = []
    until = float("inf")
    while waiting and time.monotonic() < until:
        for reports in wait(list(waiting), timeout=1.0):
            assert isinstance(reports, Connection)
            worker = waiting[reports]
            error = _heard(worker)
            if worker.done or error is not None:
                del waiting[reports]
            if error is not None:
                failed.append(error)
                until = min(until, time.monotonic() + _GRACE)
    if failed:
        # Of those that fail because another did, none says why.
        raise next((error for error in failed if not isinstance(error, RankFailed)), failed[0])


def _heard(worker: _Worker) -> BaseException | None:
    """Listen to a process: what went wrong with it, also where it cannot say anything any more."""
    try:
        said, outcome = worker.reports.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join(_GRACE)
        code = worker.process.exitcode
        return RankFailed(f"the process of rank {worker.rank} was ended" + (f", with code {code}" if code else ""))
    if said == "ready":
        worker.ready = True
        return None
    worker.outcome, worker.done = outcome, True
    if said == "done":
        return None
    if said == "error":
        cls, text, attributes = worker.outcome
        error: BaseException = cls.__new__(cls, text)
        error.args = (text,)
        error.__dict__.update(attributes)
        return error
    told = RankFailed(f"the process of rank {worker.rank} failed: {worker.outcome.strip().splitlines()[-1]}")
    told.add_note(worker.outcome)
    return told


@contextlib.contextmanager
def _forwarding(workers: list[_Worker]) -> Iterator[None]:
    """Pass Ctrl-C and SIGTERM on to the first process, which tells the others; before it can hear them, end."""

    def forward(number: int, _: Any) -> None:
        if not workers or not workers[0].ready:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if workers[0].process.is_alive():
            os.kill(workers[0].process.pid, number)

    with hearing({signal.SIGINT: forward, signal.SIGTERM: forward}):
        yield


def _end(workers: list[_Worker]) -> None:
    """Have those end that still run: all of them, where one failed."""
    for end in (lambda process: None, lambda process: process.terminate(), lambda process: process.kill()):
        until = time.monotonic() + (_GRACE if workers and all(w.done for w in workers) else 0.5)
        for worker in workers:
            if worker.process.is_alive():
                end(worker.process)
        for worker in workers:
            worker.process.join(max(until - time.monotonic(), 0.01))


def _rank(
    rank: int, world: int, meet: str, cuda: bool, reports: Connection, work: Callable[..., Any], arguments: Any
) -> None:
    """One process: join the others, work, and say how it went."""
    # Of a terminal's Ctrl-C the parent alone hears, and passes it on.
    with contextlib.suppress(AttributeError, OSError):
        os.setsid()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminate)
    reports.send(("ready", None))
    os.environ.update(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world))
    try:
        reports.send(("done", _joined(rank, world, meet, cuda, work, arguments)))
    except (NearfarError, KeyboardInterrupt) as error:
        # As what it is made of: an error is not made again by its message alone.
        reports.send(("error", (type(error), str(error), _plain(error))))
    except BaseException:
        reports.send(("failure", traceback.format_exc()))
    sys.stdout.flush()
    sys.stderr.flush()
    # Without waiting for peers that may be stuck in a collective.
    os._exit(0)


def _joined(rank: int, world: int, meet: str, cuda: bool, work: Callable[..., Any], arguments: Any) -> Any:
    import torch

    from nearfar.train.ranks import begin

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // world))
    begin(cuda=cuda, init_method=meet, rank=rank, world_size=world)
    return work(*arguments)


def _follow(parent: Any) -> None:
    """End with the parent, even where that was killed."""
    parent.join()
    os._exit(1)


def _plain(error: BaseException) -> dict[str, Any]:
    """What an error knows and can be sent."""
    known = {}
    for name, value in vars(error).items():
        with contextlib.suppress(Exception):
            known[name] = pickle.loads(pickle.dumps(value))
    return known
