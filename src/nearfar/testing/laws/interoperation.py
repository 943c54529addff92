"""Parts of pytorch-metric-learning beside the part, and the part beside theirs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from nearfar.build import compose, make_part
from nearfar.errors import NearfarError
from nearfar.grammar import Live, Part
from nearfar.planner import plan_part
from nearfar.recipe import Recipe
from nearfar.registry import Entry
from nearfar.spec import LossSpec, MinerSpec, ReducerSpec
from nearfar.testing.exercise import tensors_in, usual
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.recorder import Recorder
from nearfar.testing.scene import CLASSES, DIM, Scene, batch
from nearfar.testing.subject import Subject, refuse_chance, seeded
from nearfar.told import told

# ---- their parts in a loss of ours


@law("loss")
def pml_miners(subject: Subject) -> None:
    """What every miner of pytorch-metric-learning selects that the loss accepts, of a batch and of a reference set,
    gives a finite value and gradient."""
    if not subject.is_on_embeddings or not subject.loss.accepts:
        raise NotApplicable("it takes no miner")
    scene = usual(subject, per_class=4)
    found = False
    for entry, miner in _theirs(subject, "miner"):
        # One that takes the batch as triplets already has no use for labels.
        spec = entry.spec
        assert isinstance(spec, MinerSpec)
        if spec.produces not in subject.loss.accepts or spec.order_dependent:
            continue
        found = True
        for given in [scene, subject.with_reference(scene)] if subject.loss.reference else [scene]:
            references = (given.inputs.get(name) for name in ("ref_emb", "ref_labels"))
            with seeded(subject.seed):
                selected = miner(given["embeddings"], given["labels"], *references)
            where = "a reference set" if "ref_emb" in given else "a batch"
            _settle(subject, given.replace(indices_tuple=selected), f"with what {entry.full_name} selects of {where}")
    if not found:
        raise NotApplicable("pytorch-metric-learning has no miner of what it accepts")


@law("loss")
def pml_reducers(subject: Subject) -> None:
    """Every reducer of pytorch-metric-learning that takes the loss's terms gives a finite value and gradient."""
    if not subject.loss.reducible:
        raise NotApplicable("it reduces itself, as it says")
    if not subject.takes_reducer:
        raise NotApplicable("it takes no reducer, of which the law `reducer_honoured` is")
    for scene in (usual(subject), usual(subject, classes=2, per_class=2)):
        for entry, reducer in _their_reducers(subject, scene):
            if _fits(subject, "reducer", reducer):
                _settle(subject, scene, f"reduced by {entry.full_name}", reducer=reducer)


@law("loss")
def pml_distances(subject: Subject) -> None:
    """Every distance of pytorch-metric-learning that the loss allows gives a finite value and gradient."""
    if not subject.loss.distances:
        raise NotApplicable("it works on no distance")
    scene, found = usual(subject), False
    for entry, _ in _theirs(subject, "distance"):
        part = Part(entry.full_name)
        if _fits(subject, "distance", part):
            found = True
            _settle(subject, scene, f"on {entry.full_name}", distance=part)
    if not found:
        raise NotApplicable("it allows none of pytorch-metric-learning's")


@law("loss")
def pml_multiple_losses(subject: Subject) -> None:
    """Inside pytorch-metric-learning's MultipleLosses, twice, with weights, it counts by its weights, and takes what
    a miner there selects."""
    from pytorch_metric_learning.losses import MultipleLosses
    from pytorch_metric_learning.miners import BatchHardMiner

    if not subject.is_on_embeddings:
        raise NotApplicable("it is not on embeddings and labels")
    refuse_chance(subject)
    scene, miner = usual(subject), BatchHardMiner()
    chosen = scene
    if "triplets" in subject.loss.accepts:
        chosen = scene.replace(indices_tuple=miner(scene["embeddings"], scene["labels"]))
    expected = 0.5 * subject.value(scene) + 2 * subject.value(chosen)
    parts = [subject.make(), subject.make()]
    around = MultipleLosses(parts, weights=[0.5, 2], miners=None if chosen is scene else [None, miner])
    try:
        found = around(scene["embeddings"], scene["labels"])
    except TypeError as error:
        if subject.loss.accepts:
            raise
        raise NotApplicable("it takes no choice of a miner, and MultipleLosses hands on one or None") from error
    if not torch.allclose(found, expected, rtol=1e-9):
        raise LawBroken(f"inside MultipleLosses it is {float(found):.8g}, and by itself {float(expected):.8g}", scene)


def _theirs(subject: Subject, kind: str) -> Iterator[tuple[Entry, nn.Module]]:
    """The parts of pytorch-metric-learning of a kind that can be made by name alone."""
    for entry in subject.registry.find(kind, plugin="pml"):
        try:
            with warnings.catch_warnings(action="ignore"):
                yield entry, make_part(Part(entry.full_name), kind, subject.registry, {})
        except NearfarError:
            continue


def _their_reducers(subject: Subject, scene: Scene) -> Iterator[tuple[Entry, nn.Module]]:
    """Those whose arguments are known here too, without those that ask a loss for more than its terms."""
    from pytorch_metric_learning import reducers

    recorder = Recorder()
    subject.value(scene, reducer=recorder)
    classes = CLASSES if "labels" in scene else 0
    needing = {
        "threshold_reducer": lambda: reducers.ThresholdReducer(low=0),
        "class_weighted_reducer": lambda: reducers.ClassWeightedReducer(torch.arange(1.0, classes + 1)),
        "multiple_reducers": lambda: reducers.MultipleReducers({}, default_reducer=reducers.MeanReducer()),
    }
    known = {entry.spec.name: module for entry, module in _theirs(subject, "reducer")}
    for entry in subject.registry.find("reducer", plugin="pml"):
        name, spec = entry.spec.name, entry.spec
        assert isinstance(spec, ReducerSpec)
        if name == "class_weighted_reducer" and not classes:
            continue
        if name == "divisor_reducer" and not all(each.divisor is not None for each in recorder.entries):
            continue
        kinds = {each.kind for each in recorder.entries} - {"already_reduced"}
        if kinds <= {*spec.reduces} and not spec.keeps:
            yield entry, needing[name]() if name in needing else known[name]


