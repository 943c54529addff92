"""The engines compute one and the same loss: values, gradients, extremes, memory, errors."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import nearfar
from nearfar.errors import ArgumentError, InputError, RecipeError
from nearfar.nn.reducers import NoReduction
from nearfar.signature import read_target
from nearfar.testing.meter import peak_bytes
from nearfar_margin import chunks
from nearfar_margin.arcface import ArcFace
from nearfar_margin.cosface import CosFace
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import MarginSoftmax
from nearfar_margin.norm_softmax import NormSoftmax
from nearfar_margin.plugin import nearfar_losses
from nearfar_margin.sampling import sample
from nearfar_margin.softmax import Softmax
from nearfar_margin.subcenter_arcface import SubcenterArcFace

C, D, N = 11, 5, 7


@dataclasses.dataclass(frozen=True, slots=True)
class WithShift(Rows):
    shift: Tensor


class Everything(MarginSoftmax):
    """A third party's: rows of its own, a learned margin, others that depend on the target and on the lengths."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.margin = torch.nn.Parameter(torch.tensor(0.2))
        self.hardness = torch.nn.Parameter(torch.tensor(1.2))

    def prepare(self, rows: Rows) -> Rows:
        return WithShift(rows.t, rows.norm, rows.labels, shift=0.1 * rows.norm * rows.t)

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return t - self.margin - rows.shift

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        hard = c > self.target(rows.t, rows)[:, None]
        return torch.where(hard, self.hardness * c + 0.2, c - 0.1 * c.square() * rows.shift[:, None])


class Binary(MarginSoftmax):
    """A loss for each class, summed: SphereFace2 without its powers."""

    separate = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.bias = torch.nn.Parameter(torch.tensor(-1.0))

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return F.softplus(-self.scale * (t - 0.2) - self.bias)

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        return F.softplus(self.scale * (c + 0.2) + self.bias)


class Surveyor(MarginSoftmax):
    """A margin that grows with the mean cosine of the hard others."""

    surveys = True

    def survey(self, c: Tensor, rows: Rows) -> tuple[Tensor, ...]:
        hard = (c > 0).to(c)
        return hard, hard * c

    def settle(self, rows: Rows, *sums: Tensor) -> Rows:
        return WithShift(rows.t, rows.norm, rows.labels, shift=0.3 + sums[1] / sums[0].clamp_min(1))

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return t - rows.shift


class Detached(Everything):
    detached = True


class Lengths(CosFace):
    times_norm = times_weight_norm = True


class LengthsAndOthers(Everything):
    times_norm = times_weight_norm = True


class Pairs(Everything):
    """Two vectors a class."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight = torch.nn.Parameter(torch.empty(C, 2, D))


class Learned(Everything):
    """Its scale is learned too."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = torch.nn.Parameter(torch.tensor(5.0))


LOSSES = {
    "softmax": lambda **k: Softmax(C, D, **k),
    "softmax-smoothed": lambda **k: Softmax(C, D, label_smoothing=0.1, bias=False, **k),
    "norm_softmax-learned": lambda **k: NormSoftmax(C, D, learn_scale=True, **k),
    "cosface": lambda **k: CosFace(C, D, **k),
    "arcface": lambda **k: ArcFace(C, D, margin=1.4, scale=8.0, **k),
    "arcface-detached": lambda **k: ArcFace(C, D, gradient="detached", beyond_pi="raw", **k),
    "subcenters": lambda **k: SubcenterArcFace(C, D, scale=8.0, centers=3, **k),
    "everything": lambda **k: Everything(C, D, scale=4.0, **k),
    "everything-subcenters": lambda **k: Pairs(C, D, scale=4.0, **k),
    "binary": lambda **k: Binary(C, D, scale=4.0, **k),
    "surveyor": lambda **k: Surveyor(C, D, scale=4.0, **k),
    "detached": lambda **k: Detached(C, D, scale=4.0, **k),
    "lengths": lambda **k: Lengths(C, D, scale=2.0, label_smoothing=0.1, **k),
    "lengths-and-others": lambda **k: LengthsAndOthers(C, D, scale=2.0, label_smoothing=0.2, smoothing="others", **k),
    "learned": lambda **k: Learned(C, D, scale=4.0, **k),
}
each = pytest.mark.parametrize("name", LOSSES)
#: No logits kept, or all of them.
budgets = pytest.mark.parametrize("budget", [0.0, None], ids=["recomputed", "kept"])


