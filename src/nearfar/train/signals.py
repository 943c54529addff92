"""SIGTERM as what it is: somebody wants the run to end, and to be able to go on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: What a shell tells of a process that a signal ended: 128 and its number.
TERMINATED = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM, where nothing had to be brought to an end first."""


@contextlib.contextmanager
def hearing(handlers: Mapping[int, Callable[..., Any]]) -> Iterator[None]:
    """Have signals, by their numbers, handled so for a while; in another thread than the main one, nothing is heard."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate(*_: Any) -> None:
    """A handler that raises :class:`Terminated`."""
    raise Terminated


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM for a while, where a process would die without a word."""
    with hearing({signal.SIGTERM: terminate}):
        yield
