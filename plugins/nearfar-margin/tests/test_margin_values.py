"""Margin losses against the papers' formulas, written as loops over plain Python numbers."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning import losses as pml

from nearfar_margin.arcface import ArcFace
from nearfar_margin.cosface import CosFace
from nearfar_margin.norm_softmax import NormSoftmax
from nearfar_margin.scales import least_scale
from nearfar_margin.softmax import Softmax

C, D = 7, 5


def batch(n=9, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=g, dtype=torch.float64) * 3
    return x.to(dtype), torch.randint(C, (n,), generator=g)


def made(cls, **arguments):
    torch.manual_seed(1)
    loss = cls(C, D, **arguments).double()
    with torch.no_grad():
        loss.weight.normal_()
    return loss


def rows(tensor):
    return [[float(v) for v in row] for row in tensor.tolist()]


def cosine(a, b):
    return math.fsum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def log_softmax(z):
    top = max(z)
    lse = top + math.log(math.fsum(math.exp(v - top) for v in z))
    return [v - lse for v in z]


def reference(loss, x, y, psi):
    """The mean over the batch of −log softmax, the target's cosine put through ``psi``."""
    w, s = rows(loss.weight.detach()), float(loss.scale)
    total = []
    for xi, yi in zip(rows(x), y.tolist(), strict=True):
        c = [cosine(xi, wj) for wj in w]
        z = [s * (psi(cj) if j == yi else cj) for j, cj in enumerate(c)]
        total.append(-log_softmax(z)[yi])
    return math.fsum(total) / len(total)


def arc(m, beyond_pi="linear", easy=False):
    def psi(t):
        theta = math.acos(t)
        if easy:
            return math.cos(theta + m) if theta < math.pi / 2 else t
        if beyond_pi == "raw" or theta + m < math.pi:
            return math.cos(theta + m)
        return t - m * math.sin(m)

    return psi


CASES = {
    "norm_softmax": (NormSoftmax, {}, lambda t: t),
    "norm_softmax-12": (NormSoftmax, {"scale": 12.0}, lambda t: t),
    "cosface": (CosFace, {}, lambda t: t - 0.35),
    "cosface-am": (CosFace, {"scale": 30.0, "margin": 0.2}, lambda t: t - 0.2),
    "arcface": (ArcFace, {}, arc(0.5)),
    "arcface-wide": (ArcFace, {"margin": 1.4, "scale": 8.0}, arc(1.4)),
    "arcface-raw": (ArcFace, {"margin": 1.4, "scale": 8.0, "beyond_pi": "raw"}, arc(1.4, "raw")),
    "arcface-easy": (ArcFace, {"margin": 0.7, "easy_margin": True}, arc(0.7, easy=True)),
    "arcface-detached": (ArcFace, {"margin": 1.4, "scale": 8.0, "gradient": "detached"}, arc(1.4)),
}


@pytest.mark.parametrize("case", CASES)
def test_value_is_the_papers(case):
    cls, arguments, psi = CASES[case]
    loss = made(cls, **arguments)
    x, y = batch()
    assert loss(x, y).item() == pytest.approx(reference(loss, x, y, psi), rel=1e-12)


@pytest.mark.parametrize("engine", ["plain", "chunked"])
@pytest.mark.parametrize(
    ("epsilon", "smoothing"), [(0.1, "uniform"), (1.0, "uniform"), (0.1, "others"), (6 / 7, "others")]
)
@pytest.mark.parametrize("case", CASES)
def test_a_smoothed_value_is_the_cross_entropy_with_smoothed_labels(case, epsilon, smoothing, engine):
    """Of the logits that the margin has changed: −Σ q log softmax."""
    cls, arguments, psi = CASES[case]
    loss = made(cls, label_smoothing=epsilon, smoothing=smoothing, engine=engine, **arguments)
    x, y = batch()
    w, s = rows(loss.weight.detach()), float(loss.scale)
    total = []
    for xi, yi in zip(rows(x), y.tolist(), strict=True):
        c = [cosine(xi, wj) for wj in w]
        log = log_softmax([s * (psi(cj) if j == yi else cj) for j, cj in enumerate(c)])
        if smoothing == "others":
            q = [1 - epsilon if j == yi else epsilon / (C - 1) for j in range(C)]
        else:
            q = [(1 - epsilon) * (j == yi) + epsilon / C for j in range(C)]
        total.append(-math.fsum(a * b for a, b in zip(q, log, strict=True)))
    assert loss(x, y).item() == pytest.approx(math.fsum(total) / len(total), rel=1e-11)


