"""What a part hands to its reducer, and what it does with the reducer and the distance it is given."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nearfar.build import make_part
from nearfar.grammar import Part
from nearfar.nn.distances import Distance, Dot, Euclidean
from nearfar.nn.reducers import Mean, Sum
from nearfar.nn.terms import ARITY
from nearfar.spec import DistanceSpec
from nearfar.testing.exercise import results, same, usual
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.observe import alike, shows
from nearfar.testing.probes import PLAIN, Stretched, stretched
from nearfar.testing.recorder import Entry, Recorder
from nearfar.testing.scene import Scene
from nearfar.testing.sorts import every_sort
from nearfar.testing.subject import Subject
from nearfar.testing.unchecked import unchecked
from nearfar.testing.variants import variants
from nearfar.told import told

# ---- terms and their reducer


@law("loss")
def emits(subject: Subject) -> None:
    """The terms that a reducer gets are of the kinds that the spec declares, all of them, and their indices say where
    each value came from: anchors of the batch, the others of the set they are compared with, signs right."""
    seen: set[str] = set()
    asked = False
    for arguments in variants(subject).values():
        for scene in _batches(subject):
            for entry in _recorded(subject, scene, arguments):
                asked = True
                seen.add(entry.kind)
                if wrong := _wrong(subject, scene, entry):
                    raise LawBroken(wrong, scene, **arguments)
    if not asked:
        raise NotApplicable("its reducer is never asked")
    for scene in every_sort(subject):  # some kinds show seldom
        if not {*subject.loss.emits} <= seen:
            seen |= {entry.kind for entry in _recorded(subject, scene, {})}
    if unseen := [kind for kind in subject.loss.emits if kind not in seen]:
        raise LawBroken(f"the spec declares {' and '.join(unseen)} terms, and none is ever handed to a reducer")


def _batches(subject: Subject) -> Iterator[Scene]:
    """A plain batch, a small one, and one with a reference set of another size."""
    scene = usual(subject)
    yield scene
    yield usual(subject, classes=2, per_class=2)
    if subject.is_on_embeddings and subject.loss.reference:
        yield subject.with_reference(scene)


def _recorded(subject: Subject, scene: Scene, arguments: dict[str, Any]) -> list[Entry]:
    """What the loss hands to its reducer; nothing where it does not take the scene, or asks no reducer."""
    recorder = Recorder()
    part = subject.make(**arguments)
    if not hasattr(part, "reducer"):
        return []
    part.reducer = recorder
    try:
        subject.call(part, scene)
    except Exception:
        return []
    return recorder.entries


def _wrong(subject: Subject, scene: Scene, entry: Entry) -> str:
    """What is wrong with an entry; empty where nothing is."""
    kind, values, indices = entry.kind, entry.values, entry.indices
    if kind not in subject.loss.emits:
        return f"a reducer is handed {kind} terms, and the spec declares {', '.join(subject.loss.emits)}"
    if kind == "already_reduced":
        return "" if values.numel() == 1 else f"already_reduced stands for one number, and there are {values.numel()}"
    if values.ndim != 1:
        return f"the values of {kind} terms have to be one-dimensional; theirs are {tuple(values.shape)}"
    if len(indices) != ARITY[kind] or any(len(index) != len(values) for index in indices):
        lengths = ", ".join(str(len(index)) for index in indices)
        return (
            f"{len(values)} {kind} terms need {ARITY[kind]} index tensors as long; the lengths are {lengths or 'none'}"
        )
    rows = len(next(iter(scene.inputs.values())))
    references = len(scene["ref_emb"]) if "ref_emb" in scene else rows
    for position, index in enumerate(indices):
        size = entry.elements if kind == "element" else rows if position == 0 else references
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
            what = "the batch" if position == 0 else "the set it is compared with"
            return (
                f"indices[{position}] of {kind} terms runs from {int(index.min())} to {int(index.max())}, and {what} "
                f"has {size} elements"
            )
    return _wrong_sign(scene, kind, indices)


def _wrong_sign(scene: Scene, kind: str, indices: tuple[Tensor, ...]) -> str:
    if "labels" not in scene:
        return ""
    labels = scene["labels"]
    others = scene.inputs.get("ref_labels", labels)
    signs = {"pos_pair": (True,), "neg_pair": (False,), "triplet": (True, False)}.get(kind, ())
    if "ref_labels" not in scene and True in signs and bool((indices[0] == indices[1]).any()):
        return f"a {kind} term has a sample for its own positive"
    for index, is_positive in zip(indices[1:], signs, strict=True):
        if not bool(((labels[indices[0]] == others[index]) == is_positive).all()):
            return f"a {kind} term has a {'positive of another' if is_positive else 'negative of the same'} class"
    return ""


@law("loss")
def reducer_honoured(subject: Subject) -> None:
    """The reducer that a loss is given reduces its terms: their sum is the sum of what is handed out, and their mean is
    another wherever there are several. Of several terms not all are the same, as they are where they were averaged
    before."""
    if not subject.loss.reducible:
        raise NotApplicable("it reduces itself, as it says")
    if not subject.takes_reducer:
        raise LawBroken(
            'its constructor takes no reducer; one that reduces itself says so in its spec: emits=("already_reduced",)'
        )
    several = False
    for scene in every_sort(subject):
        recorder = Recorder()
        expected = subject.value(scene, reducer=recorder)
        total, mean = (subject.value(scene, reducer=reducer) for reducer in (Sum(), Mean()))
        if not recorder.entries:
            if torch.equal(total, mean):
                raise LawBroken("the reducer it is given is never asked", scene, reducer=Sum())
            continue
        if not torch.allclose(total, expected, rtol=1e-9):
            raise LawBroken(
                f"its terms add up to {float(expected):.8g}, and reduced by core.sum it is {float(total):.8g}",
                scene,
                reducer=Part("core.sum"),
            )
        if any(map(_tells_mean_from_sum, recorder.entries)):
            several = True
            if expected != 0 and torch.allclose(total, mean, rtol=1e-9):
                raise LawBroken(
                    f"of several terms core.sum and core.mean make the same: {float(total):.8g}",
                    scene,
                    reducer=Part("core.mean"),
                )
            _refuse_averaged(subject)
            return
    if not several:
        raise NotApplicable("it never hands out more than one term")


def _refuse_averaged(subject: Subject) -> None:
    """Raise where all terms of a batch are one number, and those of another batch are another one."""
    first, second = Recorder(), Recorder()
    for seed, recorder in enumerate((first, second)):
        subject.value(usual(subject, seed), reducer=recorder)
    for one, other in zip(first.entries, second.entries, strict=False):
        before, now = _only_number(one), _only_number(other)
        if before is not None and now is not None and before != now and before != 0 != now:
            raise LawBroken(
                f"all {one.values.numel()} {one.kind} terms are {before:.8g}, and {now:.8g} of another batch: they "
                "were averaged before the reducer, which cannot choose among them",
                usual(subject),
            )


def _only_number(entry: Entry) -> float | None:
    """What all of several terms are; None where they are not the same."""
    values = entry.values.detach().flatten()
    is_one = entry.kind != "already_reduced" and len(values) > 2 and bool((values == values[0]).all())
    return float(values[0]) if is_one else None


def _tells_mean_from_sum(entry: Entry) -> bool:
    return entry.kind != "already_reduced" and entry.values.numel() > 1 and entry.divisor != 1


@law("loss")
def default_reducer(subject: Subject) -> None:
    """Given the reducer that the spec calls its default, a loss gives what it gives without."""
    name = subject.loss.default_reducer
    if not subject.takes_reducer:
        raise NotApplicable("it takes no reducer, of which the law `reducer_honoured` is")
    if not name or not subject.loss.reducible:
        raise NotApplicable("it declares no default reducer")
    _compare_default(subject, "reducer", name)


# ---- distances


@law("loss", "miner")
def default_distance(subject: Subject) -> None:
    """Given the distance that the spec calls its default, a part does what it does without."""
    name = subject.spec.default_distance
    if not name:
        raise NotApplicable("it declares no default distance")
    _compare_default(subject, "distance", name)


def _compare_default(subject: Subject, slot: str, name: str) -> None:
    for scene in itertools.islice(every_sort(subject), 5):
        if alike(subject, scene, {}, {slot: Part(name)}) is False:
            raise LawBroken(
                f"the spec says that its {slot} is {name}; given that by name it does something else",
                scene,
                **{slot: Part(name)},
            )


@law("loss", "miner")
def distance_honoured(subject: Subject) -> None:
    """What a part does follows the distance that it is given, one that it cannot know among them where the spec allows
    any: it does with that distance what it does on embeddings that are changed in the same way. One that allows none
    takes none."""
    spec = subject.spec
    if not spec.distances:
        _refuse_distance(subject)
    elif "*" in spec.distances:
        for plain in PLAIN:
            _follow(subject, plain)
    else:
        _tell_apart(subject)


def _follow(subject: Subject, plain: Distance) -> None:
    """Whether a part follows a distance of stretched embeddings: it is another than the plain one, and what it gives
    is what the plain one gives of embeddings that were stretched before."""
    what, probe = "similarity" if plain.is_inverted else "distance", Stretched(plain)
    scenes = list(every_sort(subject))
    try:
        subject.call(subject.make(distance=probe), scenes[0])
    except Exception as error:
        message = f"the spec says that it works on any distance; on a {what} that is none of the core's: {told(error)}"
        raise LawBroken(message, scenes[0]) from error
    # The last sorts first: those that are long and short, on which thresholds tell more apart.
    if not any(shows(subject, scene, {"distance": plain}, {"distance": probe}) for scene in reversed(scenes)):
        raise LawBroken(
            f"on a {what} that puts pairs into another order it does the same, on inputs of every sort: it uses a "
            "distance of its own; use the one it is given, self.distance",
            scenes[0],
        )
    if _measures_more(subject):
        return
    for scene in scenes:
        found = _results(subject, scene, probe)
        expected = _results(subject, stretched(scene), plain)
        if found is not None and expected is not None and not same(found, expected, relative=1e-7):
            raise LawBroken(
                f"on a {what} that stretches embeddings it gives {_said(found)}, and on the plain one, of embeddings "
                f"stretched as much, {_said(expected)}: some of what it measures it does not measure by the distance "
                "that it is given",
                scene,
            )


def _measures_more(subject: Subject) -> bool:
    """Whether a part looks at more than distances within the batch, as it may."""
    if subject.spec.random or any(True for _ in subject.make().parameters()):
        return True
    if subject.kind == "miner":
        return False
    # What minds lengths on a distance that does not is declared so, or else another law says it.
    scene = usual(subject)
    longer = scene.replace(**{name: 3 * value for name, value in scene.learnable().items()})
    found, expected = (_results(subject, each, Euclidean()) for each in (longer, scene))
    return subject.loss.uses_norm or found is None or expected is None or not same(found, expected, relative=1e-4)


def _results(subject: Subject, scene: Scene, distance: Distance) -> list[Tensor] | None:
    copied = scene.replace(**{name: value.clone() for name, value in scene.learnable().items()})
    try:
        return results(subject, subject.make(distance=distance), copied)
    except Exception:  # of a batch that it refuses
        return None


def _said(found: list[Tensor]) -> str:
    return f"{float(found[0]):.8g}" if len(found) == 1 and found[0].numel() == 1 else "another selection"


def _tell_apart(subject: Subject) -> None:
    """Whether the distances that are allowed by name differ in what a part does: those where larger is nearer among
    themselves, and so the others."""
    allowed = list(_allowed(subject))
    inverted = [make_part(part, "distance", subject.registry, {}).is_inverted for part in allowed]
    sides = [[part for part, i in zip(allowed, inverted, strict=True) if i == side] for side in (False, True)]
    scenes = list(every_sort(subject))
    told_apart = [_any_shows(subject, side, scenes) for side in sides if len(side) > 1] or [None]
    if all(shown is None for shown in told_apart):
        told_apart = [_any_shows(subject, allowed, scenes)]
    if False in told_apart:
        raise LawBroken(
            f"on any of {', '.join(map(str, allowed))} it does the same, on inputs of every sort; use the distance "
            "that it is given, self.distance",
            scenes[0],
            distance=allowed[-1],
        )
    if told_apart == [None]:
        raise NotApplicable("the distances it allows are one and the same")


def _any_shows(subject: Subject, distances: list[Part], scenes: list[Scene]) -> bool | None:
    """Whether two of the distances show in what a part does; None where no two differ."""
    compared = False
    for (first, second), scene in itertools.product(itertools.pairwise(distances), scenes):
        if _differ(subject, first, second, scene):
            shown = shows(subject, scene, {"distance": first}, {"distance": second})
            if shown:
                return True
            compared |= shown is not None
    return False if compared else None


def _allowed(subject: Subject) -> Iterator[Part]:
    """Every way of making the distances that the spec names, of those that can be made by name alone."""
    names = {*subject.spec.distances}
    for entry in subject.registry.entries("distance"):
        assert isinstance(entry.spec, DistanceSpec)
        if entry.spec.on == "rotated_boxes":  # nothing here is called with any
            continue
        if {entry.full_name, entry.spec.name} & names:
            for arguments in variants(Subject(entry, subject.registry)).values():
                yield Part(entry.full_name, (), arguments)


def _differ(subject: Subject, first: Part, second: Part, scene: Scene) -> bool:
    """Whether two distances differ on the embeddings of a scene."""
    made = [make_part(part, "distance", subject.registry, {}) for part in (first, second)]
    compared = next(scene[name] for name in ("embeddings", "pred_boxes") if name in scene)
    one, other = (distance(compared) for distance in made)
    return not torch.allclose(one, other, rtol=1e-6)


def _refuse_distance(subject: Subject) -> None:
    """Whether the constructor of a part that works on no distance takes none either."""
    if "distance" not in subject.signature:
        return
    scene, distances = usual(subject), (Euclidean(), Dot())
    try:
        found = [results(subject, unchecked(subject, distance=distance), scene) for distance in distances]
    except Exception:  # it refuses one itself
        return
    done = "it is ignored" if same(*found) else "it is used"
    raise LawBroken(f"the spec says that it works on no distance; its constructor takes one, and {done}")
