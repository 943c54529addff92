"""Whether parts go together: what a miner gives and a loss takes, what a loss gives and a reducer takes.

Each check yields the problems it finds; none stops at the first.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from nearfar.errors import NearfarError
from nearfar.plan import PlannedPart, PlannedTerm, Problem
from nearfar.registry import Entry, Registry
from nearfar.schedule import Schedule
from nearfar.signature import Signature
from nearfar.spec import DistanceSpec, LossSpec, MinerSpec, ReducerSpec

__all__ = ["check_loss", "check_miner", "check_sum", "check_thresholds"]


def _error(message: str) -> Problem:
    return Problem("error", message)


def check_loss(
    planned: PlannedPart, slots: Mapping[str, Any], signature: Signature, registry: Registry
) -> Iterator[Problem]:
    """Whether a loss, its miner, its reducer and its distance go together."""
    spec, name = planned.entry.spec, registry.short_name(planned.entry)
    assert isinstance(spec, LossSpec)
    # A miner that the loss's own constructor takes is the loss's business.
    if slots["miner"] is not None and "miner" not in planned.arguments:
        wrong = [*_check_miner(name, spec, slots["miner"])]
        yield from wrong or _check_borrowed(name, planned, slots["miner"], signature)
    if slots["reducer"] is not None:
        yield from _check_reducer(name, spec, slots["reducer"])
    if slots["distance"] is not None:
        yield from _check_distance(name, spec, slots["distance"])
    yield from check_thresholds(planned, slots["distance"], signature, registry)
    for inner in _inner_losses((*planned.variadic, *planned.arguments.values())):
        if not any(fnmatch.fnmatchcase(inner.entry.full_name, pattern) for pattern in spec.wraps):
            yield _error(f"{name} takes {' or '.join(spec.wraps)} only, not {inner.entry.full_name}")
    yield from _check_asked(name, spec, planned)


def _check_asked(name: str, spec: LossSpec, planned: PlannedPart) -> Iterator[Problem]:
    """Whether the losses inside, and those inside them, are what a loss around them asks for."""
    for inner in _inner_losses((*planned.variadic, *planned.arguments.values())):
        found = inner.entry.spec
        assert isinstance(found, LossSpec)
        if "embeddings" in spec.asks and not found.on_embeddings:
            yield _error(f"{name} is around losses on embeddings, and {found.name} takes {', '.join(found.inputs)}")
        elif "reference" in spec.asks and not (found.reference or "ref_emb" in found.inputs):
            yield _error(f"{name} is around losses that take a reference set, and {inner.entry.full_name} takes none")
        else:
            yield from _check_asked(name, spec, inner)


def _inner_losses(values: Iterable[Any]) -> Iterator[PlannedPart]:
    for value in values:
        if isinstance(value, PlannedPart) and value.entry.kind == "loss":
            yield value
        elif isinstance(value, list | tuple):
            yield from _inner_losses(value)
        elif isinstance(value, Mapping):
            yield from _inner_losses(value.values())


def _check_miner(name: str, spec: LossSpec, miner: Any) -> Iterator[Problem]:
    label = _label(miner)
    known = miner.entry.spec if isinstance(miner, PlannedPart) else None
    assert known is None or isinstance(known, MinerSpec)
    # Of an object nothing is known but what it says itself.
    produces = known.produces if known is not None else getattr(getattr(miner, "value", None), "produces", "")
    if produces == "elements":
        if not spec.reducible:
            yield _error(f"{name} reduces itself, so there are no terms for {label} to choose among")
        elif known is not None and (cannot := [kind for kind in spec.emits if kind not in known.reduces]):
            yield _error(f"{known.name} does not choose among {' or '.join(cannot)} terms, which {name} emits")
        inner = miner.arguments.get("miner") if isinstance(miner, PlannedPart) else None
        if inner is not None:
            yield from _check_miner(name, spec, inner)
    elif produces == "matches":
        if "matches" not in spec.accepts:
            yield _error(f"{label} matches boxes, and {name} takes {', '.join(spec.inputs)}: leave the miner out")
    elif not spec.on_embeddings:
        yield _error(
            f"{name} takes {', '.join(spec.inputs)}, and {label} selects among embeddings: leave the miner out"
        )
    elif not spec.accepts:
        yield _error(f"{name} takes no miner; {label} would be ignored")
    elif known is not None and known.produces not in spec.accepts:
        accepts = " or ".join(spec.accepts)
        yield _error(f"{known.name} produces {known.produces}, but {name} accepts {accepts}")


def _check_borrowed(name: str, planned: PlannedPart, miner: Any, signature: Signature) -> Iterator[Problem]:
    """Whether the loss has what its miner takes from it where it is not given."""
    spec = miner.entry.spec if isinstance(miner, PlannedPart) else None
    # A loss around others hands its miner to them.
    if isinstance(spec, MinerSpec) and not [*_inner_losses((*planned.variadic, *planned.arguments.values()))]:
        for borrowed in spec.borrows:
            if miner.arguments.get(borrowed) is None and borrowed not in signature:
                yield _error(
                    f"{spec.name} has no {borrowed} of its own, nor has {name}: write {spec.name}({borrowed}=…)"
                )


def check_miner(planned: PlannedPart, distance: Any, registry: Registry) -> Iterator[Problem]:
    """Whether a miner and its distance go together: boxes are compared as boxes, embeddings as embeddings."""
    spec = planned.entry.spec
    assert isinstance(spec, MinerSpec)
    if not isinstance(distance, PlannedPart):
        return
    name, on = registry.short_name(planned.entry), _compared(distance)
    if (on == "embeddings") != spec.on_embeddings:
        compared = "embeddings" if spec.on_embeddings else "boxes"
        yield _error(f"{name} compares {compared}, and {_label(distance)} compares {on.replace('_', ' ')}")


def _check_reducer(name: str, spec: LossSpec, reducer: Any) -> Iterator[Problem]:
    if not spec.reducible:
        yield _error(f"{name} reduces itself; the reducer {_label(reducer)} would be ignored")
    elif isinstance(reducer, PlannedPart):
        reducer_spec = reducer.entry.spec
        assert isinstance(reducer_spec, ReducerSpec)
        if cannot := [kind for kind in spec.emits if kind not in (*reducer_spec.reduces, "already_reduced")]:
            yield _error(f"{reducer_spec.name} does not reduce {' or '.join(cannot)} terms, which {name} emits")
        elif reducer_spec.asks and not {*reducer_spec.asks} & {*spec.tells}:
            asked, inputs = " or ".join(reducer_spec.asks), ", ".join(spec.inputs)
            yield _error(
                f"{reducer_spec.name} asks for the {asked} of each term, and {name}, which takes {inputs}, has none: "
                "choose another reducer"
            )


def _check_distance(name: str, spec: LossSpec, distance: Any) -> Iterator[Problem]:
    if not spec.distances:
        yield _error(f"{name} works on no distance; {_label(distance)} would be ignored")
    elif isinstance(distance, PlannedPart) and "*" not in spec.distances:
        names = {distance.entry.spec.name, distance.entry.full_name}
        if not names & set(spec.distances):
            yield _error(f"{name} works on {' or '.join(spec.distances)}, not on {_label(distance)}")
    elif isinstance(distance, PlannedPart) and (on := _compared(distance)) != "embeddings":
        yield _error(f"{name} compares embeddings, and {_label(distance)} compares {on.replace('_', ' ')}")


def _compared(distance: PlannedPart) -> str:
    spec = distance.entry.spec
    assert isinstance(spec, DistanceSpec)
    return spec.on


def _label(part: Any) -> str:
    return part.entry.full_name if isinstance(part, PlannedPart) else str(part)


def check_thresholds(
    planned: PlannedPart, distance: Any, signature: Signature, registry: Registry
) -> Iterator[Problem]:
    """Margins that no distance of the range can violate: collapsed embeddings would cost nothing."""
    spec = planned.entry.spec
    assert isinstance(spec, LossSpec | MinerSpec)
    distance_spec = _distance_spec(distance, spec.default_distance, registry)
    for name, role in spec.thresholds.items() if distance_spec is not None else ():
        assert distance_spec is not None
        value = planned.arguments.get(name, signature[name].default if name in signature else None)
        value = value.end if isinstance(value, Schedule) else value
        if role != "negative" or not isinstance(value, int | float):
            continue
        nearest, similarity = distance_spec.nearest, distance_spec.similarity
        if nearest <= value if similarity else nearest >= value:
            sort = "similarity" if similarity else "distance"
            low, high = distance_spec.range
            yield Problem(
                "warning",
                f"{registry.short_name(planned.entry)}: no {distance_spec.name} {sort} (in {low:g}..{high:g}) of a "
                f"negative pair violates {name} = {value!r}, so embeddings collapsed to a point cost nothing; "
                f"choose {name} {'below' if similarity else 'above'} {nearest:g}",
            )


def _distance_spec(distance: Any, default: str, registry: Registry) -> DistanceSpec | None:
    """What is known of the distance in use; nothing of a live object."""
    if isinstance(distance, PlannedPart):
        spec = distance.entry.spec
    elif distance is None and default:
        try:
            spec = registry.resolve("distance", default).spec
        except NearfarError:
            return None
    else:
        return None
    return spec if isinstance(spec, DistanceSpec) else None


def check_sum(
    terms: Iterable[PlannedTerm], registry: Registry, signature_of: Callable[[Entry], Signature]
) -> Iterator[Problem]:
    """Whether the terms of a sum go together."""
    planned = [term.loss for term in terms if isinstance(term.loss, PlannedPart)]
    on_embeddings = [p for p in planned if isinstance(p.entry.spec, LossSpec) and p.entry.spec.on_embeddings]
    centers = [p for p in on_embeddings if p.entry.spec.family == "center"]
    others = [p for p in on_embeddings if p not in centers]
    raw = [p for p in centers if _uses_norm(p)]
    if raw and others and not any(_uses_norm(p) for p in others):
        # Of a part that takes it, what makes it mind directions only is one word.
        takes = "normalize" in signature_of(raw[0].entry)
        instead = f"say {registry.short_name(raw[0].entry)}(normalize=True), or " if takes else ""
        name, partners = registry.short_name(raw[0].entry), ", ".join(registry.short_name(p.entry) for p in others)
        yield Problem(
            "warning",
            f"{name} pulls embeddings as they are, and {partners} ignores their length: together they shrink "
            f"embeddings to 0; {instead}pair it with a loss on unnormalised embeddings, such as softmax",
        )
    for p in planned if len(planned) > 1 else ():
        reducer = p.arguments.get("reducer", p.attributes.get("reducer"))
        if (
            isinstance(reducer, PlannedPart)
            and isinstance(reducer.entry.spec, ReducerSpec)
            and reducer.entry.spec.keeps
        ):
            yield _error(
                f"{registry.short_name(p.entry)} is left unreduced by {reducer.entry.spec.name}, "
                f"so it cannot be added to other terms"
            )


def _uses_norm(planned: PlannedPart) -> bool:
    spec = planned.entry.spec
    assert isinstance(spec, LossSpec)
    distance = planned.arguments.get("distance", planned.attributes.get("distance"))
    if isinstance(distance, PlannedPart):
        return distance.entry.spec.name == "dot" or distance.arguments.get("normalize") is False
    # A center loss that scales embeddings to length one first.
    return spec.uses_norm and planned.arguments.get("normalize") is not True
