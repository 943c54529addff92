"""Specs are frozen, checked and serialisable data."""

from __future__ import annotations

import dataclasses
import json

import pytest

from nearfar.errors import RegistrationError
from nearfar.registry import default_registry
from nearfar.spec import KINDS, LossSpec, Paper, PartSpec, Preset

MINIMAL = {"name": "spread", "target": "acme.losses:Spread", "summary": "A loss."}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "my loss"}, "'my loss' is not an identifier"),
        ({"name": "lambda"}, "'lambda' is not an identifier"),
        ({"aliases": ("a-b",)}, "'a-b' is not an identifier"),
        ({"target": "acme.losses.Spread"}, "not of the form 'package.module:Class'"),
        ({"summary": ""}, "the summary is empty"),
        ({"accepts": ("quadruplets",)}, "accepts has 'quadruplets'; known are matches, pairs, triplets, weights"),
        ({"emits": ("elements",)}, "emits has 'elements'"),
        ({"accepts": "pairs"}, "accepts must be a tuple of names"),
        ({"inputs": ()}, "inputs is empty"),
        ({"optional_inputs": "weights"}, "optional_inputs must be a tuple of names"),
        ({"default_distance": None}, "default_distance must be a text, not None; leave it out where there is none"),
        ({"inputs": ("a", "b"), "optional_inputs": ("b",)}, "'b' is an input already, and not an optional one"),
        ({"optional_inputs": ("ref_emb",)}, "'ref_emb' is an input already"),
    ],
)
def test_a_spec_that_cannot_be_right_is_refused_with_the_reason(fields, message):
    with pytest.raises(RegistrationError, match=message.replace("(", r"\(").replace(")", r"\)")):
        LossSpec(**MINIMAL | fields)


def test_a_spec_cannot_be_changed():
    spec = LossSpec(**MINIMAL, presets={"paper": Preset(arguments={"margin": 1}, source="a paper")}, aliases=["other"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"
    with pytest.raises(TypeError):
        spec.presets["more"] = None
    assert spec.aliases == ("other",)


def test_a_spec_becomes_json_and_keeps_every_field():
    paper = Paper(authors="A. Author", title="On losses", year=2020, arxiv="2001.00001")
    spec = LossSpec(**MINIMAL, paper=paper, presets={"paper": Preset(arguments={"margin": 1}, source="§3")})
    data = json.loads(json.dumps(spec.to_dict()))
    assert data["kind"] == "loss"
    assert data["paper"]["arxiv"] == "2001.00001"
    assert data["presets"] == {"paper": {"arguments": {"margin": 1}, "source": "§3"}}
    assert set(data) == {"kind"} | {field.name for field in dataclasses.fields(LossSpec)}


def test_a_paper_reads_as_a_citation():
    assert str(Paper(authors="Deng et al.", title="ArcFace", year=2019, arxiv="1801.07698")) == (
        "Deng et al. (2019). ArcFace. arXiv:1801.07698"
    )


@pytest.mark.parametrize("spec", [entry.spec for kind in KINDS for entry in default_registry().entries(kind)], ids=str)
def test_every_installed_spec_is_json_serialisable(spec: PartSpec):
    assert json.loads(json.dumps(spec.to_dict(), allow_nan=False))["name"] == spec.name
