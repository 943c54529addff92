"""Each margin loss against its paper's formula, written as loops over plain Python numbers, call after call.

A reference is made anew for each test and keeps its own running state. It gets the cosines (rows of floats), the
lengths of embeddings and class vectors, the labels, the learned bias and whether it trains, and returns the loss of
each sample.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import pytest
import torch

from nearfar.nn.reducers import NoReduction
from nearfar_margin.adacos import AdaCos
from nearfar_margin.adaface import AdaFace
from nearfar_margin.am_softmax import AMSoftmax
from nearfar_margin.arcnegface import ArcNegFace
from nearfar_margin.combined_margin import CombinedMargin
from nearfar_margin.cosface import CosFace
from nearfar_margin.curricularface import CurricularFace
from nearfar_margin.l_softmax import LSoftmax
from nearfar_margin.magface import MagFace
from nearfar_margin.modified_softmax import ModifiedSoftmax
from nearfar_margin.mv_softmax import MVSoftmax
from nearfar_margin.npcface import NPCFace
from nearfar_margin.p2sgrad import P2SGrad
from nearfar_margin.sphereface import SphereFace
from nearfar_margin.sphereface2 import SphereFace2
from nearfar_margin.sphereface_r import SphereFaceR
from nearfar_margin.subcenter_arcface import SubcenterArcFace
from nearfar_margin.unified_ce import UnifiedCE

C, D, N = 7, 5, 24


@dataclass
class Call:
    """What a reference is called with."""

    c: list[list[float]]
    norms: list[float]
    weight_norms: list[float]
    y: list[int]
    bias: float
    training: bool

    def rows(self):
        """Of each sample the cosine to its own class, all cosines, its label and its length."""
        return [(row[j], row, j, a) for row, j, a in zip(self.c, self.y, self.norms, strict=True)]


def cross_entropy(z, y):
    top = max(z)
    return top + math.log(math.fsum(math.exp(v - top) for v in z)) - z[y]


def logits(call, target, others=lambda c, t: c, scale=1.0):
    """The cross entropy where the logits are the scale times ``target(t, i)`` and ``others(c, t)``."""
    return [
        cross_entropy([scale * (target(t, i) if k == j else others(v, t)) for k, v in enumerate(row)], j)
        for i, (t, row, j, _) in enumerate(call.rows())
    ]


def softplus(z):
    return max(z, 0) + math.log1p(math.exp(-abs(z)))


def arc(m):
    def psi(t, i=0):
        theta = math.acos(t)
        return math.cos(theta + m) if theta + m < math.pi else t - m * math.sin(m)

    return psi


# ---- the references


def modified_softmax(call):
    return [cross_entropy([a * v for v in row], j) for _, row, j, a in call.rows()]


def unnormalized(call):
    return [cross_entropy([a * (v - 0.35 * (k == j)) for k, v in enumerate(row)], j) for _, row, j, a in call.rows()]


def falling(theta, m):
    k = min(math.floor(theta * m / math.pi), m - 1)
    return (-1) ** k * math.cos(m * theta) - 2 * k


def multiplicative(m, base, gamma, power, least, by_weight):
    step = 0

    def loss(call):
        nonlocal step
        step += call.training
        found = []
        weight = max(least, base * (1 + gamma * step) ** -power)
        for t, row, j, a in call.rows():
            psi = (weight * t + falling(math.acos(t), m)) / (1 + weight)
            z = [a * (psi if k == j else v) for k, v in enumerate(row)]
            if by_weight:
                z = [b * v for b, v in zip(call.weight_norms, z, strict=True)]
            found.append(cross_entropy(z, j))
        return found

    return loss


def sphereface_r(version, m):
    def loss(call):
        if version == "v1":
            return logits(call, lambda t, i: math.cos(min(m * math.acos(t), math.pi)), scale=30)
        return logits(call, lambda t, i: t, lambda c, t: math.cos(math.acos(c) / m), scale=30)

    return loss


def sphereface2(call, r=40, m=0.4, share=0.7, power=3):
    def g(c):
        return 2 * ((c + 1) / 2) ** power - 1

    return [
        share / r * softplus(-r * (g(t) - m) - call.bias)
        + (1 - share) / r * math.fsum(softplus(r * (g(v) + m) + call.bias) for k, v in enumerate(row) if k != j)
        for t, row, j, _ in call.rows()
    ]


def combined(m1, m2, m3, flat):
    def psi(t, i):
        wide = m1 * math.acos(t) + m2
        return math.cos(min(wide, math.pi) if flat else wide) - m3

    return lambda call: logits(call, psi, scale=64)


def adacos():
    s = math.sqrt(2) * math.log(C - 1)

    def loss(call):
        nonlocal s
        if call.training:
            others = math.fsum(math.exp(s * v) for _, row, j, _ in call.rows() for k, v in enumerate(row) if k != j)
            median = statistics.median_low(math.acos(t) for t, *_ in call.rows())
            s = math.log(others / len(call.y)) / math.cos(min(math.pi / 4, median))
        return logits(call, lambda t, i: t, scale=s)

    return loss


def curricularface(momentum):
    tau = 0.0

    def loss(call):
        nonlocal tau
        if call.training:
            tau = momentum * statistics.fmean(t for t, *_ in call.rows()) + (1 - momentum) * tau
        psi = arc(0.5)
        return logits(call, psi, lambda c, t: c * (tau + c) if c > psi(t) else c, scale=64)

    return loss


def adaface(momentum):
    mean, std = 20.0, 100.0

    def loss(call):
        nonlocal mean, std
        norms = [min(max(a, 0.001), 100) for a in call.norms]
        if call.training:
            mean = momentum * statistics.fmean(norms) + (1 - momentum) * mean
            std = momentum * statistics.stdev(norms) + (1 - momentum) * std
        z = [min(max(0.333 * (a - mean) / (std + 1e-3), -1), 1) for a in norms]

        def psi(t, i):
            theta = min(max(math.acos(t) - 0.4 * z[i], 1e-3), math.pi - 1e-3)
            return math.cos(theta) - (0.4 + 0.4 * z[i])

        return logits(call, psi, scale=64)

    return loss


def magface(easy):
    def loss(call):
        a = [min(max(v, 1.0), 8.0) for v in call.norms]
        m = [0.45 + (0.8 - 0.45) * (v - 1.0) / (8.0 - 1.0) for v in a]

        def psi(t, i):
            if easy:
                return math.cos(math.acos(t) + m[i]) if t > 0 else t
            return arc(m[i])(t)

        found = logits(call, psi, scale=64)
        return [v + 35 * (b / 8.0**2 + 1 / b) for v, b in zip(found, a, strict=True)]

    return loss


def mv_softmax(psi, raised, limit=None):
    limit = limit or psi
    return lambda call: logits(call, psi, lambda c, t: raised(c) if c > limit(t) else c, scale=32)


def only_above(least, psi):
    return lambda t, i=0: psi(t) if t > least else t


def p2sgrad(call):
    return [math.fsum((v - (k == j)) ** 2 for k, v in enumerate(row)) / 2 for _, row, j, _ in call.rows()]


def unified_ce(call):
    return [
        softplus(-64 * (t - 0.4) + call.bias)
        + 0.5 * math.fsum(softplus(64 * v - call.bias) for k, v in enumerate(row) if k != j)
        for t, row, j, _ in call.rows()
    ]


def arcnegface(call):
    psi = arc(0.5)

    def others(c, t):
        tau = 1.2 * math.exp(-((c - psi(t)) ** 2) / 2)
        return tau * c + tau - 1

    return logits(call, psi, others, scale=64)


def npcface(call):
    margins = []
    for t, row, j, _ in call.rows():
        hard = [v for k, v in enumerate(row) if k != j and v > math.cos(math.acos(t) + 0.5)]
        margins.append(0.4 + 0.2 * (statistics.fmean(hard) if hard else 0))
    return logits(
        call,
        lambda t, i: math.cos(math.acos(t) + margins[i]) if t > 0 else t,
        lambda c, t: 1.1 * c + 0.2 if c > math.cos(math.acos(t) + 0.5) else c,
        scale=64,
    )


CASES = {
    "modified_softmax": (ModifiedSoftmax, {}, lambda: modified_softmax),
    "cosface-unnormalized": (CosFace, {"scale": "norm"}, lambda: unnormalized),
    "am_softmax": (AMSoftmax, {}, lambda: lambda call: logits(call, lambda t, i: t - 0.35, scale=30)),
    "l_softmax": (LSoftmax, {}, lambda: multiplicative(4, 1000, 2.5e-5, 35, 0, True)),
    "l_softmax-bare": (
        LSoftmax,
        {"margin": 3, "lambda_base": 0.0},
        lambda: multiplicative(3, 0, 2.5e-5, 35, 0, True),
    ),
    "sphereface": (SphereFace, {}, lambda: multiplicative(4, 1000, 0.12, 1, 5, False)),
    "sphereface-fast": (
        SphereFace,
        {"margin": 5, "lambda_base": 10.0, "lambda_gamma": 2.0, "lambda_power": 2.0, "lambda_min": 0.3},
        lambda: multiplicative(5, 10, 2, 2, 0.3, False),
    ),
    "sphereface_r": (SphereFaceR, {}, lambda: sphereface_r("v1", 1.5)),
    "sphereface_r-v2": (SphereFaceR, {"version": "v2", "margin": 1.4}, lambda: sphereface_r("v2", 1.4)),
    "sphereface_r-exact": (SphereFaceR, {"gradient": "exact"}, lambda: sphereface_r("v1", 1.5)),
    "sphereface_r-v2-exact": (
        SphereFaceR,
        {"version": "v2", "gradient": "exact"},
        lambda: sphereface_r("v2", 1.5),
    ),
    "sphereface2": (SphereFace2, {}, lambda: sphereface2),
    "sphereface2-exact": (SphereFace2, {"gradient": "exact"}, lambda: sphereface2),
    "combined_margin": (CombinedMargin, {}, lambda: combined(1, 0.3, 0.2, False)),
    "combined_margin-cm2": (
        CombinedMargin,
        {"m1": 0.9, "m2": 0.4, "m3": 0.15},
        lambda: combined(0.9, 0.4, 0.15, False),
    ),
    "combined_margin-flat": (CombinedMargin, {"m1": 1.5, "beyond_pi": "flat"}, lambda: combined(1.5, 0.3, 0.2, True)),
    "adacos": (AdaCos, {}, adacos),
    "curricularface": (CurricularFace, {}, lambda: curricularface(0.01)),
    "curricularface-fast": (CurricularFace, {"momentum": 0.5}, lambda: curricularface(0.5)),
    "adaface": (AdaFace, {}, lambda: adaface(0.01)),
    "adaface-fast": (AdaFace, {"momentum": 0.9}, lambda: adaface(0.9)),
    "magface": (MagFace, {"shortest": 1.0, "longest": 8.0}, lambda: magface(True)),
    "magface-linear": (MagFace, {"shortest": 1.0, "longest": 8.0, "easy_margin": False}, lambda: magface(False)),
    "mv_softmax": (MVSoftmax, {}, lambda: mv_softmax(lambda t, i=0: t - 0.35, lambda c: 1.2 * c + 0.2)),
    "mv_softmax-fixed": (
        MVSoftmax,
        {"weighting": "fixed"},
        lambda: mv_softmax(lambda t, i=0: t - 0.35, lambda c: c + 0.2),
    ),
    "mv_softmax-arc": (
        MVSoftmax,
        {"form": "arc", "margin": 0.5},
        lambda: mv_softmax(arc(0.5), lambda c: 1.2 * c + 0.2),
    ),
    "mv_softmax-easy": (
        MVSoftmax,
        {"easy_margin": True},
        lambda: mv_softmax(only_above(0.35, lambda t: t - 0.35), lambda c: 1.2 * c + 0.2, lambda t: t - 0.35),
    ),
    "mv_softmax-arc-easy": (
        MVSoftmax,
        {"form": "arc", "margin": 0.5, "easy_margin": True},
        lambda: mv_softmax(only_above(0, arc(0.5)), lambda c: 1.2 * c + 0.2, lambda t: math.cos(math.acos(t) + 0.5)),
    ),
    "p2sgrad": (P2SGrad, {}, lambda: p2sgrad),
    "unified_ce": (UnifiedCE, {"balance": 0.5}, lambda: unified_ce),
    "arcnegface": (ArcNegFace, {}, lambda: arcnegface),
    "npcface": (NPCFace, {}, lambda: npcface),
}
each = pytest.mark.parametrize("case", CASES)


def batch(seed, n=N):
    """Embeddings of lengths from 0.3 to 30, so that every bound of a length is met, and of every angle."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=g, dtype=torch.float64)
    x *= (torch.linspace(-0.5, 1.5, n, dtype=torch.float64) * math.log(10)).exp()[:, None] / x.norm(dim=1)[:, None]
    return x, torch.randint(C, (n,), generator=g)


