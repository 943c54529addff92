"""What the entry module says of the losses is true of them, and presets are the programs they name."""

from __future__ import annotations

import ast
import importlib
import inspect
import math
import subprocess
import sys

import pytest
import torch
from pytorch_metric_learning import losses as pml

from nearfar.nn.reducers import Mean
from nearfar_margin.plugin import nearfar_losses

SPECS = {spec.name: spec for spec in nearfar_losses()}
C, D = 9, 4
each = pytest.mark.parametrize("name", SPECS)


def part(name):
    module, cls = SPECS[name].target.split(":")
    return getattr(importlib.import_module(module), cls)


def example(name):
    """The arguments that have no default."""
    return {
        key: ast.literal_eval(value)
        for key, _, value in (each.partition("=") for each in SPECS[name].example.split(","))
        if key
    }


def preset(name, of):
    return part(of)(C, D, **SPECS[of].presets[name].arguments).double()


def batch():
    """Every angle to the own class from near 0 to near π, so that every branch of a margin is taken."""
    g = torch.Generator().manual_seed(0)
    w = torch.nn.functional.normalize(torch.randn(C, D, generator=g, dtype=torch.float64), dim=1)
    y = torch.arange(40) % C
    side = torch.randn(40, D, generator=g, dtype=torch.float64)
    side = torch.nn.functional.normalize(side - (side * w[y]).sum(1, keepdim=True) * w[y], dim=1)
    theta = torch.linspace(0.02, math.pi - 0.02, 40, dtype=torch.float64)[:, None]
    return w, (theta.cos() * w[y] + theta.sin() * side), y


def test_the_names_are_these():
    assert list(SPECS) == [
        "softmax",
        "modified_softmax",
        "norm_softmax",
        "l_softmax",
        "sphereface",
        "sphereface_r",
        "sphereface2",
        "cosface",
        "am_softmax",
        "arcface",
        "combined_margin",
        "subcenter_arcface",
        "adacos",
        "curricularface",
        "adaface",
        "magface",
        "elasticface",
        "mv_softmax",
        "kappaface",
        "p2sgrad",
        "unified_ce",
        "arcnegface",
        "npcface",
    ]


def test_the_entry_module_is_light():
    code = "import sys, nearfar_margin.plugin as p; list(p.nearfar_losses()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@each
def test_the_spec_is_true(name):
    spec, cls = SPECS[name], part(name)
    assert list(inspect.signature(cls).parameters)[: len(spec.needs)] == list(spec.needs)
    loss = cls(C, D, **example(name)).double()
    assert loss.distance is None
    assert spec.distances == ()
    assert isinstance(loss.reducer, Mean)
    assert spec.default_reducer == "core.mean"
    _, x, y = batch()
    assert recorded(loss, x, y).kind == spec.emits[0]
    loss.eval()
    x = 30 * x  # MagFace minds lengths from 10 to 110
    assert (not torch.allclose(loss(x, y), loss(2 * x, y))) == spec.uses_norm


def recorded(loss, x, y):
    """The terms a loss hands to its reducer."""
    seen = []

    class Spy(Mean):
        def reduce(self, terms):
            seen.append(terms)
            return super().reduce(terms)

    loss.reducer = Spy()
    loss(x, y)
    return seen[0]


@each
def test_every_preset_can_be_made(name):
    for arguments in SPECS[name].presets.values():
        part(name)(C, D, **arguments.arguments)


def straight_cosines(w, x):
    return torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(w, dim=1).T


def insightface_2023(w, x, y):
    """Widen the angle under no_grad, in place, then scale."""
    z = straight_cosines(w, x)
    with torch.no_grad():
        z.arccos_()
        z[torch.arange(len(y)), y] += 0.5
        z.cos_()
    return torch.nn.functional.cross_entropy(z * 64, y)


def acos(w, x, y):
    z = straight_cosines(w, x)
    own = torch.nn.functional.one_hot(y, C).bool()
    return torch.nn.functional.cross_entropy(64 * torch.where(own, torch.cos(torch.acos(z) + 0.5), z), y)


def mxnet(easy):
    def loss(w, x, y):
        z = straight_cosines(w, x)
        own = torch.nn.functional.one_hot(y, C).bool()
        wide = torch.cos(torch.acos(z) + 0.5)
        kept = z if easy else z - 0.5 * math.sin(0.5)
        wide = torch.where(z > (0 if easy else math.cos(math.pi - 0.5)), wide, kept)
        return torch.nn.functional.cross_entropy(64 * torch.where(own, wide, z), y)

    return loss


