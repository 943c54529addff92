"""Work on several ranks of one machine, as a test of it needs them."""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import os
import pickle
import sys
import tempfile
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

__all__ = ["run_on_ranks"]


def run_on_ranks(work: Callable[..., None], world: int, *arguments: Any, seconds: float = 60) -> None:
    """Call ``work(rank, world, *arguments)`` in ``world`` new processes that are one gloo group.

    Parameters
    ----------
    work : callable
        A function at the top of a module: of an importable one, or of a test's file.
    world : int
        Number of ranks, at least 1.
    *arguments
        What every rank is given besides; they are pickled.
    seconds : float, default 60
        How long a rank waits for the others in one exchange.

    Raises
    ------
    torch.multiprocessing.ProcessRaisedException
        Where the work of a rank raises; its text has the rank and the traceback. The others are ended.
    """
    module = sys.modules[work.__module__]
    with tempfile.TemporaryDirectory() as folder:
        given = (folder, seconds, module.__name__, module.__file__, pickle.dumps((work, arguments)))
        mp.spawn(_begin, (world, *given), nprocs=world)  # type: ignore[attr-defined, no-untyped-call]


def _begin(rank: int, world: int, folder: str, seconds: float, name: str, file: str, pickled: bytes) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    _make_importable(name, file)
    work, arguments = pickle.loads(pickled)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=seconds),
    )
    work(rank, world, *arguments)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread of torch that asks for the interpreter while that is being taken down aborts the process.
    os._exit(0)


def _make_importable(name: str, file: str) -> None:
    """A test's module has a name that only pytest can import: here it gets one, and each package of that name too."""
    try:
        if importlib.util.find_spec(name) is not None:
            return
    except ModuleNotFoundError:
        pass
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    for package in itertools.accumulate(name.split(".")[:-1], "{}.{}".format):
        sys.modules.setdefault(package, types.ModuleType(package))
    spec.loader.exec_module(module)