@pytest.fixture(autouse=True)
def _narrow_chunks(monkeypatch):
    """Four classes a chunk, which 11 are no multiple of."""
    monkeypatch.setattr(chunks, "NARROWEST", 4)
    monkeypatch.setattr(chunks, "CHUNK", 1)


def made(name, **arguments):
    torch.manual_seed(1)
    loss = LOSSES[name](reducer=NoReduction(), **arguments).double()
    with torch.no_grad():
        loss.weight.normal_()
    return loss


def batch(n=N, dtype=torch.float64):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(n, D, generator=g, dtype=torch.float64)
    # Labels at both ends, one of them twice.
    return x.to(dtype).requires_grad_(), torch.tensor([0, C - 1, C - 1, *torch.randint(C, (n - 3,), generator=g)])


def value_and_gradients(loss, x, y, weights):
    values = loss(x, y)
    gradients = torch.autograd.grad((values * weights).sum(), (x, *loss.parameters()), allow_unused=True)
    return values.detach(), [torch.zeros(()) if g is None else g for g in gradients]


@each
@budgets
def test_engines_agree_in_double_precision(name, budget):
    """Each sample weighs differently, so that the gradient of each is seen."""
    x, y = batch()
    weights = torch.linspace(0.5, 2, N, dtype=torch.float64)
    expected, gradients = value_and_gradients(made(name, engine="plain"), x, y, weights)
    found, others = value_and_gradients(made(name, engine="chunked", memory_budget=budget), x, y, weights)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    for a, b in zip(others, gradients, strict=True):
        torch.testing.assert_close(a, b.expand_as(a), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in LOSSES if "detached" not in n and n != "surveyor"])
@budgets
def test_the_gradient_is_that_of_the_value(name, budget):
    loss = made(name, engine="chunked", memory_budget=budget)
    x, y = batch(4)

    def value(x, weight):
        return torch.func.functional_call(loss, {"weight": weight}, (x, y))

    assert torch.autograd.gradcheck(value, (x, loss.weight.detach().clone().requires_grad_()))


def test_a_learned_scale_and_bias_have_the_gradient_of_the_value():
    x, y = batch(4)
    for name, parameter in (("norm_softmax-learned", "scale"), ("softmax", "bias"), ("arcface", "weight")):
        loss = made(name, engine="chunked", memory_budget=0.0)
        leaf = loss.get_parameter(parameter).detach().clone().requires_grad_()

        def value(p, loss=loss, parameter=parameter):
            return torch.func.functional_call(loss, {parameter: p}, (x, y))

        assert torch.autograd.gradcheck(value, leaf)


def test_parameters_that_are_put_elsewhere_before_the_backward_pass_are_noticed():
    loss = made("everything", engine="chunked")
    x, y = batch()
    hardness = loss.hardness.detach().clone().requires_grad_()
    values = torch.func.functional_call(loss, {"hardness": hardness}, (x, y))
    with pytest.raises(InputError, match="uses other parameters than in the forward pass"):
        values.sum().backward()


@each
@budgets
def test_going_back_twice_gives_the_same(name, budget):
    loss = made(name, engine="chunked", memory_budget=budget)
    x, y = batch()
    value = loss(x, y).sum()
    first = torch.autograd.grad(value, (x, loss.weight), retain_graph=True)
    second = torch.autograd.grad(value, (x, loss.weight))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@each
def test_frozen_weights_or_embeddings_change_nothing_else(name):
    loss = made(name, engine="chunked", memory_budget=0.0)
    x, y = batch()
    both = torch.autograd.grad(loss(x, y).sum(), (x, loss.weight))
    torch.testing.assert_close(torch.autograd.grad(loss(x.detach(), y).sum(), loss.weight)[0], both[1])
    loss.weight.requires_grad_(False)
    torch.testing.assert_close(torch.autograd.grad(loss(x, y).sum(), x)[0], both[0])
    with torch.no_grad():
        torch.testing.assert_close(loss(x, y), loss(x, y).detach())


@each
@budgets
def test_float32_is_near_double_precision(name, budget):
    loss = made(name, engine="chunked", memory_budget=budget)
    x, y = batch(dtype=torch.float32)
    expected = loss(x.double(), y)
    found = loss.float()(x, y)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=2e-5)


SPECS = {spec.name: spec for spec in nearfar_losses()}


SEPARATE = {"sphereface2", "p2sgrad", "unified_ce"}
SMOOTHED = [f"{name}, smoothed" for name in SPECS if name not in SEPARATE]


