"""Laws of miners."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor, nn

from nearfar.build import make_part
from nearfar.grammar import Part, parse_part
from nearfar.testing.definition import definition_of
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.refusal import names_what_is_wrong
from nearfar.testing.scene import Scene
from nearfar.testing.search import for_all, scenes
from nearfar.testing.selections import Chosen, as_set, difference, malformed, renamed, signed_pairs, undirected
from nearfar.testing.subject import Subject, seeded
from nearfar.testing.variants import variants

#: The distance of a miner that says nothing of its own.
_EUCLIDEAN = "core.euclidean"
#: Distances that are exact on whole numbers, so that ties are ties whichever way they are computed.
_EXACT = ("core.squared_euclidean(normalize=False)", "core.dot")


# ---- what a miner returns


@law("miner")
def produces(subject: Subject) -> None:
    """A miner of triplets returns three index tensors, a miner of pairs four."""
    expected = {"triplets": 3, "pairs": 4}.get(subject.miner.produces)
    if expected is None:
        raise NotApplicable(f"nothing is known of a miner that produces {subject.miner.produces}")
    scene = subject.scene()
    found = subject.call(subject.make(), scene)
    if not isinstance(found, Sequence) or len(found) != expected:
        count = f"{len(found)} tensors" if isinstance(found, Sequence) else f"a {type(found).__name__}"
        raise LawBroken(
            f"the spec says that it produces {subject.miner.produces}, so {expected} tensors; it returned {count}",
            scene,
        )


@law("miner", cases=variants)
def selection(subject: Subject, case: str = "") -> None:
    """A selection is int64 indices of the batch and the reference set, on the device of the embeddings; those that
    belong together are as many."""
    arguments = variants(subject)[case]

    def holds(scene: Scene, device: str) -> None:
        for given in _with_and_without_reference(subject, scene):
            given = given.replace(**{name: value.to(device) for name, value in given.inputs.items()})
            if wrong := malformed(subject.call(subject.make(**arguments).to(device), given), given):
                raise LawBroken(wrong, given, **arguments)

    for_all(subject, functools.partial(holds, device="cpu"), examples=6, scene=_scenes(subject))
    if torch.cuda.is_available():
        holds(subject.scene(), "cuda")


@law("miner", cases=variants)
def signs(subject: Subject, case: str = "") -> None:
    """Within a batch a positive has the label of its anchor and is not the anchor itself; a negative has another."""
    _refuse_order(subject, "its choice is of places in the batch, whatever the labels")
    arguments = variants(subject)[case]

    def holds(scene: Scene) -> None:
        by_itself = scene.replace(ref_emb=scene["embeddings"], ref_labels=scene["labels"])
        for given in (scene, by_itself) if subject.miner.reference else (scene,):
            for sign, anchor, other in signed_pairs(_chosen(subject, given, **arguments)):
                _check_sign(given, sign, anchor, other, "labels", arguments)
                if anchor == other:
                    raise LawBroken(f"element {anchor} is its own {sign}", given, **arguments)

    for_all(subject, holds, examples=6, scene=scenes(subject))


@law("miner", cases=variants)
def mining_reference(subject: Subject, case: str = "") -> None:
    """Positives and negatives come from the reference set where there is one, wherever in it they are; a miner that
    takes none says so when it is given one."""
    arguments = variants(subject)[case]
    if not subject.miner.reference:
        _expect_refusal(subject, arguments)
        return
    _refuse_order(subject, "its choice is of places in the batch, whatever the labels")

    def holds(scene: Scene, seed: int) -> None:
        given = subject.with_reference(scene, per_class=5, seed=seed)
        copy = scene.replace(ref_emb=scene["embeddings"].clone(), ref_labels=scene["labels"].clone())
        for each in (given, copy):
            for sign, anchor, other in signed_pairs(_chosen(subject, each, **arguments)):
                _check_sign(each, sign, anchor, other, "ref_labels", arguments)
        if subject.miner.random or subject.miner.order_dependent:
            return
        order = _permutation(len(given["ref_labels"]), seed)
        permuted = given.replace(ref_emb=given["ref_emb"][order], ref_labels=given["ref_labels"][order])
        expected = _chosen(subject, given, **arguments)
        found = renamed(_chosen(subject, permuted, **arguments), lambda anchor: anchor, order.tolist().__getitem__)
        _compare(found, expected, "with the reference set in another order it selects", given, arguments)

    for_all(subject, holds, examples=4, scene=scenes(subject), seed=st.integers(0, 2**16))


# ---- what it may depend on


@law("miner")
def mining_chance(subject: Subject) -> None:
    """The same batch gives the same selection when random generators start alike; a miner that does not declare
    itself random gives it however they start."""
    scene = subject.scene()
    seeds = (subject.seed, subject.seed if subject.miner.random else subject.seed + 1)
    first, second = (_sound(dataclasses.replace(subject, seed=s).call(subject.make(), scene), scene) for s in seeds)
    if not all(map(torch.equal, first, second)):
        how = "start alike" if subject.miner.random else "start differently; declare it random"
        raise LawBroken(f"two calls select differently when random generators {how}", scene)


@law("miner", cases=variants)
def mining_permutation(subject: Subject, case: str = "") -> None:
    """A batch in another order gives the same selection, by other indices."""
    if subject.miner.random:
        raise NotApplicable("it draws random numbers")
    _refuse_order(subject, "it depends on the order of the batch, as it says")
    arguments = variants(subject)[case]

    def holds(scene: Scene, seed: int) -> None:
        order = _permutation(len(scene["labels"]), seed)
        name = order.tolist().__getitem__
        permuted = scene.replace(embeddings=scene["embeddings"][order], labels=scene["labels"][order])
        expected = undirected(_chosen(subject, scene, **arguments))
        found = undirected(renamed(_chosen(subject, permuted, **arguments), name, name))
        _compare(found, expected, f"in the order {order.tolist()} it selects", scene, arguments)

    for_all(subject, holds, examples=5, scene=scenes(subject), seed=st.integers(0, 2**16))


@law("miner")
def mining_relabelling(subject: Subject) -> None:
    """Other names for the classes leave the selection as it is."""
    if subject.miner.random:
        raise NotApplicable("it draws random numbers, and may draw them class by class")

    def holds(scene: Scene, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        names = torch.randperm(100, generator=generator)[: int(scene["labels"].max()) + 1] * 7
        found = _chosen(subject, scene.replace(labels=names[scene["labels"]]))
        expected = _chosen(subject, scene)
        _compare(found, expected, f"with classes called {names.tolist()} it selects", scene, {})

    for_all(subject, holds, examples=5, scene=_scenes(subject), seed=st.integers(0, 2**16))


@law("miner")
def mining_untouched(subject: Subject) -> None:
    """A call leaves embeddings and labels as they are, and keeps nothing of their gradient's graph."""
    scene = subject.scene()
    scene = scene.replace(labels=scene["labels"] + 1)  # taking the least label away has to show
    if subject.miner.reference:
        scene = subject.with_reference(scene)
    before = {name: value.clone() for name, value in scene.inputs.items()}
    leaves = scene.with_gradients()
    # A function of the leaves, as embeddings are of a network: what is kept of it keeps the network's memory.
    attached = leaves.replace(**{n: v * 1 for n, v in leaves.inputs.items() if v.requires_grad})
    part = subject.make()
    subject.call(part, attached)
    for name, value in attached.inputs.items():
        if not torch.equal(value.detach(), before[name]):
            raise LawBroken(f"the call changed {name} in place", scene)
    for module in part.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                raise LawBroken(
                    f"the miner keeps {name} with its gradient's graph, and so the memory of the step", scene
                )


