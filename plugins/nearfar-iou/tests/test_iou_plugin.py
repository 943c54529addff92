"""What the plugin registers; that its specs are true of its parts is for the conformance checks."""

from __future__ import annotations

import importlib
import inspect

import pytest

from nearfar.nn import Loss
from nearfar.spec import LossSpec, MinerSpec
from nearfar_iou import plugin

SPECS = plugin.nearfar_losses()


def names(family: str) -> list[str]:
    return [spec.name for spec in SPECS if spec.family == family]


def test_the_losses_on_overlap_are_these() -> None:
    assert names("iou") == ["iou", "giou", "diou", "ciou", "eiou", "siou", "mpdiou", "wiou", "bounded_iou"]
    assert names("wrapper") == ["alpha_iou", "focal_iou", "inner_iou"]


def test_every_loss_names_what_it_computes_in_plain_words() -> None:
    assert [spec.name for spec in SPECS if not spec.definition] == []


def test_no_two_parts_have_one_name() -> None:
    assert len({spec.name for spec in SPECS}) == len(SPECS)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_loss_names_its_inputs_and_options_as_its_spec_does(spec: LossSpec) -> None:
    module, name = spec.target.split(":")
    target = getattr(importlib.import_module(module), name)
    assert issubclass(target, Loss)
    for method in (target.terms, target.forward):
        taken = inspect.signature(method).parameters.values()
        assert tuple(p.name for p in taken if p.default is p.empty) == ("self", *spec.inputs)
        assert tuple(p.name for p in taken if p.default is not p.empty) == spec.optional_inputs
    assert not spec.distances


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_loss_takes_matches_where_it_says_so(spec: LossSpec) -> None:
    module, name = spec.target.split(":")
    target = getattr(importlib.import_module(module), name)
    assert hasattr(target, "of_matches") == (spec.accepts == ("matches",))


def test_the_miners_and_distances_are_these() -> None:
    assert [spec.name for spec in plugin.nearfar_miners()] == [
        "max_iou", "atss", "task_aligned", "simota", "hungarian", "ohem", "hard_negative_ratio",
    ]  # fmt: skip
    assert [spec.name for spec in plugin.nearfar_distances()] == ["iou", "giou", "diou", "ciou", "probiou"]


@pytest.mark.parametrize("spec", plugin.nearfar_miners(), ids=lambda spec: spec.name)
def test_a_miner_names_what_it_is_called_with_as_its_spec_does(spec: MinerSpec) -> None:
    module, name = spec.target.split(":")
    target = getattr(importlib.import_module(module), name)
    assert target.produces == spec.produces
    if spec.produces == "matches":
        assert (target.inputs, target.optional_inputs) == (spec.inputs, spec.optional_inputs)
