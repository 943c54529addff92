"""From a recipe to a plan: names resolved, arguments bound, every problem found.

Planning needs no torch; :mod:`nearfar.build` turns a plan into objects.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nearfar.errors import ArgumentError, NearfarError
from nearfar.fit import check_loss, check_miner, check_sum, check_thresholds
from nearfar.grammar import SLOTS, Live, Part, Term, plain
from nearfar.plan import Plan, PlannedPart, PlannedTerm, Problem
from nearfar.registry import Entry, Registry
from nearfar.schedule import Schedule, read_schedule
from nearfar.signature import REQUIRED, Parameter, Signature, read_class, read_target
from nearfar.spec import KINDS, Defect, LossSpec, MinerSpec

__all__ = ["plan", "plan_part", "signature_of"]


def plan(
    terms: Iterable[Term], registry: Registry, context: Mapping[str, Any], *, made_by: Mapping[str, str] | None = None
) -> Plan:
    """Resolve, bind and check a sum of terms; nothing is raised, all problems are in the plan.

    Parameters
    ----------
    terms
        Of the recipe.
    registry
        Where names are looked up.
    context
        What the caller supplies for parts that need it: ``num_classes``, ``embedding_size`` …
    made_by
        Namespace → version of the plugins that made it when it was written down.
    """
    planner = _Planner(registry, context)
    planner.check_versions(made_by or {})
    terms = list(terms)
    planner.check_context(terms)
    planned = []
    for term in terms:
        loss = term.loss if isinstance(term.loss, Live) else planner.part(term.loss, "loss")
        weight = planner.weight(term.weight, term.loss)
        if loss is not None:
            planned.append(PlannedTerm(loss, weight))
    planner.problems.extend(check_sum(planned, registry, signature_of))
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
        self.context = {name: plain(value) for name, value in context.items()}
        self.problems: list[Problem] = []

    def error(self, message: str, cause: NearfarError | None = None, *, lacks: str = "") -> None:
        self.problems.append(Problem("error", message, cause, lacks))

    def warn(self, message: str) -> None:
        self.problems.append(Problem("warning", message))

    def check_versions(self, made_by: Mapping[str, str]) -> None:
        """Warn of plugins that are another version than those that made the recipe."""
        for plugin in self.registry.plugins:
            before = made_by.get(plugin.namespace, plugin.version)
            if plugin.status == "active" and before != plugin.version:
                self.warn(
                    f"the recipe was written with {plugin.distribution} {before}, and {plugin.version} is installed: "
                    "its parts may give other numbers, as its changelog would say"
                )

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
        self.read_schedules(entry, signature, bound)
        self.fill_from_context(entry, signature, bound)
        self.check_values(entry, signature, bound)
        if entry.spec.requires and not _installed(entry.spec.requires):
            self.error(f"{entry.full_name} needs {entry.spec.requires}: pip install {entry.spec.requires}")
        for name, value in (bound | slots).items():
            if name in SLOTS and (wrong := _no_part(name, value)):
                self.error(f"{entry.spec.name}: {wrong}")
        slots = {name: self.value(value, name) for name, value in slots.items() if value is not None}
        arguments = {name: self.value(value, name) for name, value in bound.items()}
        for defect in entry.spec.defects:
            if isinstance(defect, str) or _shows(defect, arguments | slots, signature):
                self.warn(f"{entry.full_name}: {defect}")
        rest = next((p.name for p in signature.parameters if p.variadic), "")
        planned = PlannedPart(
            entry,
            {name: value for name, value in arguments.items() if name != rest},
            tuple(arguments.get(rest, ())),
            {name: value for name, value in slots.items() if name != "miner"},
            slots.get("miner"),
        )
        if isinstance(entry.spec, LossSpec):
            composed = {name: arguments.get(name, slots.get(name)) for name in SLOTS}
            self.problems.extend(check_loss(planned, composed, signature, self.registry))
        elif isinstance(entry.spec, MinerSpec):
            self.problems.extend(check_miner(planned, arguments.get("distance"), self.registry))
            self.problems.extend(check_thresholds(planned, arguments.get("distance"), signature, self.registry))
        return planned

    def read_schedules(self, entry: Entry, signature: Signature, bound: dict[str, Any]) -> None:
        """Put schedules in place of what stands where a number would; what is none is noted."""
        for name, value in [*bound.items()]:
            if not isinstance(value, Part) or name not in signature or not _is_number(parameter := signature[name]):
                continue
            try:
                bound[name] = read_schedule(value.name, value.positional, value.named)
            except ArgumentError as error:
                self.error(f"{entry.spec.name}: {name} is {value}, but must be a number, or a schedule of one: {error}")
                bound[name] = 1.0 if parameter.default is REQUIRED else parameter.default

    def weight(self, weight: float | Part | Schedule, loss: Part | Live) -> float | Schedule:
        if not isinstance(weight, Part):
            return weight
        try:
            return read_schedule(weight.name, weight.positional, weight.named)
        except ArgumentError as error:
            self.error(f"the weight of {loss} is {weight}, but must be a number, or a schedule of one: {error}")
            return 1.0

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
        if not isinstance(name, str):
            raise ArgumentError(f"{entry.full_name}: preset is a name in quotes, such as preset='…', not {name}")
        if name in presets:
            return dict(presets[name].arguments)
        if not presets:
            raise ArgumentError(f"{entry.full_name} has no presets")
        close = difflib.get_close_matches(str(name), presets, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ArgumentError(f"{entry.full_name} has no preset {name!r}; {hint}it has {', '.join(presets)}")

    def fill_from_context(self, entry: Entry, signature: Signature, bound: dict[str, Any]) -> None:
        for name in entry.spec.needs:
            if name not in self.context or name not in signature:
                continue
            if bound.setdefault(name, self.context[name]) != self.context[name]:
                short = self.registry.short_name(entry)
                self.error(f"{short} is given {name} = {bound[name]!r}, and its context {self.context[name]!r}")
        short, missing = self.registry.short_name(entry), signature.missing(bound)
        for name in missing:
            if name in entry.spec.needs:
                self.error(f"{short} needs {name}: write {short}({name}=…), or give compose(…, {name}=…)", lacks=name)
        if lacking := [name for name in missing if name not in entry.spec.needs]:
            self.error(f"{short} lacks {', '.join(lacking)}; {signature.takes(short)}")

    def check_values(self, entry: Entry, signature: Signature, bound: Mapping[str, Any]) -> None:
        """Whether literals are of the type, among the choices and within the range that the constructor names."""
        for name, value in bound.items():
            if name not in signature or name in SLOTS or isinstance(value, Live):
                continue
            parameter = signature[name]
            if isinstance(value, Schedule):
                self.check_schedule(entry, parameter, value)
                continue
            if value is None and parameter.default is None:  # whatever its annotation says
                continue
            wanted, choices = _types(parameter.annotation), _choices(parameter)
            # True is an int to Python, and a mistake for a number to everybody else.
            fits = bool in wanted if isinstance(value, bool) else isinstance(value, wanted)
            if wanted and not fits:
                said = str(value) if isinstance(value, Part) else repr(value)
                self.error(f"{entry.spec.name}: {name} is {said}, but must be {_named(parameter.annotation)}")
            elif choices and isinstance(value, str) and value not in choices:
                close = difflib.get_close_matches(value, choices, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                self.error(f"{entry.spec.name}: {name} is one of {', '.join(map(repr, choices))}, not {value!r}{hint}")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                self.check_range(entry, parameter, value)

    def check_schedule(self, entry: Entry, parameter: Parameter, schedule: Schedule) -> None:
        spec = entry.spec
        if parameter.name not in spec.schedulable:
            can = f"{' and '.join(spec.schedulable)} can" if spec.schedulable else "none of its numbers can"
            why = spec.unschedulable.get(parameter.name, can)
            self.error(f"{spec.name}: {parameter.name} cannot be scheduled; {why}")
        for end in dict.fromkeys((schedule.start, schedule.end)):
            self.check_range(entry, parameter, end)

    def check_range(self, entry: Entry, parameter: Parameter, value: float) -> None:
        if not parameter.holds(value):
            unit = f" {parameter.unit}" if parameter.unit else ""
            self.error(
                f"{entry.spec.name}: {parameter.name} = {value!r} is out of range; it lies in {parameter.range}{unit}"
            )

    def value(self, value: Any, parameter: str) -> Any:
        """Plan the parts inside an argument's value."""
        if isinstance(value, Part):
            return self.part(value, parameter if parameter in SLOTS else _kind_for(parameter))
        if isinstance(value, list | tuple):
            return [self.value(item, parameter) for item in value]
        if isinstance(value, dict):
            return {key: self.value(item, parameter) for key, item in value.items()}
        return value

    # ---- the whole

    def takes(self, loss: Part, name: str) -> bool:
        """Whether a loss of a recipe has a parameter of this name."""
        try:
            return name in signature_of(self.registry.resolve("loss", loss.name))
        except NearfarError:
            return False

    def check_context(self, terms: Sequence[Term]) -> None:
        known = {name for kind in KINDS for entry in self.registry.entries(kind) for name in entry.spec.needs}
        known |= {"num_classes", "embedding_size", "image_size"}
        for name in self.context:
            if name not in known:
                close = difflib.get_close_matches(name, known | set(SLOTS), n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; parts ask for {', '.join(sorted(known))}"
                if taker := next(
                    (term.loss.name for term in terms if isinstance(term.loss, Part) and self.takes(term.loss, name)),
                    "",
                ):
                    hint = f": it is an argument of {taker}, so write {taker}({name}=…) in the recipe"
                self.error(f"no part needs {name!r}{hint}")


_WORDS = re.compile(r"[a-z]+")


def _kind_for(parameter: str) -> str | None:
    """The kind of part a parameter takes, from its name: ``loss``, ``losses``, ``default_reducer`` …"""
    words = _WORDS.findall(parameter.lower())
    last = words[-1] if words else ""
    singular = {"losses": "loss"}.get(last, last.removesuffix("s") if last != "loss" else last)
    return singular if singular in KINDS else None


def _is_number(parameter: Parameter) -> bool:
    return bool({"float", "int"} & {piece.strip() for piece in parameter.annotation.split("|")})


def _choices(parameter: Parameter) -> list[str]:
    """The texts a parameter may be; empty where it may be any, or none."""
    any_text = "str" in {piece.strip() for piece in parameter.annotation.split("|")}
    return [] if any_text else [choice for choice in parameter.choices if isinstance(choice, str)]


def _shows(defect: Defect, given: Mapping[str, Any], signature: Signature) -> bool:
    """Whether an argument is one that a defect shows with."""
    name = defect.argument
    if name not in given or (name in signature and given[name] == signature[name].default):
        return False
    value = given[name]
    return defect.shows_with(value.entry.spec.name if isinstance(value, PlannedPart) else value)


def _no_part(slot: str, value: Any) -> str:
    """What is wrong with something that should be a miner, a reducer or a distance; empty where nothing is."""
    if value is None or isinstance(value, Part):
        return ""
    if not isinstance(value, Live):
        return f"{slot} is {value!r}, but must be the name of a {slot}"
    if isinstance(value.value, type):
        return f"{slot} is a class; give an instance of it: {value.value.__name__}(…)"
    # A torch module, told by its ways: torch is not imported here.
    if not (callable(value.value) and hasattr(value.value, "state_dict")):
        return f"{slot} is {value.value!r}, but must be a torch module or the name of a {slot}"
    return ""


_LITERALS: Mapping[str, tuple[type, ...]] = {
    "float": (int, float),
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}


def _types(annotation: str) -> tuple[type, ...]:
    """The types an annotation such as ``float | None`` allows; nothing where it names any other."""
    pieces = [piece.strip() for piece in annotation.split("|")]
    if not all(piece in _LITERALS for piece in pieces):
        return ()
    return tuple(t for piece in pieces for t in _LITERALS[piece])


def _named(annotation: str) -> str:
    words = {"float": "a number", "int": "a whole number", "bool": "True or False", "str": "a text", "None": "None"}
    return " or ".join(words[piece.strip()] for piece in annotation.split("|"))


def _installed(distribution: str) -> bool:
    from importlib import metadata

    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return importlib.util.find_spec(distribution.replace("-", "_")) is not None
    return True