@law("miner")
def mining_thresholds(subject: Subject) -> None:
    """A threshold that the spec calls positive or negative is on the distance itself: the farther out it is, the fewer
    positive pairs lie beyond, and the more negative pairs within."""
    if not subject.miner.thresholds:
        raise NotApplicable("it compares nothing with a distance itself")
    if subject.miner.random:
        raise NotApplicable("it draws random numbers")
    scene = subject.scene(per_class=4)
    distance = _distance(subject, subject.miner.default_distance or _EUCLIDEAN)
    values = distance(scene["embeddings"]).flatten()
    outwards = torch.quantile(values, torch.tensor([0.3, 0.5, 0.7]).to(values)).tolist()
    outwards = outwards[::-1] if distance.is_inverted else outwards
    for name, role in subject.miner.thresholds.items():
        chosen = [
            {pair for pair in signed_pairs(_chosen(subject, scene, **{name: level})) if pair[0] == role}
            for level in outwards
        ]
        few, some, many = reversed(chosen) if role == "positive" else chosen
        if not few <= some <= many or few == many:
            counts = ", ".join(f"{len(c)} at {level:.3f}" for level, c in zip(outwards, chosen, strict=True))
            raise LawBroken(
                f"{name} is declared a {role} threshold, but farther out there are not "
                f"{'fewer' if role == 'positive' else 'more'} {role} pairs, taken from or added to those there were: "
                f"{counts}",
                scene,
            )


