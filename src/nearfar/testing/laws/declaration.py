"""What the spec says is what the part does."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import NearfarError
from nearfar.grammar import Part
from nearfar.nn.reducers import Sum
from nearfar.nn.selection import IndexSelection
from nearfar.spec import EMBEDDING_INPUTS, MinerSpec
from nearfar.testing.exercise import results, same, tensors_in, usual
from nearfar.testing.law import LAWS, LawBroken, NotApplicable, law
from nearfar.testing.recorder import Recorder
from nearfar.testing.refusal import names_what_is_wrong
from nearfar.testing.scene import Scene
from nearfar.testing.sorts import every_sort, pairs, thinned, triplets
from nearfar.testing.subject import Subject, target_of
from nearfar.testing.variants import variants
from nearfar.told import told

_ALL = ("loss", "miner", "reducer", "distance")

# ---- what it names


@law(*_ALL, standalone=True)
def target_exists(subject: Subject) -> None:
    """The target is a class of torch modules, or a function that makes one; the definition and the sample are
    functions."""
    target = _imported(subject.spec.target, lambda: target_of(subject))
    if isinstance(target, type) and not issubclass(target, nn.Module):
        raise LawBroken(f"the target {subject.spec.target} is a class, but none of torch modules")
    for field in ("definition", "sample"):
        if where := getattr(subject.spec, field, ""):
            module, _, name = where.partition(":")
            _imported(where, functools.partial(_member, module, name))


def _member(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _imported(where: str, get: Callable[[], Any]) -> Any:
    try:
        found = get()
    except (Exception, SystemExit) as error:
        raise LawBroken(f"{where} cannot be imported: {told(error, only_own=True)}") from error
    if not callable(found):
        raise LawBroken(f"{where} is {found!r}, which cannot be called")
    return found


@law("loss", "miner", standalone=True)
def names_known(subject: Subject) -> None:
    """The distances, the defaults, the thresholds and the borrowed parameters that the spec names exist."""
    spec = subject.spec
    named = [("distance", name) for name in (*spec.distances, spec.default_distance) if name not in ("*", "")]
    if subject.kind == "loss" and subject.loss.default_reducer:
        named.append(("reducer", subject.loss.default_reducer))
    installed = {plugin.namespace for plugin in subject.registry.plugins}
    for kind, name in named:
        if "." in name and name.partition(".")[0] not in installed:  # another plugin's, to be installed beside it
            continue
        try:
            subject.registry.resolve(kind, name)
        except NearfarError as error:
            raise LawBroken(f"the spec names the {kind} {name!r}: {error}") from error
    for name in spec.thresholds:
        if name not in subject.signature:
            raise LawBroken(f"the spec has a threshold {name!r}, and the constructor no such parameter")
    for name in spec.borrows if isinstance(spec, MinerSpec) else ():
        if name not in subject.signature or subject.signature[name].default is not None:
            raise LawBroken(f"the spec has it borrow {name!r}, and the constructor no such parameter that may be None")


@law(*_ALL, standalone=True)
def expected_failures(subject: Subject) -> None:
    """Every expected failure names a check that there is, and says why."""
    for key, reason in subject.expected_failures.items():
        name, _, rest = key.partition("[")
        found = LAWS.get(name)
        if found is None or subject.kind not in found.kinds:
            raise LawBroken(f"expected_failures has {key!r}, and no law about a {subject.kind} is called {name!r}")
        cases = list(found.cases(subject)) if found.cases else [""]
        if (case := rest.removesuffix("]")) not in cases:
            listed = ", ".join(f"{name}[{each}]" if each else name for each in cases)
            raise LawBroken(f"expected_failures has {key!r}, and there are no checks of {name} but {listed or 'none'}")
        if not reason:
            raise LawBroken(f"expected_failures[{key!r}] does not say why{f' {case}' if case else ''}")


# ---- what it is called with


@law("loss", "miner")
def inputs_needed(subject: Subject) -> None:
    """A call without one of the inputs that the spec names is an error, and no number."""
    names = subject.spec.inputs
    if len(names) < 2:
        raise NotApplicable("it takes a single input")
    scene = usual(subject)
    # What is not on embeddings is called by place, so that only the last can be left out.
    for name in names[1:] if names[0] == "embeddings" else names[-1:]:
        found = _unless_refused(subject, scene.replace(**{name: None}))
        if found is not None:
            raise LawBroken(f"called without {name}, which the spec names among its inputs, it returns {_said(found)}")


@law("loss", standalone=True)
def optional_inputs(subject: Subject) -> None:
    """A call can do without each optional input that the spec names, takes it by name, and takes nothing else of the
    sort: what a call may have and the spec does not name would reach no term of a criterion."""
    taken = _by_default(target_of(subject))
    named = set(subject.loss.optional_inputs)
    if missing := sorted(named - set(taken)):
        raise LawBroken(f"the spec names the optional input {missing[0]!r}, and a call takes no such keyword")
    for name in sorted(named):
        if taken[name] is not None:
            raise LawBroken(f"without {name} a call takes it to be {taken[name]!r}; what is left out is None")
    known = {*named, *subject.loss.inputs, *EMBEDDING_INPUTS}
    if unnamed := [name for name in taken if name not in known]:
        raise LawBroken(f"a call takes {', '.join(unnamed)} by name, which the spec does not name an optional input")


def _by_default(target: Any) -> dict[str, Any]:
    """What a call of the parts may leave out, with what it then is."""
    forward = getattr(target, "forward", None)
    if forward is None:
        raise NotApplicable("the target is a function, and what its parts are called with is not known")
    parameters = inspect.signature(forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _unless_refused(subject: Subject, scene: Scene, **arguments: Any) -> list[Tensor] | None:
    """What a call gives; None where it raises."""
    part = subject.make(**arguments)
    try:
        if subject.kind == "loss" and not subject.loss.on_embeddings:
            return tensors_in(part(*scene.inputs.values()))
        return results(subject, part, scene)
    except Exception:
        return None


def _said(found: list[Tensor]) -> str:
    return f"{float(found[0]):.6g}" if len(found) == 1 and found[0].numel() == 1 else f"{len(found)} tensors"


_FORMS = {"pairs": pairs, "triplets": triplets}


def _selections(subject: Subject) -> tuple[str, ...]:
    if not subject.is_on_embeddings:
        return ()
    return (*_FORMS, "weights") if "weights" in subject.loss.accepts else (*_FORMS,)


@law("loss", cases=_selections)
def accepts(subject: Subject, case: str) -> None:
    """A selection of a kind that the spec accepts gives a finite value, and another than without; one of a kind that it
    does not accept is refused. As weights, it counts how often each sample was selected, and not with which others."""
    accepted = subject.loss.accepts
    if case == "weights":
        for scene in itertools.islice(_plain(subject), 3):
            _accept_weights(subject, scene)
        return
    if case not in accepted:
        if "weights" in accepted:
            raise NotApplicable("it accepts weights, and what those look like is between it and its miners")
        scene = usual(subject)
        if _unless_refused(subject, scene.replace(indices_tuple=_FORMS[case](scene))) is not None:
            raise LawBroken(f"given {case}, which the spec does not accept, it returns a value", scene)
        return
    for scene in _plain(subject):
        given = scene.replace(indices_tuple=thinned(thinned(_FORMS[case](scene), "negatives"), "positives"))
        value = subject.value(given)
        if not value.isfinite():
            raise LawBroken(f"of some of all {case} the value is {float(value)}", given)
        if not torch.allclose(value, subject.value(scene), rtol=1e-9):
            return
    raise LawBroken(f"some of all {case} cost what all do, in batches of every sort: the selection is ignored", scene)


def _accept_weights(subject: Subject, scene: Scene) -> None:
    """Whether samples selected as often cost as much, whatever they are put together with; and where each has a cost
    of its own, that many times its cost."""
    a, p, n = thinned(triplets(scene), "negatives")
    given, mixed = (scene.replace(indices_tuple=(a, p, others)) for others in (n, n.roll(1)))
    value, other = subject.value(given), subject.value(mixed)
    if not torch.allclose(value, other, rtol=1e-7):
        raise LawBroken(
            f"the spec says that it takes a selection as weights, but with the same samples put together otherwise it "
            f"costs {float(other):.8g} instead of {float(value):.8g}: it compares what was selected, so take weights "
            "out of accepts",
            mixed,
        )
    if subject.loss.emits == ("element",) and not subject.spec.random:
        _compare_weighted(subject, scene, given)


def _compare_weighted(subject: Subject, scene: Scene, given: Scene) -> None:
    """Whether what a selection costs is what each sample costs, times its weight: how often it was selected at all, or
    as an anchor alone, over the most that any was."""
    recorder = Recorder()
    subject.value(scene, reducer=recorder)
    rows = len(scene["labels"])
    if len(recorder.entries) != 1 or len(recorder.entries[0].values) != rows:
        return
    selection, values = IndexSelection(given["indices_tuple"]), recorder.entries[0].values.double()
    found = subject.value(given, reducer=Sum()).double()
    counted = [(selection.weights(rows, reference_is_batch=whole) * values).sum() for whole in (True, False)]
    if not any(torch.allclose(found, expected, rtol=1e-6) for expected in counted):
        raise LawBroken(
            f"reduced by core.sum a selection costs {float(found):.8g}; each sample weighted by how often it was "
            f"selected, over the most that any was, the cost is {float(counted[0]):.8g}",
            given,
            reducer=Part("core.sum"),
        )


def _plain(subject: Subject) -> Iterator[Scene]:
    """Batches of every sort, without a selection and a reference set."""
    yield from (scene for scene in every_sort(subject) if not {"indices_tuple", "ref_emb"} & set(scene.inputs))


@law("loss", cases=lambda subject: ("positives", "negatives") if {*_FORMS} & {*subject.loss.accepts} else ())
def selection_honoured(subject: Subject, case: str) -> None:
    """Fewer positives, or fewer negatives, in what a miner selected change the value."""
    if not subject.is_on_embeddings:
        raise NotApplicable("it is not on embeddings and labels")
    _require_use(subject, case)
    form = pairs if "pairs" in subject.loss.accepts else triplets
    for scene in _plain(subject):
        chosen = form(scene)
        full, fewer = (scene.replace(indices_tuple=each) for each in (chosen, thinned(chosen, case)))
        if not torch.allclose(subject.value(full), subject.value(fewer), rtol=1e-9):
            return
    raise LawBroken(
        f"some of the {case} taken out of a selection, it costs what it did, in batches of every sort", full
    )


def _require_use(subject: Subject, what: str) -> None:
    """Whether a loss looks at what is of another class at all; one that does not need not heed a choice of it."""
    if what == "positives":
        if subject.loss.emits == ("neg_pair",):
            raise NotApplicable("it emits negative pairs alone")
        return
    scene = usual(subject)
    labels = scene["labels"].clone()
    lone = int(scene["embeddings"].norm(dim=1).argmax())
    labels[lone] = 4  # a class of its own, so that it is nobody's positive
    moved = scene["embeddings"].clone()
    moved[lone] = -moved[lone]
    alone = scene.replace(labels=labels)
    if _unmoved(subject, alone, alone.replace(embeddings=moved)):
        raise NotApplicable("it looks at no negatives")


def _unmoved(subject: Subject, first: Scene, second: Scene) -> bool:
    """Whether two scenes cost the same; no where one of them is refused."""
    try:
        return torch.equal(subject.value(first), subject.value(second))
    except Exception:
        return False


@law("loss", cases=lambda subject: variants(subject) if subject.is_on_embeddings and subject.loss.reference else ("",))
def reference_used(subject: Subject, case: str = "") -> None:
    """A reference set, larger or smaller than the batch, is what embeddings are compared with: another gives another
    value. A loss that takes none refuses one by name."""
    if not subject.is_on_embeddings:
        raise NotApplicable("it is not on embeddings and labels")
    arguments = variants(subject).get(case, {})
    if not subject.loss.reference:
        _expect_refusal(subject, usual(subject))
        return
    for per_class, size in ((5, "larger"), (2, "smaller")):
        unused = {"other references", "other labels of the references"}
        for scene in _plain(subject):
            given, other = (subject.with_reference(scene, per_class=per_class, seed=seed) for seed in (1, 2))
            value = _value(subject, given, f"with a reference set {size} than the batch", arguments)
            named = given.replace(ref_labels=given["ref_labels"].roll(1))
            for changed, what in ((other, "other references"), (named, "other labels of the references")):
                if not torch.equal(value, subject.value(changed, **arguments)):
                    unused.discard(what)
            if not unused:
                break
        if unused:
            what = " and ".join(sorted(unused))
            raise LawBroken(f"{what}, of a set {size} than the batch, leave the value as it is", given, **arguments)


def _expect_refusal(subject: Subject, scene: Scene) -> None:
    for per_class in (5, 2):
        given = subject.with_reference(scene, per_class=per_class)
        try:
            found = results(subject, subject.make(), given)
        except Exception as error:
            # Python's own words against an argument that a call does not have.
            if names_what_is_wrong(subject, error) or (isinstance(error, TypeError) and "ref_emb" in str(error)):
                continue
            raise LawBroken(
                f"the spec says that it takes no reference set; given one it raises {told(error)}; "
                "an error by name is due",
                given,
            ) from error
        raise LawBroken(f"the spec says that it takes no reference set; given one it returns {_said(found)}", given)


def _value(subject: Subject, scene: Scene, what: str, arguments: dict[str, Any]) -> Tensor:
    try:
        value = subject.value(scene, **arguments)
    except LawBroken:
        raise
    except Exception as error:
        raise LawBroken(f"{what} it raises {told(error)}", scene, **arguments) from error
    if not value.isfinite():
        raise LawBroken(f"{what} the value is {float(value)}", scene, **arguments)
    return value


# ---- what it depends on


@law("loss", "miner", cases=variants)
def chance(subject: Subject, case: str = "") -> None:
    """Two calls that differ only in where random generators start give the same, unless the spec declares the part
    random; then they differ somewhere. Where they start the same, calls are the same."""
    if subject.kind == "miner" and not subject.spec.random:
        raise NotApplicable("it declares no chance, and mining_chance holds it to that")
    arguments = variants(subject)[case]
    first, second = (results(subject, subject.make(**arguments), usual(subject)) for _ in range(2))
    if not same(first, second):
        raise LawBroken(
            "two calls of two parts made alike differ, though the generators of torch, numpy and Python start the "
            "same: it draws from a generator that nothing starts, or what one part keeps is another's too",
            usual(subject),
            **arguments,
        )
    if not subject.spec.random:
        scene = usual(subject)
        if _differs(subject, scene, arguments):
            raise LawBroken(
                "calls differ when random generators start differently; declare it random", scene, **arguments
            )
    elif not any(_differs(subject, scene, arguments) for scene in every_sort(subject)):
        raise LawBroken("the spec declares it random, and calls are the same wherever random generators start")


def _differs(subject: Subject, scene: Scene, arguments: dict[str, Any]) -> bool:
    """Whether calls of parts made alike differ by where random generators start when they are called."""
    count = 6 if subject.spec.random else 3
    starts = [dataclasses.replace(subject, seed=subject.seed + n) for n in range(count)]
    found = [results(start, subject.make(**arguments), scene) for start in starts]
    return not all(same(found[0], each) for each in found)


@law("miner")
def order_dependent(subject: Subject) -> None:
    """A miner that declares that the order of the batch counts selects something else in another order, somewhere."""
    if not subject.miner.order_dependent:
        raise NotApplicable("it declares no dependence on the order of the batch, and is held to that")
    for scene in every_sort(subject):
        rows = len(scene["labels"])
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(subject.seed))
        moved = scene.replace(embeddings=scene["embeddings"][order], labels=scene["labels"][order])
        if "ref_emb" not in scene and _chosen(subject, moved, order) != _chosen(subject, scene, torch.arange(rows)):
            return
    raise LawBroken("the spec declares that the order of the batch counts; in any other it selects the same", scene)


def _chosen(subject: Subject, scene: Scene, order: Tensor) -> list[set[tuple[int, ...]]]:
    """What a miner selects, by the places that the samples had before they were put in order."""
    found = [order[index] for index in results(subject, subject.make(), scene)]
    halves = [found[:2], found[2:]] if len(found) == 4 else [found]
    return [set(zip(*(index.tolist() for index in half), strict=True)) for half in halves]