@pytest.mark.parametrize("name", [*SPECS, *SMOOTHED])
@budgets
def test_every_loss_of_the_family_is_the_same_on_both_engines(name, budget):
    """Called twice before the first backward pass, so that state which moves in between is seen not to matter."""
    x, y = batch()

    def run(engine):
        torch.manual_seed(2)
        spec, _, smoothed = name.partition(", ")
        smoothed = "label_smoothing=0.1" if smoothed else ""
        arguments = ", ".join(filter(None, (SPECS[spec].example, "reducer=none", smoothed)))
        criterion = nearfar.compose(f"{spec}({arguments})", num_classes=C, embedding_size=D)
        loss = criterion.losses[spec].double()
        loss.engine, loss.memory_budget = engine, budget
        with torch.no_grad():
            loss.weight.normal_()
        leaves = [(scale * x.detach()).requires_grad_() for scale in (3.0, 1.5)]
        values = [loss(leaf, y) for leaf in leaves]
        gradients = torch.autograd.grad(sum(v.sum() for v in values), (*leaves, *loss.parameters()))
        return [*values, *gradients, *loss.buffers()]

    for a, b in zip(run("chunked"), run("plain"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(SEPARATE))
def test_a_loss_for_each_class_has_nothing_to_smooth(name):
    with pytest.raises(RecipeError, match="no parameter 'label_smoothing'"):
        nearfar.compose(f"{name}(label_smoothing=0.1)", num_classes=C, embedding_size=D)
    with pytest.raises(ArgumentError, match="Binary judges each class by itself"):
        Binary(C, D, scale=4.0, label_smoothing=0.1)


EXTREMES = {
    "on the axes": torch.cat([torch.eye(D), torch.eye(D)[:2]]),
    "opposite": -torch.cat([torch.eye(D), torch.eye(D)[:2]]),
    "zero": torch.zeros(N, D),
    "tiny": torch.full((N, D), 1e-20),
    "huge": torch.full((N, D), 1e4),
}


def of(spec):
    module, _, name = spec.target.partition(":")
    cls = getattr(importlib.import_module(module), name)
    needed = {"renewal": 2} if spec.name == "kappaface" else {}
    return lambda *sizes, **k: cls(*(sizes or (C, D)), **needed, **k)


LOSSES_OF_THE_PLUGIN = {name: of(spec) for name, spec in SPECS.items()}
#: Dtype of the embeddings, or of autocast, and of the weights: 0 bits of the budget are recomputed, None is kept.
PRECISIONS = [
    ("float64", 0.0),
    ("float64", None),
    ("float32", 0.0),
    ("float32", None),
    ("bfloat16", 0.0),
    ("float16", 0.0),
    ("autocast bfloat16", 0.0),
    ("autocast bfloat16", None),
    ("autocast float16", 0.0),
]
KINDS = list(dict.fromkeys(dtype for dtype, _ in PRECISIONS))


def extreme(loss):
    """Class vectors on the axes, and one without a direction."""
    with torch.no_grad():
        weight = loss.weight.normal_(generator=torch.Generator().manual_seed(1)).view(C, -1, D)
        weight[:D, 0] = torch.eye(D)
        weight[D + 1] = 0
    return loss


def given(x, dtype):
    """A leaf of that dtype; or in float32, and what turns autocast on."""
    kind, _, narrow = dtype.rpartition(" ")
    precision = torch.autocast("cpu", getattr(torch, narrow)) if kind else contextlib.nullcontext()
    return x.to(torch.float32 if kind else getattr(torch, narrow)).clone().requires_grad_(), precision


def finite_value(loss, x, engine, dtype="float32"):
    """The losses of labels at both ends, in between and of the class without a direction; gradients are finite too."""
    loss = copy.deepcopy(loss)  # state that moves is not to be seen by the next call
    loss.engine = engine
    leaf, precision = given(x, dtype)
    with precision:
        value = loss(leaf, torch.tensor([0, 1, 2, 3, 4, D + 1, C - 1]))
    value.sum().backward()
    gradients = [leaf.grad, *(p.grad for p in loss.parameters() if p.grad is not None)]
    assert all((g.to_dense() if g.is_sparse else g).isfinite().all() for g in gradients)
    assert value.isfinite().all()
    return value.detach()


@pytest.mark.parametrize("name", [*LOSSES, *(f"{name}, of the plugin" for name in SPECS)])
@pytest.mark.parametrize(("dtype", "budget"), PRECISIONS)
def test_extremes_are_finite_and_the_engines_agree(name, dtype, budget):
    """Cosines of ±1 to the last bit, vectors without a direction: of classes too. Angles and margins beyond π: those of
    the opposite. On ranks: test_margin_sharded.
    """
    torch.manual_seed(1)
    make = {**LOSSES, **{f"{n}, of the plugin": build for n, build in LOSSES_OF_THE_PLUGIN.items()}}[name]
    loss = make(reducer=NoReduction(), memory_budget=budget)
    loss = extreme(loss.to(torch.float64 if dtype == "float64" else torch.float32))
    tolerance = 0.05 if dtype == "autocast bfloat16" else 1e-9 if dtype == "float64" else 1e-5
    for x in EXTREMES.values():
        found, expected = finite_value(loss, x, "chunked", dtype), finite_value(loss, x, "plain", dtype)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=64 * tolerance)


