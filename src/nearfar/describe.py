"""Everything there is to say of a part, from its spec and its docstring alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nearfar.errors import NearfarError
from nearfar.grammar import parse_part
from nearfar.planner import signature_of
from nearfar.prose import Block, Prose, Section, blocks, read
from nearfar.registry import Entry, Registry
from nearfar.signature import Parameter, Signature
from nearfar.spec import DistanceSpec, LossSpec, MinerSpec, PartSpec, ReducerSpec

__all__ = ["Description", "describe"]


@dataclass(frozen=True, slots=True)
class Description:
    """A part in words, as ``nearfar show`` prints it and a page of the catalogue holds it.

    Attributes
    ----------
    full_name, kind, provider, version, family, summary, deviations, defects, paper, names
        As the spec and the plugin say.
    formula
        The formulas of the docstring, TeX, with an empty line between two.
    opening
        What the docstring says before its first section, formulas in their places, without what repeats the summary.
    parameters
        Of the constructor; ``raises`` has what it and a call raise, and when.
    sections
        The other sections of the docstring, save for ``references``.
    composes, properties, cost
        What the spec declares, in sentences without a full stop.
    presets
        Name → arguments and source.
    check
        The command that holds it to the laws of its kind; ``exceptions`` has those it does not keep, and why.
    provided
        Who provides it, under which path, and what else that needs.
    recipe
        A line of Python that makes it.
    """

    full_name: str
    kind: str
    provider: str
    version: str
    family: str
    summary: str
    formula: str
    opening: tuple[Block, ...]
    parameters: tuple[Parameter, ...]
    raises: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    references: tuple[Block, ...]
    composes: tuple[str, ...]
    properties: tuple[str, ...]
    cost: tuple[str, ...]
    presets: Mapping[str, str]
    deviations: tuple[str, ...]
    defects: tuple[str, ...]
    paper: str
    names: tuple[str, ...]
    check: str
    exceptions: Mapping[str, str]
    provided: tuple[str, ...]
    recipe: str
    prose: Prose
    spec: PartSpec

    def to_dict(self) -> dict[str, Any]:
        """As JSON-serialisable data; prose as it is written."""
        return {
            "full_name": self.full_name,
            "provider": self.provider,
            "formula": self.formula,
            "opening": self.prose.opening,
            "parameters": [_parameter(p) for p in self.parameters],
            "raises": [{"type": type_, "description": said} for type_, said in self.raises],
            "sections": {section.title: section.text for section in self.prose.sections},
            "composes": list(self.composes),
            "properties": list(self.properties),
            "cost": list(self.cost),
            "check": self.check,
            "recipe": self.recipe,
        } | self.spec.to_dict()


def _parameter(p: Parameter) -> dict[str, Any]:
    plain = p.default is None or isinstance(p.default, bool | int | float | str)
    return {
        "name": p.name,
        "default": None if p.required else _finite(p.default) if plain else repr(p.default),
        "required": p.required,
        "unit": p.unit,
        "low": _finite(p.low),
        "high": _finite(p.high),
        "low_open": p.low_open,
        "high_open": p.high_open,
        "choices": list(p.choices),
        "annotation": p.annotation,
        "description": p.description,
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity, and no value that is not a number."""
    return str(value) if isinstance(value, float) and not abs(value) < float("inf") else value


def describe(entry: Entry, registry: Registry) -> Description:
    """Describe an entry; its target is read, not imported.

    Raises
    ------
    ArgumentError
        Its target can be neither read nor imported.
    """
    spec = entry.spec
    signature = signature_of(entry)
    prose = read(signature.docstring)
    return Description(
        full_name=entry.full_name,
        kind=spec.kind,
        provider=entry.plugin.provider,
        version=entry.plugin.version,
        family=spec.family,
        summary=spec.summary,
        formula="\n\n".join(block.text for block in blocks(prose.opening) if block.kind == "math"),
        opening=prose.after(spec.summary),
        parameters=tuple(p for p in signature.parameters if not p.variadic),
        raises=prose.raises,
        sections=tuple(section for section in prose.sections if section.title != "References"),
        references=_references(prose, spec),
        composes=tuple(_composes(spec)),
        properties=tuple(_properties(spec)),
        cost=tuple(_cost(spec)),
        presets={
            name: f"{', '.join(f'{k}={v!r}' for k, v in preset.arguments.items())} — {preset.source}"
            for name, preset in spec.presets.items()
        },
        deviations=spec.deviations,
        defects=tuple(map(str, spec.defects)),
        paper=str(spec.paper) if spec.paper else "",
        names=(*spec.aliases, *(f"{name} (former)" for name in spec.deprecated)),
        check=_check(entry, registry),
        exceptions=spec.expected_failures,
        provided=tuple(_provided(entry)),
        recipe=_recipe(registry.short_name(entry), spec, signature),
        prose=prose,
        spec=spec,
    )


def _references(prose: Prose, spec: PartSpec) -> tuple[Block, ...]:
    """What the docstring refers to, unless that is the paper of the spec and nothing else."""
    found = tuple(b for section in prose.sections if section.title == "References" for b in section.blocks)
    return () if [block.text.rstrip(".") for block in found] == [str(spec.paper).rstrip(".")] else found


# ---- what the spec declares, in words