# ---- what it selects


@law("miner")
def mining_for_loss(subject: Subject) -> None:
    """What a miner leaves unset it takes from the loss it selects for, and selects what it would with that set."""
    if not hasattr(subject.make(), "select"):
        raise NotApplicable("it has no select(…, loss=…)")
    signature = subject.signature
    unset = [n for n in subject.example if n in signature and signature[n].default is None and n != "distance"]
    loss = _Stand({name: subject.example[name] for name in unset})
    names = [n for n in _distances(subject) if signature["distance"].default is None] or [""]

    def holds(scene: Scene, name: str) -> None:
        given = {"distance": _distance(subject, name)} if name else {}
        loss.distance = given.get("distance")
        nothing: dict[str, Any] = dict.fromkeys(unset)
        bare: Any = subject.make(**nothing)
        with seeded(subject.seed):
            found = as_set(bare.select(*scene.inputs.values(), loss=loss).indices())
        expected = as_set(subject.call(subject.make(**given), scene))
        _compare(found, expected, f"for a loss on {name or 'no distance'} it selects", scene, {})

    for name in names:
        for_all(subject, functools.partial(holds, name=name), examples=2, scene=_scenes(subject))


class _Stand(nn.Module):
    """Stands for a loss: what a miner may read of it."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        super().__init__()
        self.distance: nn.Module | None = None
        for name, value in attributes.items():
            setattr(self, name, value)


@law("miner", cases=variants)
def selected_as_defined(subject: Subject, case: str = "") -> None:
    """The selection is that of its definition: within the batch and from a reference set, on every distance, where
    distances tie, and in half precision."""
    if subject.miner.random:
        raise NotApplicable("it draws random numbers")
    arguments = variants(subject)[case]
    default = subject.example.get("distance") or subject.miner.default_distance or _EUCLIDEAN
    definition = definition_of(subject, arguments, distance=_by_rows(subject, default))

    def holds(scene: Scene, name: str | None) -> None:
        given, define = arguments, definition
        if name is not None:
            given = {**arguments, "distance": _distance(subject, name)}
            define = functools.partial(definition, distance=_by_rows(subject, name))
        for each in _with_and_without_reference(subject, scene):
            wide = each.to(torch.float64)
            inputs = [wide.inputs.get(n) for n in ("embeddings", "labels", "ref_emb", "ref_labels")]
            expected = frozenset(map(tuple, define(*inputs)))
            found = _chosen(subject, each, **given)
            _compare(found, expected, f"by its definition{f' on {name}' if name else ''} it selects", each, given)

    for_all(subject, functools.partial(holds, name=None), examples=3, scene=_scenes(subject))
    for name in _distances(subject) if "distance" in definition.keywords else ():
        holds(subject.scene(), name)
        if name in _EXACT:
            for dtype in (torch.float64, torch.float16, torch.bfloat16):
                holds(_grid(subject).to(dtype), name)


# ---- shared


def _scenes(subject: Subject) -> SearchStrategy[Scene]:
    """Any batch; for a miner of places in the batch only one of the size that every kind of packing divides."""
    return st.just(subject.scene()) if subject.miner.order_dependent else scenes(subject)


def _refuse_order(subject: Subject, why: str) -> None:
    if subject.miner.order_dependent:
        raise NotApplicable(why)


def _with_and_without_reference(subject: Subject, scene: Scene) -> Iterator[Scene]:
    yield scene
    if subject.miner.reference:
        reference = subject.with_reference(scene, per_class=5)
        whole = bool((scene["embeddings"] == scene["embeddings"].round()).all())
        yield reference.replace(ref_emb=reference["ref_emb"].round().clamp(-2, 2)) if whole else reference


def _grid(subject: Subject) -> Scene:
    """A batch of small whole numbers in few dimensions: many distances tie exactly."""
    scene = subject.scene()
    embeddings = scene["embeddings"].round().clamp(-2, 2)
    embeddings[:, 2:] = 0
    return scene.replace(embeddings=embeddings)


def _sound(found: Any, scene: Scene) -> Sequence[Tensor]:
    """What a miner returned; other laws than `selection` say nothing of it where it is malformed."""
    if malformed(found, scene):
        raise NotApplicable("what it returns is no selection; see the law `selection`")
    return found  # type: ignore[no-any-return]


def _chosen(subject: Subject, scene: Scene, **arguments: Any) -> Chosen:
    """What a freshly made miner selects, as a set."""
    return as_set(_sound(subject.call(subject.make(**arguments), scene), scene))


def _check_sign(scene: Scene, sign: str, anchor: int, other: int, labels: str, arguments: dict[str, Any]) -> None:
    own, found = int(scene["labels"][anchor]), int(scene[labels][other])
    if (own == found) != (sign == "positive"):
        raise LawBroken(
            f"anchor {anchor} of class {own} has {other} of class {found} ({labels}) as a {sign}", scene, **arguments
        )


def _compare(found: Chosen, expected: Chosen, how: str, scene: Scene, arguments: dict[str, Any]) -> None:
    if found != expected:
        raise LawBroken(f"{how} other than it should: {difference(found, expected)}", scene, **arguments)


def _permutation(size: int, seed: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def _expect_refusal(subject: Subject, arguments: dict[str, Any]) -> None:
    scene = subject.with_reference(subject.scene())
    try:
        subject.call(subject.make(**arguments), scene)
    except Exception as error:
        if names_what_is_wrong(subject, error):
            return
        raise
    raise LawBroken("by its spec it takes no reference set, but ignores one that it is given", scene, **arguments)


def _distances(subject: Subject) -> list[str]:
    """Core's distances among those that the miner takes as its argument ``distance``."""
    if "distance" not in subject.signature:
        return []
    allowed = subject.miner.distances
    names = (_EUCLIDEAN, "core.cosine", *_EXACT)
    return [n for n in names if {"*", n.partition("(")[0], parse_part(n).name.rpartition(".")[2]} & set(allowed)]


def _distance(subject: Subject, name: str | Part) -> Any:
    part = parse_part(name) if isinstance(name, str) else name
    return make_part(part, "distance", subject.registry, {}).double()


def _by_rows(subject: Subject, name: str | Part) -> Callable[[list[float], list[float]], float]:
    """A distance as a function of two rows, small for near: by its own definition where it has one."""
    part = parse_part(name) if isinstance(name, str) else name
    known = Subject(subject.registry.resolve("distance", part.name), subject.registry)
    if known.distance.definition:
        define = definition_of(known, part.named)
        return (lambda x, y: -define(x, y)) if known.distance.similarity else define
    distance = _distance(subject, name)

    @functools.cache
    def of(x: tuple[float, ...], y: tuple[float, ...]) -> float:
        value = float(distance(*(torch.tensor([row], dtype=torch.float64) for row in (x, y))))
        return -value if distance.is_inverted else value

    return lambda x, y: of(tuple(x), tuple(y))
