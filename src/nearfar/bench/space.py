"""What is searched: ranges of a criterion's arguments and of the run's settings, said or read from the docstrings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from nearfar.errors import ConfigError
from nearfar.grammar import SLOTS, Part, Term
from nearfar.recipe import Recipe
from nearfar.registry import Registry
from nearfar.signature import Parameter, Source, read_target
from nearfar.spec import LossSpec
from nearfar.train.config import Config, leaves
from nearfar.train.optimizer import own_rate

#: So many times smaller and larger than the default a parameter may become where no range is said.
AROUND = 4.0

#: Of what a criterion learns.
CRITERION_LR = "optimizer.criterion_lr"

# A criterion with sixteen digits can be typed by nobody, and no result depends on the fifth.
_DIGITS = 4


class Suggests(Protocol):
    """What a trial of Optuna's does here."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...


@dataclass(frozen=True, slots=True)
class Range:
    """From where to where, on which scale.

    Attributes
    ----------
    low, high
        Both ends belong to it.
    scale
        ``linear``, or ``log``: as many trials in each decade.
    whole
        Whether it is of whole numbers.
    """

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}{', log' if self.scale == 'log' else ''}"

    def suggest(self, trial: Suggests, name: str) -> float:
        """Have a trial draw from it; four digits of what it draws."""
        log = self.scale == "log"
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=log)
        drawn = float(f"{trial.suggest_float(name, self.low, self.high, log=log):.{_DIGITS}g}")
        return min(max(drawn, self.low), self.high)

    def to_list(self) -> list[Any]:
        """As a file says it: ``[low, high]`` or ``[low, high, log]``."""
        ends: list[Any] = [int(self.low), int(self.high)] if self.whole else [self.low, self.high]
        return [*ends, "log"] if self.scale == "log" else ends


Space = Mapping[str, Range]


def read_range(said: Any, *, where: str, whole: bool) -> Range:
    """Read ``[low, high]`` or ``[low, high, log]``.

    Raises
    ------
    ConfigError
        It is neither, is empty, or a logarithmic one that reaches zero.
    """
    meant = f"{where} is {said!r}, but must be a range such as [0, 0.5] or [1, 128, log]"
    if not isinstance(said, list | tuple) or len(said) not in (2, 3) or (len(said) == 3 and said[2] != "log"):
        raise ConfigError(meant)
    low, high = said[:2]
    numbers = (int,) if whole else (int, float)
    if any(isinstance(end, bool) or not isinstance(end, numbers) or not math.isfinite(end) for end in (low, high)):
        raise ConfigError(f"{meant}{', of whole numbers' if whole else ''}")
    if not low < high:
        raise ConfigError(f"{where} is {said!r}, which holds nothing: the first number is the smaller one")
    if len(said) == 3 and low <= 0:
        raise ConfigError(f"{where} is {said!r}: a logarithmic range begins above 0")
    scale: Literal["linear", "log"] = "log" if len(said) == 3 else "linear"
    return Range(low if whole else float(low), high if whole else float(high), scale, whole)


def is_setting(key: str) -> bool:
    """Whether it is a key of the run's configuration rather than an argument of the criterion."""
    section, dot, _ = key.partition(".")
    return bool(dot) and isinstance(Config().to_dict().get(section), dict)


def default_space(recipe: Recipe, config: Config, registry: Registry) -> dict[str, Range]:
    """What is searched where nothing is said.

    Of each loss the numbers that have a positive default and were not written down in the recipe, within a factor of
    four of that default on a logarithmic scale, as far as the docstring's range allows; and of a criterion that learns
    class vectors or proxies their learning rate, within a factor of four of the one it would have.
    """
    found: dict[str, Range] = {}
    for term in recipe.terms:
        if not isinstance(term.loss, Part):
            continue
        prefix = f"{_bare(term.loss)}." if len(recipe.terms) > 1 else ""
        signature = read_target(registry.resolve("loss", term.loss.name).spec.target)
        loss = term.loss.without_slots()
        given = signature.bind(loss.name, loss.positional, loss.named)
        for parameter in signature.parameters:
            if parameter.name not in given and (around := _around(parameter)) is not None:
                found[f"{prefix}{parameter.name}"] = around
    if (rate := _learning_rate(recipe, config, registry)) is not None:
        found[CRITERION_LR] = Range(rate / AROUND, rate * AROUND, "log")
    return found


def _default(parameter: Parameter) -> Any:
    """The default; a number too where it is written as a fraction, such as 1 / 9."""
    written = parameter.default
    if not isinstance(written, Source):
        return written
    numerator, slash, denominator = written.text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else written
    except (ValueError, ZeroDivisionError):
        return written


def _around(parameter: Parameter) -> Range | None:
    default = _default(parameter)
    if not isinstance(default, float) or not 0 < default < math.inf:
        return None
    low, high = default / AROUND, default * AROUND
    if parameter.low is not None and parameter.high is not None:
        low, high = max(low, parameter.low), min(high, parameter.high)
        # An end that is left out is not to be drawn, and nothing else is known of what lies before it.
        low = low * (1 + 1e-3) if low == parameter.low and parameter.low_open else low
        high = high * (1 - 1e-3) if high == parameter.high and parameter.high_open else high
    return Range(low, high, "log") if low < high else None