def _composes(spec: PartSpec) -> Iterator[str]:
    if isinstance(spec, LossSpec):
        yield f"inputs: {', '.join(spec.inputs)}" + (", and a reference set" if spec.reference else "")
        yield from _optional(spec.optional_inputs)
        if spec.graded:
            yield "labels: with grades of relevance too (RuledLabels, Grades)"
        yield f"miners: {'those that produce ' + ' or '.join(spec.accepts) if spec.accepts else 'none'}"
        emits = f"any that reduces {' and '.join(spec.emits)}" if spec.reducible else "none, it reduces itself"
        yield f"reducers: {emits}" + (f"; default {spec.default_reducer}" if spec.reducible else "")
        yield _distances(spec.distances, spec.default_distance)
        for name, side in spec.thresholds.items():
            yield f"{name} is compared with the distance itself: {side} pairs cost {_BEYOND.get(side, 'by it')}"
        if spec.wraps != ("*",):
            yield f"takes the losses: {', '.join(spec.wraps)}"
        if spec.asks:
            yield f"takes losses on embeddings{' with a reference set' if 'reference' in spec.asks else ''}"
    elif isinstance(spec, MinerSpec):
        yield f"produces: {spec.produces}" + (", with a reference set or without" if spec.reference else "")
        if spec.produces == "elements":
            yield f"chooses among: {', '.join(spec.reduces)} terms"
            return
        if not spec.on_embeddings:
            yield f"inputs: {', '.join(spec.inputs)}"
            yield from _optional(spec.optional_inputs)
        yield _distances(spec.distances, spec.default_distance or "that of the loss")
    elif isinstance(spec, ReducerSpec):
        yield f"reduces: {', '.join(spec.reduces)}"
        if spec.asks:
            yield f"takes losses that have the {' or '.join(spec.asks)} of each term"
    elif isinstance(spec, DistanceSpec):
        sort = "a similarity (larger is nearer)" if spec.similarity else "a distance (smaller is nearer)"
        yield f"{sort}, in [{spec.range[0]:g}, {spec.range[1]:g}]"
    if spec.schedulable:
        yield f"can move with the steps: {', '.join(spec.schedulable)}"
    if spec.needs:
        yield f"from its context: {', '.join(spec.needs)}"


def _optional(names: tuple[str, ...]) -> Iterator[str]:
    if names:
        yield f"by keyword, where wanted: {', '.join(names)}"


_BEYOND = {"positive": "beyond it", "negative": "within it"}


def _distances(distances: tuple[str, ...], default: str) -> str:
    if not distances:
        return "distances: none"
    return f"distances: {'any' if '*' in distances else ', '.join(distances)}" + (
        f"; default {default}" if default else ""
    )


def _properties(spec: PartSpec) -> Iterator[str]:
    if isinstance(spec, LossSpec):
        if spec.optimum is not None:
            yield f"a perfect input costs {spec.optimum:g}, with a gradient of zero"
        if spec.detached:
            yield f"its gradient is deliberately not that of its value: {spec.detached}"
        if spec.uses_norm:
            yield "its value depends on the length of the embeddings"
        if spec.invariances:
            *others, last = spec.invariances
            named = f"{', '.join(others)} and {last}" if others else last
            yield f"{named} of all boxes together leaves its value as it is"
        if spec.learning_rate != 1:
            yield f"what it learns wants {spec.learning_rate:g} times the learning rate of the network"
        if spec.separates:
            yield "it goes on growing as boxes that share nothing move apart"
    if isinstance(spec, DistanceSpec) and spec.metric:
        yield "it obeys the triangle inequality"
    if isinstance(spec, DistanceSpec) and not spec.symmetric:
        yield "from x to y it is not what it is from y to x"
    if isinstance(spec, ReducerSpec) and spec.keeps:
        yield "it keeps the terms as they are"
    if spec.definition:
        yield f"it agrees with a slow and plain definition, ``{spec.definition.replace(':', '.')}``"
    if spec.order_dependent:
        yield "its value depends on the order of the batch"
    if spec.random:
        yield "it draws random numbers"


_GROWTH = {1: "the batch", 2: "the square of the batch", 3: "the cube of the batch"}


def _cost(spec: PartSpec) -> Iterator[str]:
    if spec.memory is not None:
        yield f"memory: grows with {_GROWTH.get(spec.memory, f'the power {spec.memory} of the batch')}"
    if spec.synchronizations is not None:
        yield f"host synchronisations: {f'{spec.synchronizations} a call' if spec.synchronizations else 'none'}"


def _check(entry: Entry, registry: Registry) -> str:
    # With its kind where another kind has the name too, and the colons so that no longer name is meant.
    name = entry.full_name if len(registry.kinds_of(entry.full_name)) < 2 else f"{entry.full_name}.{entry.kind}"
    return f"nearfar check-plugin {entry.namespace} -k {name}::"


def _provided(entry: Entry) -> Iterator[str]:
    yield f"{entry.plugin.provider}, as ``{entry.spec.target.replace(':', '.')}``"
    if entry.spec.requires:
        yield f"it needs the distribution ``{entry.spec.requires}``"


# ---- how it is made


def _recipe(short: str, spec: PartSpec, signature: Signature) -> str:
    """A line that works, but for a ``…`` where the part cannot do without what the spec gives no example of."""
    arguments = spec.example
    given = _given(arguments, signature)
    examples = {"num_classes": 10, "embedding_size": 128, "image_size": 640}
    context = {n: v for n, v in examples.items() if n in spec.needs and n in signature and n not in given}
    if not arguments:
        arguments = ", ".join(f"{p.name}=…" for p in signature.parameters if p.required and p.name not in context)
    part = f"{short}({arguments})" if arguments else short
    written = repr(part) if '"' in part else f'"{part}"'
    if isinstance(spec, LossSpec):
        return f"nearfar.compose({written}{''.join(f', {name}={value}' for name, value in context.items())})"
    return f"nearfar.create_{spec.kind}({written})"


def _given(example: str, signature: Signature) -> set[str]:
    """The parameters an example gives; none where it cannot be read."""
    try:
        part = parse_part(f"example({example})")
        return set(signature.bind("example", part.positional, part.named))
    except NearfarError:
        return set()
