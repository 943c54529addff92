"""The folder of a comparison: what is in it, and that nothing in it is of another one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearfar import yaml12
from nearfar.bench.comparison import FREE, Comparison
from nearfar.errors import ConfigError
from nearfar.files import write_text
from nearfar.train.config import leaves


class ComparisonFolder:
    """The paths of a comparison.

    ::

        comparison.yaml          all that it depends on, resolved
        optuna.journal           who does what, where no other storage was given
        trials/arcface/007.json  one trial: its values, the validation of each fold, the commands that do it again
        cells/arcface/1.json     one repeat with the best values, by its seed: test metrics, the command
        results.json             the table with intervals and tests, and everything above
        table.md, figure.png, figure.svg
        work/                    trainings that are not done yet
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.comparison = self.path / "comparison.yaml"
        self.journal = self.path / "optuna.journal"
        self.results = self.path / "results.json"
        self.table = self.path / "table.md"
        self.figure = self.path / "figure"
        self.work = self.path / "work"

    def __str__(self) -> str:
        return str(self.path)

    def saved(self) -> Comparison | None:
        """The comparison that is here already; None where there is none."""
        if not self.comparison.is_file():
            return None
        text = self.comparison.read_text(encoding="utf-8")
        return Comparison.of((str(self.comparison), yaml12.load(text, source=str(self.comparison))))

    def claim(self, comparison: Comparison) -> None:
        """Make the folder, or make sure that it holds this comparison, which may have more criteria and repeats now.

        Raises
        ------
        ConfigError
            It holds another comparison, or other files, or cannot be written.
        """
        before = self.saved()
        if before is not None:
            _check_extends(before, comparison, str(self))
        elif self.path.is_dir() and any(not path.name.startswith(".") for path in self.path.iterdir()):
            # What begins with a dot is another process's, which is writing the comparison.
            raise ConfigError(f"{self} holds other files than a comparison's: choose another folder with --output")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if before != comparison:
                write_text(self.comparison, comparison.to_yaml())
        except OSError as error:
            raise ConfigError(f"{self} cannot be written: {error.strerror}; choose another with --output") from None

    def trial(self, name: str, number: int) -> Path:
        """Of one trial of a criterion."""
        return self.path / "trials" / name / f"{number:03}.json"

    def cell(self, name: str, seed: int) -> Path:
        """Of one repeat of a criterion."""
        return self.path / "cells" / name / f"{seed}.json"

    def keep(self, path: Path, record: Mapping[str, Any]) -> None:
        """Write a record as it is, unless it is there."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(record, indent=2) + "\n")


def _check_extends(before: Comparison, now: Comparison, where: str) -> None:
    known = {each.name: each for each in now.contenders}
    for each in before.contenders:
        if each.name not in known:
            raise ConfigError(
                f"{where} compares {each.name} too: name all of its criteria, with --only for those that are meant, or "
                "choose another folder with --output"
            )
    if now.repeats < before.repeats:
        raise ConfigError(f"{where} has {before.repeats} repeats, and repeats can only be added, not taken away")
    for each in before.contenders:
        if before.key(each) != now.key(known[each.name]):
            changed = _changed(before.to_dict(), now.to_dict(), each.name)
            raise ConfigError(
                f"{where} holds another comparison ({changed}): leave that out, or choose another folder with --output"
            )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> str:
    def flat(data: Mapping[str, Any]) -> dict[str, Any]:
        counts = {key: data[key] for key in ("trials", "folds", "seed")}
        return counts | {f"criteria.{name}": data["criteria"][name]} | dict(leaves(data["train"]))

    old, new = flat(before), flat(now)
    keys = [key for key in dict.fromkeys([*old, *new]) if key not in FREE]
    differing = [key for key in keys if old.get(key) != new.get(key)]
    return "; ".join(f"{key}: {old.get(key)} → {new.get(key)}" for key in differing)
