"""Laws of miners of elements: of a choice among the terms of a loss."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from nearfar.nn.terms import ARITY, MaterialTerms
from nearfar.testing.definition import definition_of
from nearfar.testing.law import LawBroken, law
from nearfar.testing.scene import Scene
from nearfar.testing.search import for_all
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants

_SEEDS = st.integers(0, 2**16)
_SIZES = st.sampled_from([1, 8, 40])


@law("miner", cases=variants)
def kept(subject: Subject, case: str = "") -> None:
    """What is kept are terms that there were, with their indices, their weights and their gradient, and all else that
    is known of them."""
    arguments = variants(subject)[case]
    for kind in subject.miner.reduces:
        generator = torch.Generator().manual_seed(subject.seed)
        values = torch.rand(12, generator=generator, dtype=torch.float64).requires_grad_()
        indices = tuple(torch.randint(6, (12,), generator=generator) for _ in range(ARITY[kind]))
        known: dict[str, Any] = {
            "weights": values.detach() + 1,
            "normalizer": 3.0,
            "labels": torch.arange(6),
            "groups": torch.arange(6) // 3,
            "positives": torch.arange(6) < 2,
        }
        part: Any = subject.make(**arguments)
        found = part({"loss": MaterialTerms(kind, values, indices, num_anchors=6, **known)})["loss"]
        places = [(values == value).nonzero()[0, 0] for value in found.values]
        wrong = "" if places or not len(found.values) else "a value"
        for name, given, left in (
            *(("an index", index, other) for index, other in zip(indices, found.indices, strict=True)),
            ("a weight", known["weights"], found.weights),
        ):
            if not torch.equal(left, given[torch.tensor(places, dtype=torch.int64)]):
                wrong = name
        if any(getattr(found, name) is not known[name] for name in known if name != "weights"):
            wrong = "something of what is known of them"
        if found.kind != kind or found.num_anchors != 6 or wrong:
            raise LawBroken(f"of {kind} terms {wrong or 'the kind or the number of anchors'} is not kept as it was")
        if len(places):
            (gradient,) = torch.autograd.grad(found.values.sum(), values)
            if set(gradient.nonzero()[:, 0].tolist()) != {int(place) for place in places}:
                raise LawBroken(f"the gradient of the {kind} terms that are kept is not theirs alone")


@law("miner", cases=variants)
def kept_as_defined(subject: Subject, case: str = "") -> None:
    """The elements that are kept are those of its definition, in groups and without."""
    arguments = variants(subject)[case]
    define = definition_of(subject, arguments)

    def holds(n: int, seed: int, in_groups: bool) -> None:
        scene = subject.scene(classes=1, per_class=n, seed=seed)
        if not in_groups:
            scene = scene.replace(groups=None)
        expected = set(define(**{name: value.tolist() for name, value in scene.inputs.items()}))
        found = _places(subject, scene, arguments)
        if set(found.tolist()) != expected or len(found) != len(expected):
            raise LawBroken(f"it keeps {sorted(found.tolist())}; by its definition {sorted(expected)}", scene)

    for_all(subject, holds, examples=10, n=_SIZES, seed=_SEEDS, in_groups=st.booleans())


@law("miner", cases=variants)
def kept_in_any_order(subject: Subject, case: str = "") -> None:
    """In another order the same elements are kept."""
    arguments = variants(subject)[case]

    def holds(n: int, seed: int) -> None:
        scene = subject.scene(classes=1, per_class=n, seed=seed)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        moved = scene.replace(**{name: value[order] for name, value in scene.inputs.items()})
        found, expected = order[_places(subject, moved, arguments)], _places(subject, scene, arguments)
        if set(found.tolist()) != set(expected.tolist()):
            raise LawBroken("in another order other elements are kept", scene, **arguments)

    for_all(subject, holds, examples=4, n=_SIZES, seed=_SEEDS)


def _places(subject: Subject, scene: Scene, arguments: dict[str, Any]) -> Tensor:
    places: Tensor = subject.call(subject.make(**arguments), scene)[0]
    return places
