"""Everything there is to say of a part, from its spec and its docstring alone."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nearfar.planner import signature_of
from nearfar.registry import Entry, Registry
from nearfar.signature import Parameter, Signature
from nearfar.spec import DistanceSpec, LossSpec, MinerSpec, PartSpec, ReducerSpec

__all__ = ["Description", "describe"]


@dataclass(frozen=True, slots=True)
class Description:
    """A part in words, as ``nearfar show`` prints it and a page of the catalogue holds it."""

    full_name: str
    kind: str
    provider: str
    family: str
    summary: str
    formula: str
    parameters: tuple[Parameter, ...]
    composes: tuple[str, ...]
    presets: Mapping[str, str]
    deviations: tuple[str, ...]
    defects: tuple[str, ...]
    paper: str
    names: tuple[str, ...]
    recipe: str
    docstring: str
    spec: PartSpec

    def to_dict(self) -> dict[str, Any]:
        """As JSON-serialisable data."""
        parameters = [
            {
                "name": p.name,
                "default": None if p.required else p.default if _is_plain(p.default) else repr(p.default),
                "required": p.required,
                "unit": p.unit,
                "low": _finite(p.low),
                "high": _finite(p.high),
                "annotation": p.annotation,
                "description": p.description,
            }
            for p in self.parameters
        ]
        spec = self.spec.to_dict()
        return {
            "full_name": self.full_name,
            "provider": self.provider,
            "formula": self.formula,
            "parameters": parameters,
            "composes": list(self.composes),
            "recipe": self.recipe,
        } | spec


def describe(entry: Entry, registry: Registry) -> Description:
    """Describe an entry; its target is read, not imported."""
    spec = entry.spec
    signature = signature_of(entry)
    short = registry.short_name(entry)
    return Description(
        full_name=entry.full_name,
        kind=spec.kind,
        provider=entry.plugin.provider,
        family=spec.family,
        summary=spec.summary,
        formula=_formula(signature.docstring),
        parameters=tuple(p for p in signature.parameters if not p.variadic),
        composes=_composes(spec),
        presets={
            name: f"{', '.join(f'{k}={v!r}' for k, v in preset.arguments.items())} — {preset.source}"
            for name, preset in spec.presets.items()
        },
        deviations=spec.deviations,
        defects=spec.defects,
        paper=str(spec.paper) if spec.paper else "",
        names=(*spec.aliases, *(f"{name} (former)" for name in spec.deprecated)),
        recipe=_recipe(short, spec, signature),
        docstring=signature.docstring,
        spec=spec,
    )


_MATH = re.compile(r"^\.\. math::[ \t]*(.*)\n((?:[ \t]*\n|[ \t]+\S.*\n?)*)", re.MULTILINE)


def _formula(docstring: str) -> str:
    """The ``.. math::`` blocks of a docstring, as they are written."""
    blocks = []
    for match in _MATH.finditer(docstring + "\n"):
        inline, block = match.group(1).strip(), textwrap.dedent(match.group(2)).strip()
        blocks.append("\n".join(piece for piece in (inline, block) if piece))
    return "\n\n".join(blocks)


def _composes(spec: PartSpec) -> tuple[str, ...]:
    lines: list[str] = []
    if isinstance(spec, LossSpec):
        lines.append(f"inputs: {', '.join(spec.inputs)}" + (", and a reference set" if spec.reference else ""))
        lines.append(f"miners: {'those that produce ' + ' or '.join(spec.accepts) if spec.accepts else 'none'}")
        emits = f"any that reduces {' and '.join(spec.emits)}" if spec.reducible else "none, it reduces itself"
        lines.append(f"reducers: {emits}" + (f"; default {spec.default_reducer}" if spec.reducible else ""))
        lines.append(_distances(spec.distances, spec.default_distance))
        if spec.needs:
            lines.append(f"from its context: {', '.join(spec.needs)}")
    elif isinstance(spec, MinerSpec):
        lines.append(f"produces: {spec.produces}")
        lines.append(_distances(spec.distances, spec.default_distance or "that of the loss"))
    elif isinstance(spec, ReducerSpec):
        lines.append(f"reduces: {', '.join(spec.reduces)}")
    elif isinstance(spec, DistanceSpec):
        sort = "a similarity (larger is nearer)" if spec.similarity else "a distance (smaller is nearer)"
        lines.append(f"{sort}, in [{spec.range[0]:g}, {spec.range[1]:g}]")
    if spec.random:
        lines.append("draws random numbers")
    if spec.order_dependent:
        lines.append("its value depends on the order of the batch")
    return tuple(lines)


def _distances(distances: tuple[str, ...], default: str) -> str:
    if not distances:
        return "distances: none"
    return f"distances: {'any' if '*' in distances else ', '.join(distances)}" + (
        f"; default {default}" if default else ""
    )


def _recipe(short: str, spec: PartSpec, signature: Signature) -> str:
    """A line that works once the context, and where it has an ``…`` what the part cannot do without, is filled in."""
    examples = {"num_classes": 10, "embedding_size": 128}
    named = {name: examples[name] for name in spec.needs if name in examples and name in signature}
    required = ", ".join(f"{p.name}=…" for p in signature.parameters if p.required and p.name not in named)
    part = f"{short}({required})" if required else short
    if isinstance(spec, LossSpec):
        context = "".join(f", {name}={value}" for name, value in named.items())
        return f'nearfar.compose("{part}"{context})'
    return f'nearfar.create_{spec.kind}("{part}")'


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _finite(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    return str(value) if value is not None and abs(value) == float("inf") else value
