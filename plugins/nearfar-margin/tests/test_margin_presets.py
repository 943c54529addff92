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
from nearfar_margin.noise import counted_normal
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


def batch(least=0.02):
    """Every angle to the own class from ``least`` to near π, so that every branch of a margin is taken, and in no order
    lengths from 1 to 130, of which some are beyond the bounds that losses have.
    """
    g = torch.Generator().manual_seed(0)
    w = torch.nn.functional.normalize(torch.randn(C, D, generator=g, dtype=torch.float64), dim=1)
    y = torch.arange(40) % C
    side = torch.randn(40, D, generator=g, dtype=torch.float64)
    side = torch.nn.functional.normalize(side - (side * w[y]).sum(1, keepdim=True) * w[y], dim=1)
    theta = torch.linspace(least, math.pi - least, 40, dtype=torch.float64)[:, None]
    lengths = torch.linspace(1, 130, 40, dtype=torch.float64)[torch.arange(40) * 7 % 40, None]
    return w, (theta.cos() * w[y] + theta.sin() * side) * lengths, y


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
    x = torch.nn.functional.normalize(x, dim=1) * 30  # MagFace minds lengths from 10 to 110
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


def smoothed(share_of_others):
    """A linear classifier whose targets are no longer 0 and 1."""

    def loss(w, x, y, bias):
        log_p = torch.log_softmax(x @ w.T + bias, 1)
        on_own, on_others = (0.9, 0.1 / (C - 1)) if share_of_others else (0.9 + 0.1 / C, 0.1 / C)
        targets = own(y) * (w.new_tensor(on_own) - on_others) + on_others
        return -(targets * log_p).sum(1).mean()

    return loss


def learned_scale(w, x, y, scale):
    """It starts where a class can have a probability of 0.99."""
    assert scale.item() == pytest.approx((C - 1) / C * math.log((C - 1) * 0.99 / 0.01), rel=1e-6)
    return torch.nn.functional.cross_entropy(scale * straight_cosines(w, x), y)


def annealed(m, weight, by_weight=False):
    """The first step of a multiplicative margin: λ has fallen once."""

    def loss(w, x, y):
        c = straight_cosines(w, x)
        theta = torch.acos(c)
        k = (m * theta.detach() / math.pi).floor()
        phi = (-1) ** k * torch.cos(m * theta) - 2 * k
        z = torch.where(own(y), (weight * c + phi) / (1 + weight), c) * x.norm(dim=1, keepdim=True)
        return torch.nn.functional.cross_entropy(z * w.norm(dim=1) if by_weight else z, y)

    return loss


def revived(version, m, scale):
    """OpenSphere: what the margin changes is added as a constant."""

    def loss(w, x, y):
        c = straight_cosines(w, x)
        with torch.no_grad():
            theta = torch.acos(c)
            own_moves = version == "v1"
            moved = torch.cos((m * theta).clamp(max=math.pi)) if own_moves else torch.cos(theta / m)
            change = torch.where(own(y) == own_moves, moved - c, 0)
        return torch.nn.functional.cross_entropy((c + change) * (scale or x.norm(dim=1, keepdim=True)), y)

    return loss


def binary(share, r, m):
    """OpenSphere's SphereFace2, whose weight of the loss, 50, is a term's here."""

    def loss(w, x, y, bias):
        c = straight_cosines(w, x)
        with torch.no_grad():
            g = 2 * ((c + 1) / 2) ** 3 - 1
            change = torch.where(own(y), g - m, g + m) - c
        z = r * (c + change) + bias
        each = torch.nn.functional.binary_cross_entropy_with_logits(z, own(y).double(), reduction="none")
        return (torch.where(own(y), share * each, (1 - share) * each) / r).sum(1).mean()

    return loss


def cosine_margin(m, scale):
    def loss(w, x, y):
        z = straight_cosines(w, x)
        z = torch.where(own(y), z - m, z)
        return torch.nn.functional.cross_entropy(z * (scale or x.norm(dim=1, keepdim=True)), y)

    return loss


def subcenters(w, x, y):
    """Theirs has the vectors of a class in neighbouring columns."""
    module = pml.SubCenterArcFaceLoss(num_classes=C, embedding_size=D).double()
    del module.W
    module.W = w.flatten(0, 1).T
    return module(x, y)


def fixed_adacos(w, x, y):
    scale = torch.tensor(math.sqrt(2) * math.log(C - 1))  # it is kept in float32
    return torch.nn.functional.cross_entropy(scale.double() * straight_cosines(w, x), y)


def adaface(momentum):
    """One call of a new loss, whose running mean and deviation are 20 and 100 before it."""

    def loss(w, x, y):
        norms = x.norm(dim=1, keepdim=True).clamp(0.001, 100).detach()
        mean = norms.mean() * momentum + (1 - momentum) * 20
        std = norms.std() * momentum + (1 - momentum) * 100
        graded = ((norms - mean) / (std + 1e-3) * 0.333).clamp(-1, 1)
        theta = torch.acos(straight_cosines(w, x))
        wide = (theta - 0.4 * graded * own(y)).clamp(1e-3, math.pi - 1e-3)
        return torch.nn.functional.cross_entropy(64 * (wide.cos() - (0.4 + 0.4 * graded) * own(y)), y)

    return loss


def elastic(form, m, deviation, plus):
    """Whose margins are drawn: those that this loss draws first."""

    def loss(w, x, y):
        c = straight_cosines(w, x)
        drawn = m + deviation * counted_normal(0, torch.zeros((), dtype=torch.int64), len(y)).double()[:, None]
        if plus:  # as the paper means it: the nearest to its class gets the smallest margin
            rank = c[own(y)].argsort(descending=True).argsort()
            drawn = drawn.sort(0).values[rank]
        wide = torch.cos(torch.acos(c) + drawn) if form == "arc" else c - drawn
        return torch.nn.functional.cross_entropy(64 * torch.where(own(y), wide, c), y)

    return loss


