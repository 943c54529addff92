"""What the plugin says of its parts is true of them."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys

import pytest

from nearfar.nn import Loss
from nearfar.nn.reducers import Mean
from nearfar.spec import LossSpec
from nearfar_iou import plugin

SPECS = plugin.nearfar_losses()
every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def part(spec: LossSpec) -> type[Loss]:
    module, name = spec.target.split(":")
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, Loss)
    return found


def test_the_parts_are_these() -> None:
    assert [spec.name for spec in SPECS] == ["iou", "giou", "smooth_l1", "focal"]


@every_spec
def test_the_spec_is_true_of_the_class(spec: LossSpec) -> None:
    loss = part(spec)()
    assert spec.default_reducer == "core.mean"
    assert isinstance(loss.reducer, Mean)
    assert tuple(inspect.signature(loss.terms).parameters) == spec.inputs
    assert not spec.accepts
    assert not spec.distances
    assert json.loads(json.dumps(spec.to_dict()))["name"] == spec.name


@every_spec
def test_every_preset_can_be_built(spec: LossSpec) -> None:
    for preset in spec.presets.values():
        part(spec)(**preset.arguments)


@every_spec
def test_every_parameter_is_documented(spec: LossSpec) -> None:
    found = part(spec)
    documented = inspect.getdoc(found) or ""
    own = list(inspect.signature(found).parameters)
    assert own[-1] == "reducer"
    for name in own:
        assert f"\n{name} : " in documented


def test_the_entry_module_does_not_load_torch() -> None:
    code = "import sys, nearfar_iou.plugin as p; p.nearfar_losses(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