@pytest.mark.parametrize("case", ["arcface-wide", "arcface-raw", "arcface-detached"])
def test_the_wide_margin_reaches_beyond_pi(case):
    """Or the cases above would say nothing about it."""
    loss = made(CASES[case][0], **CASES[case][1])
    x, y = batch()
    t = [cosine(xi, rows(loss.weight.detach())[yi]) for xi, yi in zip(rows(x), y.tolist(), strict=True)]
    beyond = [math.acos(v) + 1.4 >= math.pi for v in t]
    assert any(beyond)
    assert not all(beyond)


def softmax_reference(loss, x, y, epsilon=0.0, others=False):
    w = rows(loss.weight.detach())
    b = [0.0] * C if loss.bias is None else loss.bias.tolist()
    total = []
    for xi, yi in zip(rows(x), y.tolist(), strict=True):
        lp = log_softmax(
            [math.fsum(p * q for p, q in zip(xi, wj, strict=True)) + bj for wj, bj in zip(w, b, strict=True)]
        )
        if others:
            q = [1 - epsilon if j == yi else epsilon / (C - 1) for j in range(C)]
        else:
            q = [(1 - epsilon) * (j == yi) + epsilon / C for j in range(C)]
        total.append(-math.fsum(qj * lpj for qj, lpj in zip(q, lp, strict=True)))
    return math.fsum(total) / len(total)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("epsilon", "smoothing"), [(0.0, "uniform"), (0.1, "uniform"), (1.0, "uniform")])
def test_softmax_is_torchs_convention(bias, epsilon, smoothing):
    loss = made(Softmax, bias=bias, label_smoothing=epsilon, smoothing=smoothing)
    x, y = batch()
    assert loss(x, y).item() == pytest.approx(softmax_reference(loss, x, y, epsilon), rel=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, (C - 1) / C])
def test_softmax_smooths_over_the_other_classes(epsilon):
    loss = made(Softmax, label_smoothing=epsilon, smoothing="others")
    x, y = batch()
    assert loss(x, y).item() == pytest.approx(softmax_reference(loss, x, y, epsilon, others=True), rel=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c != "arcface-detached"])
def test_gradient_is_that_of_the_value(case):
    cls, arguments, _ = CASES[case]
    loss = made(cls, **arguments)
    x, y = batch(n=4)

    def value(x, w):
        return torch.func.functional_call(loss, {"weight": w}, (x, y))

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), loss.weight.detach().clone().requires_grad_()))


def test_it_can_be_differentiated_twice():
    loss = made(ArcFace, scale=8.0)
    x, y = batch(n=2)
    assert torch.autograd.gradgradcheck(lambda v: loss(v, y), (x.requires_grad_(),))


@pytest.mark.parametrize("smoothing", ["uniform", "others"])
def test_gradient_of_softmax_is_that_of_the_value(smoothing):
    loss = made(Softmax, label_smoothing=0.2, smoothing=smoothing)
    x, y = batch(n=4)

    def value(x, w, b):
        return torch.func.functional_call(loss, {"weight": w, "bias": b}, (x, y))

    w, b = (p.detach().clone().requires_grad_() for p in (loss.weight, loss.bias))
    assert torch.autograd.gradcheck(value, (x.requires_grad_(), w, b))