def theirs(cls, **arguments):
    def loss(w, x, y):
        module = cls(C, D, **arguments).double()
        del module.W  # a parameter cannot be a view of ours
        module.W = w.T
        return module(x, y)

    return loss


def own(y):
    return torch.nn.functional.one_hot(y, C).bool()


def combined(m1, m2, m3):
    def loss(w, x, y):
        z = straight_cosines(w, x)
        wide = torch.cos(m1 * torch.acos(z) + m2) - m3
        return torch.nn.functional.cross_entropy(64 * torch.where(own(y), wide, z), y)

    return loss


def curricular(momentum):
    """One call of a new loss, whose running mean is 0 before it."""

    def loss(w, x, y):
        z = straight_cosines(w, x)
        t = z[own(y)][:, None]
        wide = torch.where(t > -math.cos(0.5), torch.cos(torch.acos(t) + 0.5), t - 0.5 * math.sin(0.5))
        tau = momentum * t.detach().mean()
        hard = torch.where(z > wide, z * (tau + z), z)
        return torch.nn.functional.cross_entropy(64 * torch.where(own(y), wide, hard), y)

    return loss


def mv_arc(w, x, y):
    z = straight_cosines(w, x)
    t = z[own(y)][:, None]
    wide = torch.where(t > -math.cos(0.5), torch.cos(torch.acos(t) + 0.5), t - 0.5 * math.sin(0.5))
    hard = torch.where(z > wide, 1.2 * z + 0.2, z)
    return torch.nn.functional.cross_entropy(32 * torch.where(own(y), wide, hard), y)


def magface(weight):
    """Lengths of 1, below the least one: no gradient of a length, the least margin."""

    def loss(w, x, y):
        z = straight_cosines(w, x)
        a = x.norm(dim=1, keepdim=True).clamp(10, 110)
        wide = torch.cos(torch.acos(z) + 0.45 + 0.35 * (a - 10) / 100)
        z = 64 * torch.where(own(y) & (z > 0), wide, z)
        return torch.nn.functional.cross_entropy(z, y) + weight * (a / 110**2 + 1 / a).mean()

    return loss


PROGRAMS = {
    ("arcface", "insightface_2023"): insightface_2023,
    ("arcface", "insightface_2019"): mxnet(easy=False),
    ("arcface", "insightface_2019_easy"): mxnet(easy=True),
    ("arcface", "acos"): acos,
    ("arcface", "pml"): theirs(pml.ArcFaceLoss),
    ("norm_softmax", "pml"): theirs(pml.NormalizedSoftmaxLoss),
    ("l_softmax", "pml"): theirs(pml.LargeMarginSoftmaxLoss),
    ("sphereface", "paper"): theirs(pml.SphereFaceLoss),
    ("combined_margin", "cm1"): combined(1.0, 0.3, 0.2),
    ("combined_margin", "multiplicative"): combined(1.5, 0.0, 0.0),
    ("curricularface", "tface"): curricular(0.1),
    ("mv_softmax", "arc"): mv_arc,
    ("magface", "authors"): magface(35),
}


# Their LargeMarginSoftmaxLoss has numpy wrap a tensor, which numpy 2 does not like.
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize(("name", "preset_name"), PROGRAMS)
def test_value_and_gradient_are_the_programs(name, preset_name):
    loss = preset(preset_name, name)
    w, x, y = batch()
    with torch.no_grad():
        loss.weight.copy_(w)
    x1, x2, w2 = x.clone().requires_grad_(), x.clone().requires_grad_(), w.clone().requires_grad_()
    expected = PROGRAMS[name, preset_name](w2, x2, y)
    expected.backward()
    found = loss(x1, y)
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(x1.grad, x2.grad, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(loss.weight.grad, w2.grad, rtol=1e-8, atol=1e-10)


def test_the_presets_of_arcface_differ():
    w, x, y = batch()
    found = set()
    for name in SPECS["arcface"].presets:
        loss = preset(name, "arcface")
        with torch.no_grad():
            loss.weight.copy_(w)
        leaf = x.clone().requires_grad_()
        value = loss(leaf, y)
        value.backward()
        found.add((round(value.item(), 6), round(leaf.grad.norm().item(), 6)))
    assert len(found) == len(SPECS["arcface"].presets)
