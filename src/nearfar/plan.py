"""From a recipe to what is to be built: names resolved, arguments bound, every problem found.

Planning needs no torch; :mod:`nearfar.build` turns a plan into objects.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nearfar.errors import ArgumentError, NearfarError
from nearfar.grammar import SLOTS, Live, Part, Term, walk
from nearfar.registry import Entry, Registry
from nearfar.signature import Signature, read_class, read_target
from nearfar.spec import KINDS, DistanceSpec, LossSpec, MinerSpec, ReducerSpec

__all__ = ["Plan", "PlannedPart", "PlannedTerm", "Problem", "plan", "plan_part", "signature_of"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a recipe: an error stops composition, a warning is told and goes on.

    ``cause`` is the error it was found by, where there was one.
    """

    severity: Literal["error", "warning"]
    message: str
    cause: NearfarError | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A part to be built.

    Attributes
    ----------
    entry
        What it is.
    arguments
        For the constructor, by name: literals, further planned parts, lists and dictionaries of such,
        live objects.
    variadic
        For its ``*args``.
    attributes
        A loss's reducer and distance where its constructor takes none: they are set on the object.
    miner
        A loss's miner where its constructor takes none: it selects before each call.
    """

    entry: Entry
    arguments: Mapping[str, Any] = field(default_factory=dict)
    variadic: tuple[Any, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    miner: Any = None


@dataclass(frozen=True, slots=True)
class PlannedTerm:
    """A term to be built; ``loss`` is a planned part or a live object."""

    loss: PlannedPart | Live
    weight: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built, and what is wrong with it. With errors among the problems it cannot be built."""

    terms: tuple[PlannedTerm, ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "error")


def plan(terms: Iterable[Term], registry: Registry, context: Mapping[str, Any]) -> Plan:
    """Resolve, bind and check a sum of terms; nothing is raised, all problems are in the plan.

    Parameters
    ----------
    terms
        Of the recipe.
    registry
        Where names are looked up.
    context
        What the caller supplies for parts that need it: ``num_classes``, ``embedding_size`` …
    """
    planner = _Planner(registry, context)
    planner.check_context()
    planned = []
    for term in terms:
        loss = term.loss if isinstance(term.loss, Live) else planner.part(term.loss, "loss")
        if loss is not None:
            planned.append(PlannedTerm(loss, term.weight))
    planner.check_sum(planned)
    return Plan(tuple(planned), tuple(dict.fromkeys(planner.problems)))


def plan_part(part: Part, kind: str, registry: Registry, context: Mapping[str, Any]) -> tuple[PlannedPart | None, Plan]:
    """Resolve, bind and check one part of any kind."""
    planner = _Planner(registry, context)
    planned = planner.part(part, kind)
    return planned, Plan((), tuple(dict.fromkeys(planner.problems)))


def signature_of(entry: Entry) -> Signature:
    """The signature of an entry's constructor.

    Raises
    ------
    ArgumentError
        Its target can be neither read nor imported.
    """
    return read_class(entry.target) if entry.target is not None else read_target(entry.spec.target)