def _learning_rate(recipe: Recipe, config: Config, registry: Registry) -> float | None:
    """What the criterion's own parameters learn at where nothing is said; None where it learns nothing."""
    if config.optimizer.criterion_lr is not None:
        return None
    specs = [registry.resolve("loss", part.name).spec for part in recipe.parts() if _is_loss(part, registry)]
    learning = [spec for spec in specs if isinstance(spec, LossSpec) and "num_classes" in spec.needs]
    return max((own_rate(config.optimizer.lr, spec.learning_rate) for spec in learning), default=None)


def _is_loss(part: Part, registry: Registry) -> bool:
    return "loss" in registry.kinds_of(part.name)


def said_space(said: Mapping[str, Any], recipe: Recipe, registry: Registry, *, where: str) -> dict[str, Range]:
    """Read a mapping of keys and ranges; every key is found in the recipe or the configuration.

    Raises
    ------
    ConfigError
        A key names nothing that can be searched, or a value is no range.
    """
    found: dict[str, Range] = {}
    for key, value in said.items():
        if not isinstance(key, str):
            raise ConfigError(f"{where}: a key is a text, not {key!r}")
        named = f"{where}.{key}"
        if is_setting(key):
            found[key] = _setting(key, value, named)
            continue
        default = _argument(recipe, key, registry, named)
        whole = default is not None and isinstance(default.default, int) and not isinstance(default.default, bool)
        found[key] = read_range(value, where=named, whole=whole)
        outside = [end for end in (found[key].low, found[key].high) if default is not None and not default.holds(end)]
        if outside and default is not None:
            raise ConfigError(f"{named} reaches to {outside[0]:g}, but {key} must be in {default.range}")
    return found


def _setting(key: str, value: Any, named: str) -> Range:
    known = dict(leaves(Config().to_dict()))
    if key not in known or key in ("data.source", "data.fold"):
        raise ConfigError(f"{named}: no setting of a run is called {key}")
    number = known[key]
    if isinstance(number, bool) or not (number is None or isinstance(number, int | float)):
        raise ConfigError(f"{named}: {key} is no number, and only numbers are searched")
    return read_range(value, where=named, whole=isinstance(number, int))


def _argument(recipe: Recipe, key: str, registry: Registry, named: str) -> Parameter | None:
    """The parameter that a key such as ``margin``, ``miner.margin`` or ``center.weight`` means; None: a weight."""
    number, path = _place(recipe, key, named)
    if path == ["weight"] and len(recipe.terms) > 1:
        return None
    part: Any = recipe.terms[number].loss
    kind = "loss"
    for step in path[:-1]:
        part = part.named.get(step) if isinstance(part, Part) else None
        kind = step if step in SLOTS else "loss"
    if not isinstance(part, Part):
        raise ConfigError(f"{named}: {recipe} has no part there")
    signature = read_target(registry.resolve(kind, part.name).spec.target)
    if path[-1] not in signature:
        raise ConfigError(f"{named}: {signature.unknown(part.name, path[-1])}")
    return signature[path[-1]]


def _bare(part: Part) -> str:
    return part.name.rpartition(".")[2]


def _place(recipe: Recipe, key: str, named: str) -> tuple[int, list[str]]:
    """Of which term, and the names that lead there."""
    path = key.split(".")
    if len(recipe.terms) == 1:
        return 0, path
    names = [_bare(term.loss) if isinstance(term.loss, Part) else "" for term in recipe.terms]
    if len(path) < 2 or names.count(path[0]) != 1:
        raise ConfigError(f"{named}: of a sum say which loss, such as {names[0]}.{path[-1]}; it has {', '.join(names)}")
    return names.index(path[0]), path[1:]


def applied(recipe: Recipe, values: Mapping[str, float]) -> tuple[Recipe, dict[str, float]]:
    """The recipe with these arguments, and the settings of the run that are among them."""
    settings = {key: value for key, value in values.items() if is_setting(key)}
    terms = list(recipe.terms)
    for key, value in values.items():
        if key in settings:
            continue
        number, path = _place(recipe, key, "search")
        term = terms[number]
        if path == ["weight"] and len(terms) > 1:
            terms[number] = Term(term.loss, float(value))
        else:
            assert isinstance(term.loss, Part)
            terms[number] = Term(_with(term.loss, path, value), term.weight)
    return Recipe(tuple(terms)), settings


def _with(part: Part, path: list[str], value: float) -> Part:
    inner: Any = value if len(path) == 1 else _with(part.named[path[0]], path[1:], value)
    return Part(part.name, part.positional, {**part.named, path[0]: inner})


def begin(space: Space, recipe: Recipe, config: Config, registry: Registry) -> dict[str, float]:
    """Where the search begins: what each searched number is where it is not said, brought into its range."""
    found: dict[str, float] = {}
    for key, searched in space.items():
        if is_setting(key):
            at: Any = dict(leaves(config.to_dict()))[key]
            if at is None and key == CRITERION_LR:
                at = _learning_rate(recipe, config, registry)
        else:
            at = _written(recipe, key, registry)
        if isinstance(at, int | float) and not isinstance(at, bool) and math.isfinite(at):
            inside = min(max(at, searched.low), searched.high)
            found[key] = int(inside) if searched.whole else float(inside)
    return found


def _written(recipe: Recipe, key: str, registry: Registry) -> Any:
    number, path = _place(recipe, key, "search")
    parameter = _argument(recipe, key, registry, "search")
    if parameter is None:
        return recipe.terms[number].weight
    part: Any = recipe.terms[number].loss
    for step in path[:-1]:
        part = part.named[step]
    return part.named.get(path[-1], _default(parameter))