@pytest.mark.parametrize("engine", ["plain", "chunked"])
@pytest.mark.parametrize("scale", [1.0, 30.0, 128.0])
@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if "scale" in read_target(spec.target)])
def test_extremes_are_finite_at_any_scale(name, scale, engine):
    loss = extreme(LOSSES_OF_THE_PLUGIN[name](reducer=NoReduction(), scale=scale, memory_budget=0.0))
    for dtype in KINDS:
        for x in EXTREMES.values():
            finite_value(loss.to(torch.float64 if dtype == "float64" else torch.float32), x, engine, dtype)


@pytest.mark.parametrize("engine", ["plain", "chunked"])
@pytest.mark.parametrize("name", SPECS)
def test_extremes_are_finite_where_classes_are_sampled(name, engine):
    """Some of the classes that vectors are on, or that have no direction, are drawn, and others not."""
    loss = sample(extreme(LOSSES_OF_THE_PLUGIN[name](reducer=NoReduction(), memory_budget=0.0)), 0.5)
    for dtype in KINDS:
        for x in EXTREMES.values():
            finite_value(loss.to(torch.float64 if dtype == "float64" else torch.float32), x, engine, dtype)


#: The least number of classes, where it is not one.
FEWEST = {"adacos": 3, "sphereface2": 2}


@pytest.mark.parametrize("engine", ["plain", "chunked"])
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", SPECS)
def test_as_few_classes_as_there_can_be_are_finite(name, dtype, engine):
    """Of one class the softmax costs nothing, and teaches nothing."""
    few = FEWEST.get(name, 1)
    arguments = {"regularization": 0.0} if name == "magface" else {}
    loss = LOSSES_OF_THE_PLUGIN[name](few, D, engine=engine, **arguments)
    x, precision = given(torch.randn(5, D, generator=torch.Generator().manual_seed(0)), dtype)
    with precision:
        value = loss(x, torch.arange(5) % few)
    value.backward()
    assert value.isfinite()
    assert all(each.grad.isfinite().all() for each in (x, *loss.parameters()))
    if few == 1 and name not in SEPARATE:
        assert value.item() == 0
        assert x.grad.abs().max() == 0
    if few > 1:
        with pytest.raises(ArgumentError, match=f"num_classes must be at least {few}"):
            LOSSES_OF_THE_PLUGIN[name](few - 1, D)


@pytest.mark.parametrize("engine", ["plain", "chunked"])
@pytest.mark.parametrize("scale", [1.0, 64.0, 128.0])
def test_scales_from_1_to_128_have_their_value(engine, scale):
    """All cosines 0 but the own, which is 1: log(1 + (C − 1) e^(−s(1 − m)))."""
    loss = CosFace(4, 4, scale=scale, margin=0.9, engine=engine).double()
    with torch.no_grad():
        loss.weight.copy_(torch.eye(4))
    value = loss(torch.eye(4, dtype=torch.float64), torch.arange(4))
    assert value.item() == pytest.approx(math.log1p(3 * math.exp(-scale * 0.1)), rel=1e-9)


@each
def test_half_precision_parameters_get_their_gradient(name):
    loss = made(name, engine="chunked", memory_budget=0.0).to(torch.bfloat16)
    x, y = batch(dtype=torch.float32)
    loss(x, y).sum().backward()
    same = made(name, engine="plain").to(torch.bfloat16)
    same(x, y).sum().backward()
    assert loss.weight.grad.dtype == torch.bfloat16
    error = (loss.weight.grad.float() - same.weight.grad.float()).norm() / same.weight.grad.float().norm()
    assert error < 0.02