class _Planner:
    def __init__(self, registry: Registry, context: Mapping[str, Any]) -> None:
        self.registry = registry
        self.context = context
        self.problems: list[Problem] = []

    def error(self, message: str, cause: NearfarError | None = None) -> None:
        self.problems.append(Problem("error", message, cause))

    def warn(self, message: str) -> None:
        self.problems.append(Problem("warning", message))

    # ---- parts

    def part(self, part: Part, kind: str | None) -> PlannedPart | None:
        """Plan a part, or note what is wrong with it and return None."""
        try:
            entry = self.registry.resolve(kind or self.kind_of(part.name), part.name)
            signature = signature_of(entry)
            given = dict(part.named)
            preset = self.preset(entry, given)
            slots = {
                name: given.pop(name)
                for name in SLOTS
                if entry.kind == "loss" and name in given and name not in signature
            }
            bound = preset | signature.bind(entry.spec.name, part.positional, given)
        except NearfarError as error:
            self.error(str(error), error)
            return None
        self.fill_from_context(entry, signature, bound)
        self.check_ranges(entry, signature, bound)
        if entry.spec.requires and not _installed(entry.spec.requires):
            self.error(f"{entry.full_name} needs {entry.spec.requires}: pip install {entry.spec.requires}")
        for defect in entry.spec.defects:
            self.warn(f"{entry.full_name}: {defect}")
        planned_slots = {name: self.slot(entry, name, value) for name, value in slots.items() if value is not None}
        arguments = {
            name: self.slot(entry, name, value) if name in SLOTS and value is not None else self.value(value, name)
            for name, value in bound.items()
        }
        rest = next((p.name for p in signature.parameters if p.variadic), "")
        planned = PlannedPart(
            entry,
            {name: value for name, value in arguments.items() if name != rest},
            tuple(arguments.get(rest, ())),
            {name: value for name, value in planned_slots.items() if name != "miner"},
            planned_slots.get("miner"),
        )
        if isinstance(entry.spec, LossSpec):
            self.check_fit(planned, {name: arguments.get(name, planned_slots.get(name)) for name in SLOTS}, signature)
        elif isinstance(entry.spec, MinerSpec):
            self.check_thresholds(entry, arguments, arguments.get("distance"), signature)
        return planned

    def kind_of(self, name: str) -> str:
        kinds = self.registry.kinds_of(name)
        if len(kinds) > 1:
            raise ArgumentError(
                f"{name!r} names a {' and a '.join(kinds)}; give it by the name of the parameter it is for"
            )
        return kinds[0] if kinds else "loss"

    def preset(self, entry: Entry, given: dict[str, Any]) -> dict[str, Any]:
        name = given.pop("preset", None)
        if name is None:
            return {}
        presets = entry.spec.presets
        if name in presets:
            return dict(presets[name].arguments)
        if not presets:
            raise ArgumentError(f"{entry.full_name} has no presets")
        close = difflib.get_close_matches(str(name), presets, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ArgumentError(f"{entry.full_name} has no preset {name!r}; {hint}it has {', '.join(presets)}")

    def fill_from_context(self, entry: Entry, signature: Signature, bound: dict[str, Any]) -> None:
        for name in entry.spec.needs:
            if name not in bound and name in self.context and name in signature:
                bound[name] = self.context[name]
        short, missing = self.registry.short_name(entry), signature.missing(bound)
        for name in missing:
            if name in entry.spec.needs:
                self.error(f"{short} needs {name}: write {short}({name}=…), or give compose(…, {name}=…)")
        if lacking := [name for name in missing if name not in entry.spec.needs]:
            self.error(f"{short} lacks {', '.join(lacking)}; {signature.takes(short)}")

    def check_ranges(self, entry: Entry, signature: Signature, bound: Mapping[str, Any]) -> None:
        for name, value in bound.items():
            if name not in signature:
                continue
            parameter = signature[name]
            if isinstance(value, str) and (choices := _choices(parameter.annotation)) and value not in choices:
                close = difflib.get_close_matches(value, choices, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                self.error(f"{entry.spec.name}: {name} is one of {', '.join(map(repr, choices))}, not {value!r}{hint}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            low = -float("inf") if parameter.low is None else parameter.low
            high = float("inf") if parameter.high is None else parameter.high
            if not low <= value <= high:
                unit = f" {parameter.unit}" if parameter.unit else ""
                self.error(
                    f"{entry.spec.name}: {name} = {value!r} is out of range; it lies in {low:.4g}..{high:.4g}{unit}"
                )

    def value(self, value: Any, parameter: str) -> Any:
        """Plan the parts inside an argument's value."""
        if isinstance(value, Part):
            return self.part(value, _kind_for(parameter))
        if isinstance(value, list | tuple):
            return [self.value(item, parameter) for item in value]
        if isinstance(value, dict):
            return {key: self.value(item, parameter) for key, item in value.items()}
        return value

    # ---- fit

    def slot(self, entry: Entry, name: str, value: Any) -> Any:
        return self.part(value, name) if isinstance(value, Part) else value

    def check_fit(self, planned: PlannedPart, slots: Mapping[str, Any], signature: Signature) -> None:
        """Whether a loss, its miner, its reducer and its distance go together."""
        spec, name = planned.entry.spec, self.registry.short_name(planned.entry)
        assert isinstance(spec, LossSpec)
        if slots["miner"] is not None:
            self.check_miner(name, spec, slots["miner"], planned)
        if slots["reducer"] is not None:
            self.check_reducer(name, spec, slots["reducer"], signature)
        if slots["distance"] is not None:
            self.check_distance(name, spec, slots["distance"])
        self.check_thresholds(planned.entry, planned.arguments, slots["distance"], signature)

    def check_miner(self, name: str, spec: LossSpec, miner: Any, planned: PlannedPart) -> None:
        if not spec.on_embeddings:
            self.error(
                f"{name} takes {', '.join(spec.inputs)}, and miners select among embeddings: leave the miner out"
            )
            return
        if not isinstance(miner, PlannedPart) or "miner" in planned.arguments:
            return
        miner_spec = miner.entry.spec
        assert isinstance(miner_spec, MinerSpec)
        if not spec.accepts:
            self.error(f"{name} takes no miner; {miner_spec.name} would be ignored")
        elif miner_spec.produces not in spec.accepts:
            self.error(
                f"{miner_spec.name} produces {miner_spec.produces}, but {name} accepts {' or '.join(spec.accepts)}"
            )

    def check_reducer(self, name: str, spec: LossSpec, reducer: Any, signature: Signature) -> None:
        label = reducer.entry.spec.name if isinstance(reducer, PlannedPart) else str(reducer)
        if not spec.reducible:
            self.error(f"{name} reduces itself; the reducer {label} would be ignored")
            return
        if isinstance(reducer, PlannedPart):
            reducer_spec = reducer.entry.spec
            assert isinstance(reducer_spec, ReducerSpec)
            if cannot := [kind for kind in spec.emits if kind not in (*reducer_spec.reduces, "already_reduced")]:
                self.error(f"{label} does not reduce {' or '.join(cannot)} terms, which {name} emits")

    def check_distance(self, name: str, spec: LossSpec, distance: Any) -> None:
        label = distance.entry.full_name if isinstance(distance, PlannedPart) else str(distance)
        if not spec.distances:
            self.error(f"{name} works on no distance; {label} would be ignored")
        elif isinstance(distance, PlannedPart) and "*" not in spec.distances:
            names = {distance.entry.spec.name, distance.entry.full_name}
            if not names & set(spec.distances):
                self.error(f"{name} works on {' or '.join(spec.distances)}, not on {label}")

    def check_thresholds(self, entry: Entry, arguments: Mapping[str, Any], distance: Any, signature: Signature) -> None:
        """Margins that no distance of the range can violate: collapsed embeddings would cost nothing."""
        spec = entry.spec
        assert isinstance(spec, LossSpec | MinerSpec)
        if not spec.thresholds:
            return
        if isinstance(distance, PlannedPart):
            distance_spec = distance.entry.spec
        elif distance is None and spec.default_distance:
            try:
                distance_spec = self.registry.resolve("distance", spec.default_distance).spec
            except NearfarError:
                return
        else:
            return
        assert isinstance(distance_spec, DistanceSpec)
        for name, role in spec.thresholds.items():
            value = arguments.get(name, signature[name].default if name in signature else None)
            if role != "negative" or not isinstance(value, int | float):
                continue
            nearest = distance_spec.nearest
            if nearest <= value if distance_spec.similarity else nearest >= value:
                sort = "similarity" if distance_spec.similarity else "distance"
                low, high = distance_spec.range
                self.warn(
                    f"{self.registry.short_name(entry)}: no {distance_spec.name} {sort} (in {low:g}..{high:g}) of a "
                    f"negative pair violates {name} = {value!r}, so embeddings collapsed to a point cost nothing"
                    + (f"; choose {name} below {nearest:g}" if distance_spec.similarity else "")
                )

    # ---- the whole

    def check_context(self) -> None:
        known = {name for kind in KINDS for entry in self.registry.entries(kind) for name in entry.spec.needs}
        known |= {"num_classes", "embedding_size", "image_size"}
        for name in self.context:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; parts ask for {', '.join(sorted(known))}"
                self.error(f"no part needs {name!r}{hint}")

    def check_sum(self, terms: list[PlannedTerm]) -> None:
        planned = [term.loss for term in terms if isinstance(term.loss, PlannedPart)]
        on_embeddings = [p for p in planned if isinstance(p.entry.spec, LossSpec) and p.entry.spec.on_embeddings]
        centers = [p for p in on_embeddings if p.entry.spec.family == "center"]
        others = [p for p in on_embeddings if p not in centers]
        if centers and others and not any(self.uses_norm(p) for p in others):
            name, *_ = (self.registry.short_name(p.entry) for p in centers)
            partners = ", ".join(self.registry.short_name(p.entry) for p in others)
            self.warn(
                f"{name} pulls embeddings as they are, and {partners} ignores their length: together they shrink "
                f"embeddings to 0; pair it with a loss on unnormalised embeddings, such as softmax"
            )
        for p in planned if len(terms) > 1 else ():
            reducer = p.arguments.get("reducer", p.attributes.get("reducer"))
            if isinstance(reducer, PlannedPart) and reducer.entry.full_name in _UNREDUCED:
                self.error(
                    f"{self.registry.short_name(p.entry)} is left unreduced by {reducer.entry.spec.name}, "
                    f"so it cannot be added to other terms"
                )

    def uses_norm(self, planned: PlannedPart) -> bool:
        spec = planned.entry.spec
        assert isinstance(spec, LossSpec)
        distance = planned.arguments.get("distance", planned.attributes.get("distance"))
        if isinstance(distance, PlannedPart):
            return distance.entry.spec.name == "dot" or False in distance.arguments.values()
        return spec.uses_norm


_UNREDUCED = frozenset({"core.none", "pml.do_nothing_reducer"})

_WORDS = re.compile(r"[a-z]+")


def _kind_for(parameter: str) -> str | None:
    """The kind of part a parameter takes, from its name: ``loss``, ``losses``, ``default_reducer`` …"""
    words = _WORDS.findall(parameter.lower())
    last = words[-1] if words else ""
    singular = {"losses": "loss"}.get(last, last.removesuffix("s") if last != "loss" else last)
    return singular if singular in KINDS else None


def _choices(annotation: str) -> list[str]:
    """The strings of a ``Literal[...]`` annotation; empty for anything else."""
    match = re.fullmatch(r"(?:typing\.)?Literal\[(.*)\]", annotation, re.DOTALL)
    return re.findall(r"['\"]([^'\"]*)['\"]", match.group(1)) if match else []


def _installed(distribution: str) -> bool:
    from importlib import metadata

    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return importlib.util.find_spec(distribution.replace("-", "_")) is not None
    return True


def live_objects(terms: Iterable[Term]) -> Iterator[Live]:
    """The live objects anywhere in a sum of terms."""
    for term in terms:
        for value in walk(term.loss):
            if isinstance(value, Live):
                yield value