@pytest.mark.parametrize("beyond_pi", ["linear", "raw"])
def test_a_detached_margin_passes_the_gradient_of_the_frozen_margin(beyond_pi):
    """s(t + const): ψ(t) − t held fixed at its value."""
    loss = made(ArcFace, margin=1.4, scale=8.0, gradient="detached", beyond_pi=beyond_pi)
    x, y = batch()
    psi = arc(1.4, beyond_pi)
    w = rows(loss.weight.detach())
    shift = [psi(t) - t for t in (cosine(xi, w[yi]) for xi, yi in zip(rows(x), y.tolist(), strict=True))]

    x1, w1 = x.clone().requires_grad_(), loss.weight.detach().clone().requires_grad_()
    c = torch.cosine_similarity(x1[:, None], w1[None], dim=2)
    z = 8 * (c + torch.nn.functional.one_hot(y, C) * torch.tensor(shift, dtype=torch.float64)[:, None])
    expected = torch.autograd.grad((z.logsumexp(1) - z[torch.arange(len(y)), y]).mean(), (x1, w1))

    x2 = x.clone().requires_grad_()
    loss(x2, y).backward()
    torch.testing.assert_close(x2.grad, expected[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loss.weight.grad, expected[1], rtol=1e-10, atol=1e-12)


def test_a_learned_scale_has_the_gradient_of_the_value():
    loss = made(NormSoftmax, scale=12.0, learn_scale=True)
    x, y = batch(n=4)
    assert dict(loss.named_parameters())["scale"].item() == 12

    def value(s, x):
        return torch.func.functional_call(loss, {"scale": s}, (x, y))

    assert torch.autograd.gradcheck(value, (torch.tensor(12.0, dtype=torch.float64, requires_grad=True), x))


@pytest.mark.parametrize(("classes", "published"), [(10_575, 13.9), (85_742, 16.0), (1_000_000, 18.4)])
def test_the_least_scale_is_cosfaces(classes, published):
    assert least_scale(classes) == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize("classes", [2, 5])
def test_at_the_least_scale_a_simplex_reaches_the_probability(classes):
    """With weights on a simplex and x on its own: cosines 1 and −1/(C − 1)."""
    s = least_scale(classes, 0.9)
    own, other = math.exp(s), (classes - 1) * math.exp(-s / (classes - 1))
    assert own / (own + other) == pytest.approx(0.9, rel=1e-12)


@pytest.mark.parametrize("own", [1.0, 0.65, math.cos(0.5), -0.1])
def test_at_the_least_scale_a_simplex_reaches_the_probability_in_spite_of_a_margin(own):
    """With ψ in the place of the cosine of 1; 4 other classes at −1/4."""
    s = least_scale(5, 0.9, own=own)
    target, others = math.exp(s * own), 4 * math.exp(-s / 4)
    assert target / (target + others) == pytest.approx(0.9, rel=1e-12)


def test_a_margin_needs_a_larger_scale():
    """CosFace's own setting: without its margin 13.9, with it 21.3."""
    assert CosFace(10_575, 2, scale="auto").scale == pytest.approx(21.3, abs=0.05)
    assert ArcFace(10_575, 2, scale="auto").scale == pytest.approx(13.86 / math.cos(0.5), abs=0.05)
    assert NormSoftmax(10_575, 2, scale="auto").scale == pytest.approx(13.86, abs=0.05)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ArcFace(C, D, margin=math.radians(28.6)), pml.ArcFaceLoss(C, D)),
        (CosFace(C, D), pml.CosFaceLoss(C, D)),
        (NormSoftmax(C, D, scale=20.0), pml.NormalizedSoftmaxLoss(C, D)),
    ],
    ids=["arcface", "cosface", "norm_softmax"],
)
def test_equals_pytorch_metric_learning(ours, theirs):
    ours, theirs = ours.double(), theirs.double()
    with torch.no_grad():
        theirs.W.copy_(ours.weight.T)
    x, y = batch()
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = ours(x1, y), theirs(x2, y)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=0)
    a.backward()
    b.backward()
    torch.testing.assert_close(x1.grad, x2.grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(ours.weight.grad, theirs.W.grad.T, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5, 1.5])
def test_the_linear_target_falls_with_the_angle(margin):
    loss = ArcFace(C, D, margin=margin)
    theta = torch.linspace(0, math.pi, 1001, dtype=torch.float64)
    psi = loss.target(theta.cos(), None)
    assert (psi.diff() <= 1e-12).all()


def test_without_a_margin_all_are_the_same_loss():
    x, y = batch()
    plain = made(NormSoftmax, scale=64.0)
    for loss in (made(CosFace, margin=0.0), made(ArcFace, margin=0.0), made(ArcFace, margin=0.0, gradient="detached")):
        torch.testing.assert_close(loss(x, y), plain(x, y), rtol=1e-12, atol=0)
