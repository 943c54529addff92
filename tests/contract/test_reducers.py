"""Every loss of the first-party plugins honours every reducer: mined and not, in every way of computing it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

import nearfar
import nearfar.definitions
from nearfar import core
from nearfar.errors import InputError, RecipeError
from nearfar.grammar import parse_part
from nearfar.nn import Reducer, Selection, Terms
from nearfar.registry import Entry, default_registry
from nearfar.spec import LossSpec
from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject

NAMESPACES = ("margin", "pair", "proxy", "iou")
REDUCERS = {spec.name: spec for spec in core.nearfar_reducers()}
#: Selections of every form: a rule on triplets that holds for all or for some, triplets, a rule on pairs, pairs.
MINERS = (
    "pair.all",
    "pair.semihard(margin=0.4)",
    "pair.hard_negative_all_positive",
    "pair.multi_similarity",
    "pair.batch_easy_hard",
)


def losses(*, reducible: bool) -> list[Any]:
    entries = [entry for entry in default_registry().entries("loss") if entry.namespace in NAMESPACES]
    return [
        pytest.param(entry, id=entry.full_name)
        for entry in entries
        if isinstance(entry.spec, LossSpec) and entry.spec.reducible == reducible
    ]


class Kept(Reducer):
    """It keeps the elements of each sub-loss and what rides along, and makes nothing of them."""

    def __init__(self) -> None:
        super().__init__()
        self.terms: list[dict[str, Any]] = []

    def __deepcopy__(self, memo: Any) -> Kept:
        return self

    def reduce(self, terms: Terms) -> Tensor:
        known = {"values": terms.values, "anchors": terms.indices[0], "labels": terms.labels, "groups": terms.groups}
        plain = {name: None if each is None else each.detach().tolist() for name, each in known.items()}
        normalizer = None if terms.normalizer is None else float(torch.as_tensor(terms.normalizer).detach())
        self.terms.append(plain | {"normalizer": normalizer})
        return terms.sum()


@contextlib.contextmanager
def by_rows() -> Iterator[None]:
    """However small the batch, a few rows at a time, where a loss goes by rows."""
    small = ("row_pass.SMALL", "sides.SMALL", "mask_sides.SMALL")
    with contextlib.ExitStack() as stack:
        for name, value in (*((each, 0) for each in small), ("few_rows.CPU_ELEMENTS", 40)):
            stack.enter_context(mock.patch(f"nearfar_pair.{name}", value))
        yield


WAYS = {"whole": contextlib.nullcontext, "by_rows": by_rows}


def called(subject: Subject, scene: Scene, reducer: nn.Module, miner: str | None, choice: Any = None) -> Any:
    """What the loss gives with a reducer, of what a miner selects in as compact a form as it knows, or of a choice."""
    part = subject.make(reducer=reducer)
    if miner is not None:
        chosen = nearfar.create_miner(miner).select(scene["embeddings"], scene["labels"], loss=part)
        assert isinstance(chosen, Selection)
        choice = chosen
    return subject.call(part, scene if choice is None else scene.replace(indices_tuple=choice))


def defined(spec: Any, terms: list[dict[str, Any]]) -> float:
    """The reducer's definition applied to the elements of each sub-loss, and added up."""
    definition = getattr(nearfar.definitions, spec.definition.partition(":")[2])
    wanted = inspect.signature(definition).parameters
    own = {"low": None, "high": None} | dict(parse_part(f"{spec.name}({spec.example})").named)
    return sum(definition(**{n: v for n, v in (own | each).items() if n in wanted}) for each in terms)


def lacks(spec: Any, terms: list[dict[str, Any]]) -> bool:
    """Whether the elements say nothing of what the reducer goes by."""
    return bool(spec.asks) and any(all(each[name] is None for name in spec.asks) for each in terms)


@pytest.mark.parametrize("entry", losses(reducible=True))
def test_a_reduced_loss_is_the_reducers_definition_of_its_elements(entry: Entry) -> None:
    subject = Subject(entry, default_registry())
    spec: LossSpec = subject.loss
    scene = subject.scene(per_class=3)
    mined = subject.is_on_embeddings and {"pairs", "triplets"} & {*spec.accepts}
    for miner in (None, *(MINERS if mined else ())):
        kept = Kept()
        called(subject, scene, kept, miner)
        assert any(each["values"] for each in kept.terms)
        for way in WAYS if entry.namespace == "pair" else ["whole"]:
            for name, reducer in REDUCERS.items():
                made = nearfar.create_reducer(str(parse_part(f"{name}({reducer.example})")))
                with WAYS[way]():
                    if lacks(reducer, kept.terms):
                        with pytest.raises(InputError, match=name):
                            called(subject, scene, made, miner)
                        continue
                    found = called(subject, scene, made, miner)
                if name == "none":
                    parts = found.values() if isinstance(found, dict) else [found]
                    for values, expected in zip(parts, kept.terms, strict=True):
                        assert values.tolist() == pytest.approx(expected["values"], rel=1e-8, abs=1e-12)
                    continue
                expected = defined(reducer, kept.terms)
                assert float(found.detach()) == pytest.approx(expected, rel=1e-8, abs=1e-12), (name, miner, way)


@pytest.mark.parametrize("entry", losses(reducible=True))
def test_what_no_call_can_tell_a_reducer_is_refused_at_composition(entry: Entry) -> None:
    subject = Subject(entry, default_registry())
    kept = Kept()
    called(subject, subject.scene(), kept, None)
    for name, reducer in REDUCERS.items():
        recipe = nearfar.Recipe.of(str(subject.part()), reducer=str(parse_part(f"{name}({reducer.example})")))
        problems = [problem.message for problem in recipe.check() if problem.severity == "error"]
        # A call brings groups or leaves them out.
        may_come = "groups" in reducer.asks and any(each.endswith("groups") for each in subject.loss.optional_inputs)
        if lacks(reducer, kept.terms) and not may_come:
            assert len(problems) == 1
            assert problems[0].startswith(f"{name} asks for the {' or '.join(reducer.asks)} of each term, and ")
        else:
            assert not problems


@pytest.mark.parametrize(
    "entry", [each for each in losses(reducible=True) if {"pairs", "triplets"} & {*each.values[0].spec.accepts}]
)
def test_nothing_selected_is_zero_with_a_usable_gradient(entry: Entry) -> None:
    subject = Subject(entry, default_registry())
    scene = subject.scene()
    arity = 4 if "pairs" in subject.loss.accepts else 3
    nothing = tuple(torch.zeros(0, dtype=torch.int64) for _ in range(arity))
    for name, reducer in REDUCERS.items():
        made = nearfar.create_reducer(str(parse_part(f"{name}({reducer.example})")))
        given = scene.with_gradients()
        found = called(subject, given, made, None, nothing)
        value = sum(part.sum() for part in found.values()) if isinstance(found, dict) else found.sum()
        assert float(value.detach()) == 0, name
        (gradient,) = torch.autograd.grad(value, given["embeddings"])
        assert torch.equal(gradient, torch.zeros_like(gradient)), name


@pytest.mark.parametrize("entry", losses(reducible=False))
def test_a_loss_that_reduces_itself_refuses_a_reducer_at_composition(entry: Entry) -> None:
    subject = Subject(entry, default_registry())
    for name, reducer in REDUCERS.items():
        with pytest.raises(RecipeError, match="reduces itself"):
            nearfar.compose(str(subject.part()), reducer=str(parse_part(f"{name}({reducer.example})")))
