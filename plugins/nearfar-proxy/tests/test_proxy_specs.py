"""What the entry module says of the losses is true of them."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
import torch

from nearfar.nn.distances import SquaredEuclidean
from nearfar.nn.reducers import Mean
from nearfar_proxy.plugin import nearfar_losses

SPECS = {spec.name: spec for spec in nearfar_losses()}
DISTANCES = {"": type(None), "core.squared_euclidean": SquaredEuclidean}
C, D = 5, 4
each = pytest.mark.parametrize("name", SPECS)


def part(name):
    module, cls = SPECS[name].target.split(":")
    return getattr(importlib.import_module(module), cls)


def test_the_names_are_these():
    assert list(SPECS) == ["proxy_nca", "center"]


def test_the_entry_module_is_light():
    code = "import sys, nearfar_proxy.plugin as p; list(p.nearfar_losses()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@each
def test_the_spec_is_true(name):
    spec, cls = SPECS[name], part(name)
    parameters = inspect.signature(cls).parameters
    assert list(parameters)[: len(spec.needs)] == list(spec.needs)
    assert ("distance" in parameters) == bool(spec.distances)
    loss = cls(C, D).eval()
    assert type(loss.distance) is DISTANCES[spec.default_distance]
    assert isinstance(loss.reducer, Mean)
    assert spec.default_reducer == "core.mean"
    seen = []

    class Spy(Mean):
        def reduce(self, terms):
            seen.append(terms.kind)
            return super().reduce(terms)

    loss.reducer = Spy()
    x, y = torch.randn(8, D, generator=torch.Generator().manual_seed(0)), torch.arange(8) % C
    changed = not torch.allclose(loss(x, y), loss(2 * x, y))
    assert changed == spec.uses_norm
    assert set(seen) == set(spec.emits)


@each
def test_every_preset_can_be_made(name):
    for preset in SPECS[name].presets.values():
        part(name)(C, D, **preset.arguments)


def test_proxy_nca_pp_is_a_softmax_at_a_temperature_of_a_ninth():
    loss = part("proxy_nca")(C, D, **SPECS["proxy_nca"].presets["proxy_nca_pp"].arguments)
    x, y = torch.randn(8, D), torch.arange(8) % C
    unit = torch.nn.functional.normalize
    # Both sides are multiplied by 3 before the squared distance, as in the authors' code.
    logits = -(torch.cdist(3 * unit(x), 3 * unit(loss.weight)) ** 2)
    torch.testing.assert_close(loss(x, y), torch.nn.functional.cross_entropy(logits, y))
