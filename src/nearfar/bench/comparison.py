"""A comparison: which criteria, how often, on what, each with the same; and the text that says so."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from nearfar import yaml12
from nearfar.bench.space import Range, Space, applied, begin, default_space, said_space
from nearfar.errors import ConfigError
from nearfar.grammar import Part
from nearfar.recipe import Recipe
from nearfar.registry import default_registry
from nearfar.train.config import Config, Layer, default_layer, leaves, merge, nested, own_pooling

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_KEYS = ("criteria", "trials", "repeats", "folds", "seed", "search", "train")
#: Settings of a run that no figure depends on.
FREE = ("device", "devices", "checkpoint_every", "log_every", "data.workers")
# These are the comparison's business.
_OURS = {"criterion": "criteria", "seed": "seed", "data.fold": "folds"}


@dataclass(frozen=True, slots=True)
class Contender:
    """One of the criteria that are compared.

    Attributes
    ----------
    name
        What it is called in the table.
    recipe
        The criterion as it is written, without what is searched.
    space
        What is searched.
    start
        Where the search begins: the values that the criterion would have.
    """

    name: str
    recipe: Recipe
    space: Space
    start: Mapping[str, float]

    def config(self, base: Config, values: Mapping[str, float], *, seed: int, fold: str) -> Config:
        """The configuration of one training."""
        recipe, settings = applied(self.recipe, values)
        layers = [("search", nested(key, value)) for key, value in settings.items()]
        own = {"criterion": str(recipe), "seed": seed, "data": {"fold": fold}}
        return Config.of(("the comparison", base.to_dict()), *layers, ("the comparison", own))


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared, and how.

    Attributes
    ----------
    contenders
        The criteria; the others are tested against the first.
    train
        What each training has besides its criterion, its seed and its fold.
    trials
        How many values of the hyper-parameters each criterion gets; 0: none, they are as written.
    repeats
        How many seeds the best values are trained with.
    folds
        How many parts the classes that are not for the test have.
    seed
        Of the search; repeats have those that follow.
    """

    contenders: tuple[Contender, ...]
    train: Config
    trials: int = 20
    repeats: int = 5
    folds: int = 4
    seed: int = 0

    @classmethod
    def of(cls, *layers: Layer | Mapping[str, Any]) -> Self:
        """Read a comparison from layers of nested data, of which a later one wins key by key.

        Raises
        ------
        ConfigError
            A key is unknown, a value unusable, or there is nothing to compare; the message says which.
        RecipeError, UnknownPart, ArgumentError
            A criterion is none.
        """
        named = [("the comparison", layer) if isinstance(layer, Mapping) else layer for layer in layers]
        merged: dict[str, Any] = {}
        for name, data in named:
            _check_keys(name, data)
            merged = merge(merged, {key: value for key, value in data.items() if key != "train"})
        config = _train_config([(name, data["train"]) for name, data in named if data.get("train")])
        counts = {key: _whole(merged, key, least) for key, least in _LEAST.items() if key in merged}
        search = merged.get("search") or {}
        if not isinstance(search, Mapping):
            raise ConfigError(
                f"search is {search!r}, but must be keys with ranges, such as optimizer.lr: [1e-4, 1e-2, log]"
            )
        contenders = tuple(_contenders(merged.get("criteria"), config, search))
        return cls(contenders, config, **counts)

    def to_dict(self) -> dict[str, Any]:
        """As nested plain data, from which :meth:`of` makes the same."""
        train = self.train.to_dict()
        del train["criterion"], train["seed"], train["data"]["fold"]
        criteria = {
            each.name: {"criterion": str(each.recipe), "search": {key: r.to_list() for key, r in each.space.items()}}
            for each in self.contenders
        }
        counts = {key: getattr(self, key) for key in ("trials", "repeats", "folds", "seed")}
        return {"criteria": criteria, **counts, "train": train}

    def to_yaml(self) -> str:
        """As a YAML document."""
        return yaml12.dump(self.to_dict())

    def key(self, contender: Contender) -> str:
        """A fingerprint of all that a criterion's results depend on; not how many repeats there are, or others."""
        data = self.to_dict()
        # What is as it is by default is left out, so that a setting that a later version adds changes nothing.
        default = dict(leaves(Config().to_dict()))
        train = {key: value for key, value in leaves(data["train"]) if key not in FREE and default.get(key) != value}
        counts = {key: data[key] for key in ("trials", "folds", "seed")}
        told = {"criterion": data["criteria"][contender.name], "train": train, **counts}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def only(self, names: Sequence[str]) -> Comparison:
        """With these criteria alone.

        Raises
        ------
        ConfigError
            There is no such criterion.
        """
        known = [each.name for each in self.contenders]
        for name in names:
            if name not in known:
                raise ConfigError(f"no criterion of this comparison is called {name!r}; there are {', '.join(known)}")
        return replace(self, contenders=tuple(each for each in self.contenders if each.name in names))

    @property
    def trainings(self) -> int:
        """How many trainings it takes."""
        searched = sum(self.tried(each) for each in self.contenders)
        return (searched + len(self.contenders) * self.repeats) * self.folds

    def tried(self, contender: Contender) -> int:
        """How many trials a criterion gets: none where nothing of it is searched, for all would be the same."""
        return self.trials if contender.space else 0