def made(case, engine="plain"):
    cls, arguments, reference = CASES[case]
    torch.manual_seed(1)
    loss = cls(C, D, reducer=NoReduction(), engine=engine, **arguments).double()
    with torch.no_grad():
        loss.weight.normal_()
    return loss, reference()


def called(loss, x, y):
    def dot(a, b):
        return math.fsum(p * q for p, q in zip(a, b, strict=True))

    xs, ws = x.tolist(), loss.weight.tolist()
    norms, weight_norms = [math.sqrt(dot(v, v)) for v in xs], [math.sqrt(dot(v, v)) for v in ws]
    c = [[dot(v, w) / a / b for w, b in zip(ws, weight_norms, strict=True)] for v, a in zip(xs, norms, strict=True)]
    bias = loss.bias.item() if hasattr(loss, "bias") else 0.0
    return Call(c, norms, weight_norms, y.tolist(), bias, loss.training)


@each
@pytest.mark.parametrize("engine", ["plain", "chunked"])
def test_values_are_the_papers_call_after_call(case, engine):
    """Three calls in training mode and one in evaluation mode, so that what a loss keeps is held to the formula too."""
    loss, reference = made(case, engine)
    for seed, mode in enumerate((True, True, True, False, True)):
        loss.train(mode)
        x, y = batch(seed)
        torch.testing.assert_close(
            loss(x, y), torch.tensor(reference(called(loss, x, y)), dtype=torch.float64), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("case", ["sphereface_r", "sphereface_r-v2", "sphereface2"])
def test_a_detached_margin_has_another_gradient_than_an_exact_one(case):
    (detached, _), (exact, _) = made(case), made(f"{case}-exact")
    x, y = batch(0)
    found = []
    for loss in (detached, exact):
        leaf = x.clone().requires_grad_()
        loss(leaf, y).sum().backward()
        found.append(leaf.grad)
    assert not torch.allclose(*found, rtol=1e-3)


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.split("-")[0] in {"modified_softmax", "l_softmax", "sphereface", "am_softmax"}]
    + ["cosface-unnormalized", "sphereface_r-exact", "sphereface_r-v2-exact", "sphereface2-exact", "combined_margin"]
    + ["combined_margin-flat", "magface", "magface-linear", "mv_softmax", "mv_softmax-arc", "p2sgrad", "unified_ce"],
)
@pytest.mark.parametrize("engine", ["plain", "chunked"])
def test_where_nothing_is_held_constant_the_gradient_is_that_of_the_value(case, engine):
    loss, _ = made(case, engine)
    loss.eval()
    x, y = batch(3, n=6)
    # The chunked engine goes back through others() later, and minds that a bias is then another tensor.
    learned = {"weight": loss.weight} if engine == "chunked" else dict(loss.named_parameters())
    names = list(learned)

    def value(x, *parameters):
        return torch.func.functional_call(loss, dict(zip(names, parameters, strict=True)), (x, y)).sum()

    leaves = [p.detach().clone().requires_grad_() for p in learned.values()]
    assert torch.autograd.gradcheck(value, (x.requires_grad_(), *leaves))