def _fits(subject: Subject, slot: str, value: Part | nn.Module) -> bool:
    """Whether composition has nothing against a part in a slot."""
    given: dict[str, Any] = {slot: value if isinstance(value, Part) else Live(value)}
    _, plan = plan_part(subject.part(**given), subject.kind, subject.registry, {})
    return not plan.errors


def _settle(subject: Subject, scene: Scene, what: str, **arguments: Any) -> None:
    """Whether a loss has a finite value and gradient; ``what`` opens the message where it has not."""
    given = scene.with_gradients()
    try:
        value = subject.value(given, **arguments)
        gradients = torch.autograd.grad(value, list(given.learnable().values()), allow_unused=True)
    except Exception as error:
        raise LawBroken(f"{what} it raises {told(error)}", scene, **arguments) from error
    if not value.isfinite() or not all(g is None or g.isfinite().all() for g in gradients):
        raise LawBroken(f"{what} it is {float(value):.6g}, or its gradient is not finite", scene, **arguments)


# ---- the part in theirs

#: Losses of pytorch-metric-learning that between them hand out terms of every kind and look at pairs and at triplets.
_LOSSES = ("contrastive_loss", "triplet_margin_loss", "multi_similarity_loss", "arc_face_loss")


@law("miner", "reducer", "distance")
def pml_losses(subject: Subject) -> None:
    """In losses of pytorch-metric-learning, and for a distance in a miner, the part does its work: of a batch and of a
    reference set the value is finite and has a gradient."""
    if subject.kind == "miner" and not subject.is_on_embeddings:
        raise NotApplicable(f"it produces {subject.miner.produces}, and their losses take pairs and triplets")
    if subject.kind == "distance" and subject.distance.on != "embeddings":
        raise NotApplicable(f"it compares {subject.distance.on}, and their losses compare embeddings")
    found = False
    scene = Scene(dict(zip(("embeddings", "labels"), batch(4, 3, DIM, subject.seed), strict=True)))
    for name in _LOSSES:
        entry = subject.registry.resolve("loss", f"pml.{name}")
        spec = entry.spec
        assert isinstance(spec, LossSpec)
        if subject.kind == "reducer" and not _reduces(subject.reducer, spec):
            continue
        if subject.kind == "distance" and "*" not in spec.distances:
            continue
        found = True
        loss = Subject(entry, subject.registry, subject.seed)
        with_reference = spec.reference and getattr(subject.spec, "reference", True)
        for given in [scene, loss.with_reference(scene)] if with_reference else [scene]:
            where = f"pml.{name}{' with a reference set' if 'ref_emb' in given else ''}"
            _work(subject, loss, given, where)
    if not found:
        raise NotApplicable("none of those that are tried takes it")
    if subject.kind == "distance":
        _mine(subject, scene)


def _reduces(spec: ReducerSpec, loss: LossSpec) -> bool:
    # What is left unreduced cannot be added up, and theirs add their sub-losses.
    return {*loss.emits} <= {*spec.reduces} and not (spec.keeps and len(loss.emits) > 1)


def _mine(subject: Subject, scene: Scene) -> None:
    from pytorch_metric_learning.miners import BatchHardMiner

    embeddings, labels = scene["embeddings"], scene["labels"]
    try:
        a, p, n = BatchHardMiner(distance=subject.make())(embeddings, labels)
    except Exception as error:
        raise LawBroken(f"in pml.batch_hard_miner it raises {told(error)}") from error
    if len(a) != len(labels) or not (labels[a] == labels[p]).all() or (labels[a] == labels[n]).any():
        raise LawBroken("pml.batch_hard_miner does not find a positive and a negative of each anchor by it")


def _work(subject: Subject, loss: Subject, scene: Scene, where: str) -> None:
    try:
        if subject.kind == "miner":
            selected = subject.call(subject.make(), scene)
            found = tensors_in(loss.call(loss.make(), scene.replace(indices_tuple=selected).with_gradients()))
        else:
            slot: dict[str, Any] = {subject.kind: subject.make()}
            found = tensors_in(loss.call(loss.make(**slot), scene.with_gradients()))
    except Exception as error:
        raise LawBroken(f"in {where} it raises {told(error)}") from error
    values = [value for value in found if value.is_floating_point()]
    if not values or not all(value.isfinite().all() for value in values):
        raise LawBroken(f"in {where} the loss is not finite")
    if not any(value.requires_grad for value in values):
        raise LawBroken(f"in {where} the loss has no gradient")


# ---- composition


@law("loss")
def composed(subject: Subject) -> None:
    """Composed from its recipe, written down and read again, a loss gives what it gives by itself."""
    recipe = Recipe.from_yaml(Recipe.of(str(subject.part())).to_yaml())
    with seeded(subject.seed), warnings.catch_warnings(action="ignore"):
        criterion = compose(recipe, registry=subject.registry).double()
    scene = usual(subject)
    with seeded(subject.seed):
        found = criterion(**scene.inputs)
    expected = subject.value(scene)
    if found.numel() != 1 or not torch.allclose(found, expected, rtol=1e-12):
        raise LawBroken(f"composed from '{recipe}' it is {found}, and by itself {float(expected):.8g}", scene)