_LEAST = {"trials": 0, "repeats": 1, "folds": 2, "seed": 0}


def _check_keys(name: str, data: Any) -> None:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{name}: a comparison is a mapping of keys, not {data!r}")
    for key in data:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"a comparison has {', '.join(_KEYS)}"
            raise ConfigError(f"{name}: unknown key {key}; {hint}")


def _whole(data: Mapping[str, Any], key: str, least: int) -> int:
    value = data[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{key} is {value!r}, but must be a whole number of at least {least}")
    return value


def _train_config(said: Sequence[Layer]) -> Config:
    for name, data in said:
        for key, instead in _OURS.items():
            at: Any = data
            for piece in key.split("."):
                at = at.get(piece) if isinstance(at, Mapping) else None
            if at is not None:
                raise ConfigError(f"{name}: train.{key} is not for a comparison to hold fixed: set {instead}")
    return Config.of(default_layer(), *own_pooling(said), *said)


def _contenders(said: Any, config: Config, search: Mapping[str, Any]) -> list[Contender]:
    if not said or not isinstance(said, Mapping | list | tuple):
        raise ConfigError("there are no criteria to compare: give --criterion RECIPE, or criteria in the file")
    pairs = [(str(name), value) for name, value in said.items()] if isinstance(said, Mapping) else _named(said)
    for name, _ in pairs:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"criteria: {name!r} names files too, so it is to be of letters, digits, '.', '_' and '-'"
            )
    return [_contender(name, value, config, search) for name, value in pairs]


def _named(said: Sequence[Any]) -> list[tuple[str, Any]]:
    """Each recipe by the name of its losses, with a number where that is taken."""
    found: dict[str, Any] = {}
    for value in said:
        terms = Recipe.of(value).terms
        stem = "-".join(term.loss.name.rpartition(".")[2] for term in terms if isinstance(term.loss, Part)) or "loss"
        name, number = stem, 2
        while name in found:
            name, number = f"{stem}-{number}", number + 1
        found[name] = value
    return list(found.items())


def _contender(name: str, said: Any, config: Config, search: Mapping[str, Any]) -> Contender:
    where = f"criteria.{name}"
    own: Any = None
    if isinstance(said, Mapping) and "criterion" in said:
        if unknown := sorted(set(map(str, said)) - {"criterion", "search"}):
            raise ConfigError(f"{where}: unknown key {unknown[0]}; it has criterion and search")
        own, said = said.get("search"), said["criterion"]
        if own is not None and not isinstance(own, Mapping):
            raise ConfigError(f"{where}.search is {own!r}, but must be keys with ranges, such as margin: [0, 0.5]")
    registry = default_registry()
    recipe = Recipe.of(said)
    if errors := recipe.plan(num_classes=2, embedding_size=2).errors:
        raise ConfigError(f"{where}: {'; '.join(map(str, errors))}")
    space: dict[str, Range]
    if own is None:
        space = default_space(recipe, config, registry)
    else:
        space = said_space(own, recipe, registry, where=f"{where}.search")
    space |= said_space(search, recipe, registry, where="search")
    return Contender(name, recipe, space, begin(space, recipe, config, registry))
