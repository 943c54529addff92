"""What a run tells while it goes on: a bar on a terminal, a line an epoch elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Any


class Narrator:
    """Tells of a run on standard output.

    Parameters
    ----------
    quiet : bool
        Tell nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line, above the bar where there is one."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)

    def begin(self, step: int, steps: int, seconds: float) -> None:
        """Show the bar, at a step of so many, after so many seconds."""
        self._begun = time.monotonic() - seconds
        if self.quiet or not sys.stdout.isatty():
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            transient=True,
        )
        self._task = self._bar.add_task("training", total=steps, completed=step, loss="…")
        self._bar.start()

    def loss(self, value: float) -> None:
        """Show the last logged loss."""
        if self._bar is not None:
            self._bar.update(self._task, loss=f"{value:.4g}")

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def epoch(self, epoch: int, epochs: int, loss: float, validation: str) -> None:
        """Tell of an epoch that is done."""
        if self._bar is not None and not validation:
            return
        seconds = round(time.monotonic() - self._begun)
        width = len(str(epochs))
        text = f"epoch {epoch:>{width}}/{epochs}  {seconds // 60}:{seconds % 60:02d}  loss {loss:.4f}"
        self.say(f"{text}  {validation}" if validation else text)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
