"""What leaves the loss of a batch of embeddings as it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from nearfar.nn.class_losses import ClassLoss
from nearfar.nn.reducers import NoReduction
from nearfar.testing.arranged import VIEWS, classes_of, renumbered, subset
from nearfar.testing.forms import in_every_form
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.scene import Scene
from nearfar.testing.search import for_all, roomy_scenes
from nearfar.testing.sorts import pairs, triplets
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants

#: How far apart sums in another order may be.
_SAME = {torch.float64: 1e-7, torch.float32: 1e-4}


@law("loss")
def permutation(subject: Subject) -> None:
    """The order of a batch does not matter: permuted, with what was selected of it renumbered, it has the same value
    and the permuted gradient; where the spec says that the order matters it does, but not which class comes first.

    A loss whose order matters gets its batch class by class, and whole classes change places.
    """
    _on_embeddings(subject)
    _not_random(subject, "a permutation changes what it draws")
    if subject.loss.order_dependent:
        _minds_order(subject)

    def holds(scene: Scene, seed: int, selected: bool) -> None:
        if subject.loss.order_dependent:
            scene = _reordered(scene, scene["labels"].argsort(stable=True))
            order = _classes_moved(scene["labels"], seed)
        else:
            order = torch.randperm(len(scene["labels"]), generator=torch.Generator().manual_seed(seed))
        selection = subset(subject, scene, seed) if selected else None
        in_every_form(subject, lambda arguments: _compare_permuted(subject, scene, selection, order, arguments))

    drawn = st.booleans() if subject.loss.accepts and not subject.loss.order_dependent else st.just(False)
    # Classes as many as samples in each hide which of the two numbers is which: of a few draws not all are such.
    examples = 8 if subject.loss.order_dependent else 3
    for_all(subject, holds, examples=examples, scene=roomy_scenes(subject), seed=st.integers(0, 99), selected=drawn)


def _compare_permuted(
    subject: Subject, scene: Scene, selection: tuple[Tensor, ...] | None, order: Tensor, arguments: Mapping[str, Any]
) -> None:
    given, moved = scene, _reordered(scene, order)
    if selection is not None:
        given = given.replace(indices_tuple=selection)
        moved = moved.replace(indices_tuple=renumbered(selection, order))
    found, expected = subject.value(moved, **arguments), subject.value(given, **arguments)
    if not _equal(found, expected):
        what = "which class comes first" if subject.loss.order_dependent else "the order of the batch"
        hint = "" if subject.loss.order_dependent else "; a loss that minds it says so: order_dependent="
        raise LawBroken(
            f"{what} changes the value from {float(expected):.8g} to {float(found):.8g}{hint}", moved, **arguments
        )
    gradients, permuted = subject.gradients(given, **arguments), subject.gradients(moved, **arguments)
    if not _equal(permuted["embeddings"], gradients["embeddings"][order]):
        raise LawBroken("the gradient of a permuted batch is not the permuted gradient", moved, **arguments)


def _minds_order(subject: Subject) -> None:
    """Raise where no permutation of some batches changes the value."""
    for seed in range(5):
        scene = subject.scene(seed=subject.seed + seed)
        order = torch.randperm(len(scene["labels"]), generator=torch.Generator().manual_seed(seed))
        if not _equal(subject.value(_reordered(scene, order)), subject.value(scene)):
            return
    raise LawBroken("the spec says order_dependent=True, but permuting the batch never changes the value", scene)


def _classes_moved(labels: Tensor, seed: int) -> Tensor:
    """An order of a batch sorted by class in which the classes stand in another order, each as it was."""
    classes = torch.unique(labels)
    shuffled = classes[torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))]
    return torch.cat([torch.where(labels == c)[0] for c in shuffled])


@law("loss")
def reference_permutation(subject: Subject) -> None:
    """The order of the reference set does not matter: permuted it gives the same value and gradients, also where it is
    as large as the batch."""
    _takes_reference(subject)
    _not_random(subject, "a permutation changes what it draws")
    if subject.loss.order_dependent:
        raise NotApplicable("the order matters to it, as its spec says")

    def holds(scene: Scene, seed: int) -> None:
        count = len(scene["embeddings"])
        classes = 3 if count % 2 else 2
        # As large as the batch, the labels of the one pass for those of the other.
        for sizes in ({"classes": 3, "per_class": 5}, {"classes": classes, "per_class": count // classes}):
            _permute_reference(subject, subject.with_reference(scene, **sizes), seed)

    for_all(subject, holds, examples=3, scene=roomy_scenes(subject), seed=st.integers(0, 99))


def _permute_reference(subject: Subject, scene: Scene, seed: int) -> None:
    order = torch.randperm(len(scene["ref_labels"]), generator=torch.Generator().manual_seed(seed))
    moved = scene.replace(ref_emb=scene["ref_emb"][order], ref_labels=scene["ref_labels"][order])

    def compare(arguments: dict[str, Any]) -> None:
        found, expected = subject.value(moved, **arguments), subject.value(scene, **arguments)
        if not _equal(found, expected):
            raise LawBroken(
                f"the order of the reference set takes the value from {float(expected):.8g} to {float(found):.8g}",
                moved,
                **arguments,
            )
        gradients, permuted = subject.gradients(scene, **arguments), subject.gradients(moved, **arguments)
        if not _equal(permuted["ref_emb"], gradients["ref_emb"][order]):
            raise LawBroken("the gradient of a permuted reference set is not the permuted one", moved, **arguments)

    in_every_form(subject, compare)


@law("loss")
def reference_is_batch(subject: Subject) -> None:
    """A reference set that repeats the batch, with every pair selected but those of a sample and itself, gives the
    value of the batch with that selection: so a memory, which holds the batch too, can be used."""
    _takes_reference(subject)
    _not_random(subject, "it draws from another set")
    if not subject.loss.accepts:
        raise NotApplicable("it takes no selection, which alone could tell a sample from its copy")

    def holds(scene: Scene) -> None:
        selection = triplets(scene) if subject.loss.accepts == ("triplets",) else pairs(scene)
        scene = scene.replace(indices_tuple=selection)
        repeated = scene.replace(ref_emb=scene["embeddings"].clone(), ref_labels=scene["labels"].clone())

        def compare(arguments: dict[str, Any]) -> None:
            found, expected = subject.value(repeated, **arguments), subject.value(scene, **arguments)
            if not _equal(found, expected):
                raise LawBroken(
                    f"compared with a copy of the batch, and itself not selected, a batch costs {float(found):.8g}; "
                    f"compared with itself {float(expected):.8g}",
                    repeated,
                    **arguments,
                )

        in_every_form(subject, compare)

    for_all(subject, holds, examples=3, scene=roomy_scenes(subject))


@law("loss")
def relabelling(subject: Subject) -> None:
    """Classes have no order: with other class ids, and what the loss keeps for each class moved along, the value is
    the same."""
    _on_embeddings(subject)
    _not_random(subject, "other class ids change what it draws")
    for name, value in subject.part().named.items():
        if isinstance(value, list | tuple) and len(value) == classes_of(subject):
            raise NotApplicable(f"{name} has a value for each class")

    def holds(scene: Scene, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        classes = classes_of(subject)
        names = torch.randperm(classes or 1 + int(scene["labels"].max()), generator=generator)
        renamed = scene.replace(labels=names[scene["labels"]])

        def compare(arguments: dict[str, Any]) -> None:
            expected = subject.value(scene, **arguments)
            found = [subject.value(renamed, part) for part in _with_classes_moved(subject, names, arguments)]
            if not any(_equal(value, expected) for value in found):
                listed = " or ".join(f"{float(value):.8g}" for value in found)
                raise LawBroken(
                    f"with classes 0 … {len(names) - 1} renamed to {names.tolist()} the value goes from "
                    f"{float(expected):.8g} to {listed}",
                    renamed,
                    **arguments,
                )

        in_every_form(subject, compare)

    for_all(subject, holds, examples=3, scene=roomy_scenes(subject), seed=st.integers(0, 99))


def _with_classes_moved(subject: Subject, names: Tensor, arguments: Mapping[str, Any]) -> Iterator[nn.Module]:
    """Parts whose class ``names[c]`` is what class c was; several, where what is kept can be read in several ways.

    Of a dimension with k numbers for each class the first k may be those of the first class, or the first number of
    each class may come first; or it may have nothing to do with classes.
    """
    classes, was = classes_of(subject), names.argsort()
    if not classes:
        yield subject.make(**arguments)
        return
    if subject.part().named.get("embedding_size") == classes:
        raise NotApplicable("as many classes as dimensions: what it keeps for a class cannot be told")
    for reading in ("one", "class by class", "place by place"):
        part, told_apart = subject.make(**arguments), reading == "one"
        for tensor in [*part.parameters(), *part.buffers()]:
            for dim, size in enumerate(tensor.shape):
                each = size // classes
                if size % classes or not each or (each > 1 and reading == "one") or not tensor.is_floating_point():
                    continue
                told_apart |= each > 1
                index = torch.arange(size)
                if reading == "place by place":
                    index = index.reshape(each, classes)[:, was]
                else:
                    index = index.reshape(classes, each)[was]
                tensor.data = tensor.data.index_select(dim, index.flatten())
        if told_apart:
            yield part


@law("loss")
def scale(subject: Subject) -> None:
    """The length of the embeddings matters exactly where the spec says so: uses_norm."""
    if not subject.is_on_embeddings and subject.loss.inputs not in VIEWS:
        raise NotApplicable("it is not on embeddings")
    matters = False
    scene = subject.scene()
    for seed, factor in itertools.product(range(3), (3.0, 0.3)):
        scene = subject.scene(seed=subject.seed + seed)
        if subject.is_on_embeddings and subject.loss.reference:
            scene = subject.with_reference(scene)
        scaled = scene.replace(**{n: factor * x for n, x in scene.learnable().items()})
        found, expected = subject.value(scaled), subject.value(scene)
        # What a loss adds to keep a root or a quotient from zero is no dependence that anybody would declare.
        if not subject.loss.uses_norm and not _equal(found, expected, 1e-4):
            raise LawBroken(
                f"embeddings {factor:g} times as long take the value from {float(expected):.8g} to {float(found):.8g}; "
                "a loss that minds their length says so: uses_norm=",
                scaled,
            )
        matters |= not _equal(found, expected)
    if subject.loss.uses_norm and not matters:
        raise LawBroken("the spec says uses_norm=True, but longer and shorter embeddings cost the same", scene)


# ---- what all of them need


def _on_embeddings(subject: Subject) -> None:
    if not subject.is_on_embeddings:
        raise NotApplicable("it is not on embeddings and labels")


def _takes_reference(subject: Subject) -> None:
    _on_embeddings(subject)
    if not subject.loss.reference:
        raise NotApplicable("it takes no reference set")


def _not_random(subject: Subject, why: str) -> None:
    if subject.loss.random:
        raise NotApplicable(why)


def _reordered(scene: Scene, order: Tensor) -> Scene:
    return scene.replace(embeddings=scene["embeddings"][order], labels=scene["labels"][order])


def _equal(found: Tensor, expected: Tensor, tolerance: float | None = None) -> bool:
    """Whether two results differ by no more than rounding, of the largest entry; not a number equals nothing."""
    size = max(float(expected.detach().abs().max()), 1e-3)
    tolerance = _SAME.get(expected.dtype, 1e-2) if tolerance is None else tolerance
    return bool(((found - expected).detach().abs() <= tolerance * size).all())


def _by_class(subject: Subject) -> tuple[str, ...]:
    return ("",) if subject.is_on_embeddings and "num_classes" in subject.signature else ()


@law("loss", cases=_by_class)
def sample_independence(subject: Subject) -> None:
    """A loss of class weights costs each sample by its own embedding and label: in eval mode and unreduced, alone as
    among others."""
    if not isinstance(subject.make(), ClassLoss) or "reducer" not in subject.signature:
        raise NotApplicable("it gives a reducer no value for each sample by class weights")
    _not_random(subject, "another batch changes what it draws")
    scene, is_by_sample = subject.scene(), False
    for arguments in variants(subject).values():
        part = subject.make(**arguments, reducer=NoReduction()).eval()
        found = subject.call(part, scene)
        if not isinstance(found, Tensor) or found.shape != scene["labels"].shape:
            continue
        is_by_sample = True
        for row in range(3):
            single = scene.replace(embeddings=scene["embeddings"][row : row + 1], labels=scene["labels"][row : row + 1])
            alone = subject.call(part, single)
            if not _equal(alone.reshape(()), found[row]):
                raise LawBroken(
                    f"sample {row} costs {float(found[row]):.9g} among others and {float(alone):.9g} alone",
                    scene,
                    **arguments,
                )
    if not is_by_sample:
        raise NotApplicable("it gives a reducer something else than a value for each sample")