def facex_zoo_mv(w, x, y):
    c = straight_cosines(w, x)
    t = c[own(y)][:, None]
    hard = torch.where(c > t - 0.35, 1.12 * c + 1.12 - 1, c)
    return torch.nn.functional.cross_entropy(32 * torch.where(own(y), torch.where(t > 0.35, t - 0.35, t), hard), y)


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
    def loss(w, x, y):
        z = straight_cosines(w, x)
        a = x.norm(dim=1, keepdim=True).clamp(10, 110)
        wide = torch.cos(torch.acos(z) + 0.45 + 0.35 * (a - 10) / 100)
        z = 64 * torch.where(own(y) & (z > 0), wide, z)
        return torch.nn.functional.cross_entropy(z, y) + weight * (a / 110**2 + 1 / a).mean()

    return loss


PROGRAMS = {
    ("softmax", "inception"): smoothed(share_of_others=False),
    ("softmax", "fast_reid"): smoothed(share_of_others=True),
    ("norm_softmax", "pml"): theirs(pml.NormalizedSoftmaxLoss),
    ("norm_softmax", "learned"): learned_scale,
    ("l_softmax", "pml"): theirs(pml.LargeMarginSoftmaxLoss),
    ("l_softmax", "mnist"): annealed(4, 1000 * (1 + 2.5e-5) ** -35, by_weight=True),
    ("sphereface", "authors"): annealed(4, 1000 / 1.12),
    ("sphereface", "clcarwin"): annealed(4, 1500 / 1.1),
    ("sphereface", "paper"): theirs(pml.SphereFaceLoss),
    ("sphereface_r", "v1_hfn"): revived("v1", 1.5, 30),
    ("sphereface_r", "v2_hfn"): revived("v2", 1.4, 30),
    ("sphereface_r", "v1_nfn"): revived("v1", 1.5, None),
    ("sphereface2", "casia"): binary(0.7, 40, 0.4),
    ("sphereface2", "ms1m"): binary(0.8, 64, 0.5),
    ("cosface", "insightface"): cosine_margin(0.4, 64),
    ("cosface", "unnormalized"): cosine_margin(0.35, None),
    ("am_softmax", "unnormalized"): cosine_margin(0.35, None),
    ("arcface", "insightface_2023"): insightface_2023,
    ("arcface", "insightface_2019"): mxnet(easy=False),
    ("arcface", "insightface_2019_easy"): mxnet(easy=True),
    ("arcface", "pml"): theirs(pml.ArcFaceLoss),
    ("arcface", "acos"): acos,
    ("combined_margin", "cm1"): combined(1.0, 0.3, 0.2),
    ("combined_margin", "cm2"): combined(0.9, 0.4, 0.15),
    ("combined_margin", "multiplicative"): combined(1.5, 0.0, 0.0),
    ("combined_margin", "multiplicative_angular"): combined(1.2, 0.4, 0.0),
    ("combined_margin", "multiplicative_cosine"): combined(1.1, 0.0, 0.35),
    ("subcenter_arcface", "pml"): subcenters,
    ("adacos", "fixed"): fixed_adacos,
    ("curricularface", "authors"): curricular(0.01),
    ("curricularface", "tface"): curricular(0.1),
    ("adaface", "authors"): adaface(0.01),
    ("adaface", "authors_class"): adaface(1.0),
    ("magface", "authors"): magface(35),
    ("magface", "authors_program"): magface(20),
    ("elasticface", "arc_plus"): elastic("arc", 0.5, 0.0175, plus=True),
    ("elasticface", "cos"): elastic("cos", 0.35, 0.05, plus=False),
    ("elasticface", "cos_plus"): elastic("cos", 0.35, 0.02, plus=True),
    ("mv_softmax", "arc"): mv_arc,
    ("mv_softmax", "facex_zoo"): facex_zoo_mv,
}
#: AdaFace's code keeps cosines in ±0.999, which is a deviation that its spec declares.
LEAST = {"adaface": 0.06}


def test_every_preset_has_a_program_here():
    assert list(PROGRAMS) == [(name, preset) for name in SPECS for preset in SPECS[name].presets]


# Their LargeMarginSoftmaxLoss has numpy wrap a tensor, which numpy 2 does not like.
@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize(("name", "preset_name"), PROGRAMS)
def test_value_and_gradient_are_the_programs(name, preset_name):
    loss = preset(preset_name, name)
    w, x, y = batch(LEAST.get(name, 0.02))
    if loss.weight.ndim == 3:
        g = torch.Generator().manual_seed(1)
        w = w[:, None] + 0.3 * torch.randn(loss.weight.shape, generator=g, dtype=w.dtype)
    with torch.no_grad():
        loss.weight.copy_(w)
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    # Whatever is learned: the vectors first, as they are the program's first argument.
    learned = sorted(loss.named_parameters(), key=lambda named: named[0] != "weight")
    leaves = [parameter.detach().clone().requires_grad_() for _, parameter in learned]
    expected = PROGRAMS[name, preset_name](leaves[0], x2, y, *leaves[1:])
    expected.backward()
    found = loss(x1, y)
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(x1.grad, x2.grad, rtol=1e-8, atol=1e-10)
    for (what, parameter), leaf in zip(learned, leaves, strict=True):
        torch.testing.assert_close(parameter.grad, leaf.grad, rtol=1e-8, atol=1e-10, msg=lambda m, w=what: f"{w}: {m}")


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