@each
@budgets
def test_autocast_multiplies_in_bfloat16_and_stays_near(name, budget):
    """bfloat16 has 8 bits: 1e-2 of a cosine, and so of the gradient; sums and exponentials are in float32."""
    x, y = batch(dtype=torch.float32)
    loss = made(name, engine="chunked", memory_budget=budget).float()
    expected, gradients = value_and_gradients(loss, x, y, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        found, others = value_and_gradients(loss, x, y, 1.0)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    for a, b in zip(others[:2], gradients[:2], strict=True):
        assert (a - b).norm() <= 0.05 * b.norm()


def test_autocast_in_float16_changes_nothing():
    x, y = batch(dtype=torch.float32)
    loss = made("cosface", engine="chunked").float()
    with torch.autocast("cpu", torch.float16):
        found = loss(x, y)
    assert torch.equal(found, loss(x, y))


@pytest.mark.parametrize("engine", ["plain", "chunked"])
def test_labels_out_of_range_are_named(engine):
    loss = CosFace(C, D, engine=engine)
    x, y = batch(dtype=torch.float32)
    with pytest.raises(InputError, match=r"labels run from 0 to 10; got labels from 0 to 11"):
        loss(x, y.index_fill(0, torch.tensor([1]), 11))


def test_auto_is_chunked_where_logits_are_many():
    """And can be differentiated twice where they are few."""
    few, many = CosFace(C, D), CosFace(1 << 18, 2)
    x = torch.randn(8, D, requires_grad=True)
    y = torch.zeros(8, dtype=torch.long)
    (first,) = torch.autograd.grad(few(x, y), x, create_graph=True)
    first.sum().backward()
    leaf = x[:, :2].detach().requires_grad_()
    with pytest.raises(InputError, match="cannot be differentiated twice"):
        torch.autograd.grad(many(leaf, y), leaf, create_graph=True)


@pytest.mark.parametrize("name", ["cosface", "everything"])
def test_memory_besides_the_gradient_does_not_grow_with_the_classes(name, monkeypatch):
    """Recomputed; kept, it grows by the logits, 4 bytes each."""
    monkeypatch.setattr(chunks, "CHUNK", 1 << 16)
    n, d = 64, 16

    def extra(classes, budget):
        cls = {"cosface": CosFace, "everything": Everything}[name]
        loss = cls(classes, d, scale=8.0, engine="chunked", memory_budget=budget)
        x, y = torch.randn(n, d, requires_grad=True), torch.randint(classes, (n,))

        def step():
            loss(x, y).backward()

        step()
        loss.weight.grad = x.grad = None
        return peak_bytes(step) - loss.weight.numel() * 4

    few, many = extra(4096, 0.0), extra(16 * 4096, 0.0)
    assert many <= few + 4096
    assert many < 20e6
    kept = extra(16 * 4096, 1e9) - many
    assert 0.8 * 4 * n * 16 * 4096 < kept < 1.2 * 4 * n * 16 * 4096


class FromOutside(MarginSoftmax):
    """Computes in prepare what it keeps to itself."""

    def prepare(self, rows: Rows) -> Rows:
        self.kept = rows.norm * 0.1
        return rows

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        return c * self.kept[:, None]


def test_what_others_uses_besides_its_rows_is_refused_rather_than_forgotten():
    loss = FromOutside(C, D, scale=4.0, engine="chunked").double()
    x, y = batch()
    with pytest.raises(InputError, match=r"was computed before .* put it there in prepare"):
        loss(x, y)
    loss.engine = "plain"
    assert loss(x, y).isfinite()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "fast"}, "engine must be one of 'auto', 'plain', 'chunked'; got 'fast'"),
        ({"memory_budget": -1}, "memory_budget must not be negative"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        CosFace(C, D, **arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none")
@each
@budgets
def test_a_gpu_computes_the_same(name, budget):
    x, y = batch()
    expected, gradients = value_and_gradients(made(name, engine="chunked", memory_budget=budget), x, y, 1.0)
    loss = made(name, engine="chunked", memory_budget=budget).cuda()
    found, others = value_and_gradients(loss, x.detach().cuda().requires_grad_(), y.cuda(), 1.0)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-10, atol=1e-10)
    for a, b in zip(others, gradients, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none")
def test_a_gpu_multiplies_in_bfloat16_and_leaves_logits_in_float32():
    """Only the products' inputs are rounded there, to 8 bits; of a cosine of 1 that is 4e-3 at most."""
    loss = made("cosface", engine="chunked").float().cuda()
    x, y = batch(dtype=torch.float32)
    x, y = x.detach().cuda(), y.cuda()
    expected = loss(x, y)
    with torch.autocast("cuda", torch.bfloat16):
        found = loss(x, y)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=64 * 4e-3)