@pytest.mark.parametrize("classes", [2, 3, 4, 1000, 1_000_000])
@pytest.mark.parametrize("arguments", [{}, {"scale": 64.0, "margin": 0.5, "balance": 0.8}, {"margin": 0.0}])
def test_the_bias_of_sphereface2_starts_where_the_loss_of_right_angles_is_least(classes, arguments):
    loss = SphereFace2(classes, 1, **arguments).double()
    zero = torch.zeros(1, dtype=torch.float64)
    (loss.target(zero, None) + (classes - 1) * loss.others(zero, None)).backward()
    # Made in float32: half a place of b, times a second derivative of at most 1/4r.
    assert abs(loss.bias.grad.item()) < 1e-7 * abs(loss.bias.item())
    assert abs(loss.bias.item()) > 1


# ---- several vectors a class


def subcenters(x, y, w, scale=64.0):
    """One sample's cosine to a class is the greatest to its vectors."""
    found = []
    for v, j in zip(x.tolist(), y.tolist(), strict=True):
        c = [
            max(
                math.fsum(p * q for p, q in zip(v, each, strict=True)) / math.hypot(*v) / math.hypot(*each)
                for each in vectors
            )
            for vectors in w.tolist()
        ]
        found.append(cross_entropy([scale * (arc(0.5)(u) if k == j else u) for k, u in enumerate(c)], j))
    return torch.tensor(found, dtype=torch.float64)


def test_the_nearest_vector_of_a_class_counts():
    loss = SubcenterArcFace(C, D, reducer=NoReduction()).double()
    with torch.no_grad():
        loss.weight.normal_()
    x, y = batch(0)
    assert loss.weight.shape == (C, 3, D)
    torch.testing.assert_close(loss(x, y), subcenters(x, y, loss.weight.detach()), rtol=1e-9, atol=1e-9)
    weights = loss.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v, w: torch.func.functional_call(loss, {"weight": w}, (v, y[:5])).sum(),
        (x[:5].requires_grad_(), weights),
    )


def test_vectors_that_are_equally_near_share_the_gradient():
    loss = SubcenterArcFace(C, D, centers=2).double()
    with torch.no_grad():
        loss.weight[:, 1] = loss.weight[:, 0]
    loss(*batch(0)).backward()
    torch.testing.assert_close(loss.weight.grad[:, 0], loss.weight.grad[:, 1], rtol=1e-12, atol=0)
    assert loss.weight.grad.abs().max() > 0
