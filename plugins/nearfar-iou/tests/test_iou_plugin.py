"""What the plugin registers; that its specs are true of its parts is for the conformance checks."""

from __future__ import annotations

import importlib
import inspect

import pytest

from nearfar.nn import Loss
from nearfar.spec import LossSpec
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
def test_a_loss_names_its_inputs_as_its_spec_does_and_takes_no_miner(spec: LossSpec) -> None:
    module, name = spec.target.split(":")
    target = getattr(importlib.import_module(module), name)
    assert issubclass(target, Loss)
    taken = inspect.signature(target.terms).parameters.values()
    assert tuple(p.name for p in taken if p.default is p.empty) == ("self", *spec.inputs)
    assert not spec.accepts
    assert not spec.distances
