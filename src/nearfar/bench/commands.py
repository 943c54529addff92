"""The commands that make a result again, each complete in itself."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from nearfar.bench.comparison import FREE
from nearfar.train.config import Config, default_layer, leaves, own_pooling

_FLAGS = {"criterion": "--criterion", "epochs": "--epochs", "data.source": "--data", "seed": "--seed"}


def train_command(config: Config) -> str:
    """``nearfar train …`` that does one training again."""
    return shlex.join(["nearfar", "train", *_said(config, leave=())])


def cell_command(config: Config, *, folds: int) -> str:
    """``nearfar bench losses …`` that does one repeat of a criterion again, all its folds, with what was found for it.

    Parameters
    ----------
    config : Config
        Of any of its trainings.
    folds : int
        How many parts the classes have.
    """
    # A repeat's seed is the one after the comparison's.
    counts = {"--seed": config.seed - 1, "--trials": 0, "--repeats": 1, "--folds": folds}
    words = [word for flag, value in counts.items() for word in (flag, str(value))]
    return shlex.join(["nearfar", "bench", "losses", *_said(config, leave=("seed", "data.fold")), *words])


def _said(config: Config, *, leave: tuple[str, ...]) -> Iterator[str]:
    """What has to be said for this configuration to come of the one that commands begin with."""
    model = [("--model", {"model": {"name": config.model.name}})]
    default = Config.of(default_layer())
    said = model if config.model.name != default.model.name else []
    if said:
        yield from ("--model", config.model.name)
    base = dict(leaves(Config.of(default_layer(), *own_pooling(said), *said).to_dict()))
    for key, value in leaves(config.to_dict()):
        # Whatever the defaults are, what is compared is named.
        named = key in ("criterion", "seed")
        if key in (*leave, *FREE) or (key in base and base[key] == value and not named):
            continue
        if key in _FLAGS:
            yield from (_FLAGS[key], str(value))
        else:
            yield from ("--set", f"{key}={_value(value)}")


def _value(value: object) -> str:
    """As YAML reads it back: a plain text as it is, anything else as JSON."""
    if isinstance(value, str) and value.replace("_", "").replace("/", "").isalnum() and not value.isdigit():
        return value
    return json.dumps(value)
