"""From names to objects: import the targets, pass the arguments, assemble the criterion."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from nearfar.errors import ArgumentError, NearfarError, NearfarWarning, RecipeError
from nearfar.grammar import Live, Part, parse_part
from nearfar.nn.criterion import Criterion, CriterionTerm
from nearfar.nn.losses import Loss
from nearfar.nn.matching import Matcher
from nearfar.nn.schedules import Scheduled, attach, mark, unmovable, with_copies
from nearfar.plan import PlannedPart, refusal
from nearfar.planner import plan_part
from nearfar.recipe import Recipe
from nearfar.registry import Entry, Registry, default_registry
from nearfar.schedule import Schedule
from nearfar.spec import LossSpec

__all__ = ["compose", "create_distance", "create_loss", "create_miner", "create_reducer"]


def compose(
    recipe: Any,
    *,
    miner: Any = None,
    reducer: Any = None,
    distance: Any = None,
    registry: Registry | None = None,
    **context: Any,
) -> Criterion:
    """Make a criterion from named parts.

    Parameters
    ----------
    recipe
        A string such as ``"softmax + 0.003 * center"``, a :class:`~nearfar.recipe.Recipe`, plain data as a
        recipe writes it, or a loss object.
    miner, reducer, distance
        For every term that does not say its own: a name, a string with arguments, or an object.
    registry
        Where names are looked up; by default everything installed.
    **context
        What parts need from where they are used: ``num_classes``, ``embedding_size`` …

    Returns
    -------
    Criterion
        A module, called ``criterion(embeddings, labels)``; its ``recipe`` writes it down again.

    Raises
    ------
    RecipeError
        The recipe cannot be read, or its parts do not fit; ``problems`` has everything that is wrong.
    """
    registry = default_registry() if registry is None else registry
    read = Recipe.of(recipe, miner=miner, reducer=reducer, distance=distance)
    planned = read.plan(registry, **context)
    for problem in planned.problems:
        if problem.severity == "warning":
            warnings.warn(problem.message, NearfarWarning, stacklevel=2)
    if planned.errors:
        raise refusal(planned.errors, read)
    terms: list[CriterionTerm] = []
    bench = _Bench()
    for term in planned.terms:
        made = _live_term(term.loss.value, terms) if isinstance(term.loss, Live) else _term(term.loss, terms, bench)
        if isinstance(term.weight, Schedule):
            terms.append(replace(made, weight=term.weight.at(0), curve=term.weight))
        else:
            terms.append(replace(made, weight=term.weight))
    parts = [part for term in terms for part in (term.loss, term.miner) if isinstance(part, nn.Module)]
    scheduled = with_copies(bench.scheduled, parts)
    return Criterion(terms, recipe=read.with_plugins(bench.versions), scheduled=scheduled)


@dataclass(slots=True)
class _Bench:
    """What comes to light while parts are made.

    Attributes
    ----------
    versions
        Namespace → version of the plugins that made them.
    matchers
        Of terms that match boxes: as planned and as made.
    scheduled
        Numbers of them that move with the steps.
    """

    versions: dict[str, str] = field(default_factory=dict)
    matchers: list[tuple[Any, Matcher]] = field(default_factory=list)
    scheduled: list[Scheduled] = field(default_factory=list)


def _term(planned: PlannedPart, terms: list[CriterionTerm], bench: _Bench) -> CriterionTerm:
    spec = planned.entry.spec
    assert isinstance(spec, LossSpec)
    loss, miner = _make(planned, bench), _value(planned.miner, bench)
    if isinstance(miner, Matcher):
        # One object for terms that match alike, which then are matched once a call.
        known = next((made for plan, made in bench.matchers if plan == planned.miner), None)
        bench.matchers.append((planned.miner, miner))
        miner = known or miner
    name, rate = _distinct(spec.name, terms), _learning_rate(planned)
    return CriterionTerm(name, loss, spec.inputs, 1.0, miner, spec.optional_inputs, rate)


def _learning_rate(value: Any) -> float:
    """The greatest that a loss, or one that it wraps, wants."""
    if isinstance(value, PlannedPart):
        own = value.entry.spec.learning_rate if isinstance(value.entry.spec, LossSpec) else 1.0
        return max(own, _learning_rate([*value.arguments.values(), *value.variadic]))
    if isinstance(value, Mapping):
        value = list(value.values())
    return max(map(_learning_rate, value), default=1.0) if isinstance(value, list | tuple) else 1.0


def _live_term(loss: Any, terms: list[CriterionTerm]) -> CriterionTerm:
    if not isinstance(loss, nn.Module):
        raise RecipeError(f"a loss is a torch module; got {loss!r}")
    inputs = getattr(loss, "inputs", ("embeddings", "labels"))
    optional = tuple(getattr(loss, "optional_inputs", ()))
    return CriterionTerm(_distinct(type(loss).__name__, terms), loss, tuple(inputs), 1.0, None, optional)


def _distinct(name: str, terms: list[CriterionTerm]) -> str:
    taken = {term.name for term in terms}
    number = 2
    distinct = name
    while distinct in taken:
        distinct, number = f"{name}_{number}", number + 1
    return distinct


def _make(planned: PlannedPart, bench: _Bench) -> Any:
    """Build a part, its nested parts first."""
    entry = planned.entry
    bench.versions[entry.namespace] = entry.plugin.version
    cls = _import(entry)
    schedules = {name: value for name, value in planned.arguments.items() if isinstance(value, Schedule)}
    arguments = {name: _value(value, bench) for name, value in planned.arguments.items()}
    arguments |= {name: schedule.start for name, schedule in schedules.items()}
    positional = [_value(value, bench) for value in planned.variadic]
    try:
        made = cls(*positional, **arguments)
    except NearfarError:
        raise
    except Exception as error:
        written = ", ".join(
            f"{name}={type(value).__name__ if isinstance(value, nn.Module) else repr(value)}"
            for name, value in arguments.items()
        )
        reason = next(iter(str(error).splitlines()), "")
        raise ArgumentError(
            f"{entry.full_name}({written}) could not be made: {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(made, nn.Module):
        raise ArgumentError(
            f"{entry.full_name} makes an object of {type(made).__name__}, and a {entry.kind} is a torch module"
        )
    for name, value in planned.attributes.items():
        if not isinstance(made, Loss):
            raise ArgumentError(f"{entry.full_name} takes no {name}: its constructor has no such parameter")
        setattr(made, name, _value(value, bench))
    if schedules:
        bench.scheduled += _scheduled(entry, made, lambda more: cls(*positional, **arguments | more), schedules)
    return made


def _scheduled(
    entry: Entry, made: Any, make: Callable[[dict[str, Any]], Any], schedules: Mapping[str, Schedule]
) -> list[Scheduled]:
    """What is to move of a part, once it is sure that nothing else of it would have to move along."""
    with torch.random.fork_rng(devices=[]):  # what another one draws is not missed by what is made next
        other = make({name: schedule.end for name, schedule in schedules.items()})
    if why := unmovable(made, other, schedules):
        raise ArgumentError(f"{entry.full_name}: {' and '.join(schedules)} cannot be scheduled: {why}")
    mark(made)
    return [Scheduled(made, name, schedule) for name, schedule in schedules.items()]


def _value(value: Any, bench: _Bench) -> Any:
    if isinstance(value, PlannedPart):
        made = _make(value, bench)
        if value.miner is None:
            return made
        # A nested loss brings its miner along as a criterion of one term.
        spec = value.entry.spec
        assert isinstance(spec, LossSpec)
        miner = _value(value.miner, bench)
        return Criterion([CriterionTerm(spec.name, made, spec.inputs, 1.0, miner, spec.optional_inputs)])
    if isinstance(value, Live):
        return value.value
    if isinstance(value, list | tuple):
        return [_value(item, bench) for item in value]
    if isinstance(value, Mapping):
        return {key: _value(item, bench) for key, item in value.items()}
    return value


def _import(entry: Entry) -> Any:
    if entry.target is not None:
        return entry.target
    module, _, name = entry.spec.target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever a third party's import raises
        raise ArgumentError(
            f"{entry.full_name} of {entry.plugin.provider} cannot be imported from {entry.spec.target}: "
            f"{type(error).__name__}: {error}"
        ) from error


def make_part(part: Part, kind: str, registry: Registry, context: Mapping[str, Any], *, stacklevel: int = 2) -> Any:
    """Make one part of a kind; what :mod:`nearfar.grammar` reads, with the names of ``registry``.

    Raises
    ------
    UnknownPart, ArgumentError
        As :func:`create_loss`.
    """
    planned, plan = plan_part(part, kind, registry, context)
    for problem in plan.problems:
        if problem.severity == "warning":
            warnings.warn(problem.message, NearfarWarning, stacklevel=stacklevel + 1)
    if plan.errors or planned is None:
        if len(plan.errors) == 1 and plan.errors[0].cause is not None:
            raise plan.errors[0].cause
        raise ArgumentError("; ".join(problem.message for problem in plan.errors))
    bench = _Bench()
    made = _value(planned, bench)
    if bench.scheduled and kind != "loss":
        raise ArgumentError(
            f"{part}: what moves with the steps does so with those of a loss; write the {kind} in a recipe, or as an "
            "argument of a loss"
        )
    if bench.scheduled:
        attach(made, with_copies(bench.scheduled, [made]))
    return made


def _create(kind: str, name: str | Part, arguments: Mapping[str, Any]) -> Any:
    if not isinstance(name, str | Part):
        raise ArgumentError(f"a {kind} is made by its name, not by {name!r}")
    part = parse_part(name) if isinstance(name, str) else name
    part = Part(part.name, part.positional, {**part.named, **arguments})
    return make_part(part, kind, default_registry(), {}, stacklevel=4)


def create_loss(name: str, **arguments: Any) -> Any:
    """Make one loss by name: ``create_loss("arcface", num_classes=10, embedding_size=64)``.

    Raises
    ------
    UnknownPart
        No loss has the name; the message has the closest ones.
    ArgumentError
        An argument is wrong; the message has what was found and what is taken.
    """
    return _create("loss", name, arguments)


def create_miner(name: str, **arguments: Any) -> Any:
    """Make one miner by name; as :func:`create_loss`."""
    return _create("miner", name, arguments)


def create_reducer(name: str, **arguments: Any) -> Any:
    """Make one reducer by name; as :func:`create_loss`."""
    return _create("reducer", name, arguments)


def create_distance(name: str, **arguments: Any) -> Any:
    """Make one distance by name; as :func:`create_loss`."""
    return _create("distance", name, arguments)
