"""How the margin losses behave: extreme cosines, degenerate batches, dtypes, miners, errors."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning import reducers as pml_reducers

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import NoReduction
from nearfar_margin.adacos import AdaCos
from nearfar_margin.adaface import AdaFace
from nearfar_margin.am_softmax import AMSoftmax
from nearfar_margin.arcface import ArcFace
from nearfar_margin.arcnegface import ArcNegFace
from nearfar_margin.combined_margin import CombinedMargin
from nearfar_margin.cosface import CosFace
from nearfar_margin.curricularface import CurricularFace
from nearfar_margin.elasticface import ElasticFace
from nearfar_margin.kappaface import KappaFace
from nearfar_margin.l_softmax import LSoftmax
from nearfar_margin.magface import MagFace
from nearfar_margin.modified_softmax import ModifiedSoftmax
from nearfar_margin.mv_softmax import MVSoftmax
from nearfar_margin.norm_softmax import NormSoftmax
from nearfar_margin.npcface import NPCFace
from nearfar_margin.p2sgrad import P2SGrad
from nearfar_margin.scales import least_scale
from nearfar_margin.softmax import Softmax
from nearfar_margin.sphereface import SphereFace
from nearfar_margin.sphereface2 import SphereFace2
from nearfar_margin.sphereface_r import SphereFaceR
from nearfar_margin.subcenter_arcface import SubcenterArcFace
from nearfar_margin.unified_ce import UnifiedCE

C, D = 6, 4
LOSSES = {
    "softmax": lambda **k: Softmax(C, D, **k),
    "softmax-smoothed": lambda **k: Softmax(C, D, label_smoothing=0.1, smoothing="others", **k),
    "norm_softmax": lambda **k: NormSoftmax(C, D, **k),
    "norm_softmax-learned": lambda **k: NormSoftmax(C, D, scale="auto", learn_scale=True, **k),
    "cosface": lambda **k: CosFace(C, D, **k),
    "arcface": lambda **k: ArcFace(C, D, **k),
    "arcface-detached": lambda **k: ArcFace(C, D, gradient="detached", beyond_pi="raw", **k),
    "arcface-easy": lambda **k: ArcFace(C, D, easy_margin=True, **k),
    "modified_softmax": lambda **k: ModifiedSoftmax(C, D, **k),
    "cosface-norm": lambda **k: CosFace(C, D, scale="norm", **k),
    "am_softmax": lambda **k: AMSoftmax(C, D, **k),
    "l_softmax": lambda **k: LSoftmax(C, D, lambda_base=0.0, **k),
    "sphereface": lambda **k: SphereFace(C, D, lambda_base=0.0, lambda_min=0.0, **k),
    "sphereface_r": lambda **k: SphereFaceR(C, D, **k),
    "sphereface_r-exact": lambda **k: SphereFaceR(C, D, gradient="exact", **k),
    "sphereface_r-v2": lambda **k: SphereFaceR(C, D, version="v2", **k),
    "sphereface_r-v2-exact": lambda **k: SphereFaceR(C, D, version="v2", gradient="exact", **k),
    "sphereface2": lambda **k: SphereFace2(C, D, **k),
    "sphereface2-exact": lambda **k: SphereFace2(C, D, gradient="exact", sharpness=2.5, **k),
    "combined_margin": lambda **k: CombinedMargin(C, D, m1=1.5, m2=0.8, **k),
    "combined_margin-flat": lambda **k: CombinedMargin(C, D, m1=1.5, m2=0.8, beyond_pi="flat", **k),
    "subcenter_arcface": lambda **k: SubcenterArcFace(C, D, **k),
    # What keeps something keeps still in evaluation mode; test_margin_state.py has them in training.
    "adacos": lambda **k: AdaCos(C, D, **k).eval(),
    "curricularface": lambda **k: CurricularFace(C, D, **k).eval(),
    "adaface": lambda **k: AdaFace(C, D, **k).eval(),
    "magface": lambda **k: MagFace(C, D, shortest=0.5, longest=3.0, **k),
    "magface-linear": lambda **k: MagFace(C, D, shortest=0.5, longest=3.0, easy_margin=False, **k),
    "elasticface": lambda **k: ElasticFace(C, D, **k).eval(),
    "elasticface-cos": lambda **k: ElasticFace(C, D, form="cos", plus=True, **k).eval(),
    "mv_softmax": lambda **k: MVSoftmax(C, D, **k),
    "mv_softmax-arc": lambda **k: MVSoftmax(C, D, form="arc", weighting="fixed", **k),
    "kappaface": lambda **k: KappaFace(C, D, renewal=1, **k).eval(),
    "p2sgrad": lambda **k: P2SGrad(C, D, **k),
    "unified_ce": lambda **k: UnifiedCE(C, D, **k),
    "arcnegface": lambda **k: ArcNegFace(C, D, **k),
    "npcface": lambda **k: NPCFace(C, D, **k),
}
#: What the length of an embedding enters.
BY_LENGTH = {"softmax", "modified_softmax", "cosface-norm", "l_softmax", "sphereface", "adaface", "magface"}
each = pytest.mark.parametrize("name", LOSSES)


def batch(n=8):
    g = torch.Generator().manual_seed(3)
    return torch.randn(n, D, generator=g), torch.randint(C, (n,), generator=g)


def finite(*tensors):
    return all(t is not None and bool(t.isfinite().all()) for t in tensors)


def grads(loss):
    return [p.grad for p in loss.parameters()]


@each
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cosine_of_one_either_way_is_finite(name, sign, dtype):
    """On the axes a cosine is ±1 to the last bit; elsewhere rounding may carry it beyond."""
    loss = LOSSES[name]().to(dtype)
    with torch.no_grad():
        loss.weight.normal_()
        # Of each class that has several vectors all are the same.
        loss.weight.view(C, -1, D)[:D] = torch.eye(D, dtype=dtype)[:, None]
    x = torch.cat([torch.eye(D, dtype=dtype), loss.weight.detach().view(C, -1, D)[D:, 0] * 1.7]) * sign
    x.requires_grad_()
    value = loss(x, torch.arange(C))
    value.backward()
    assert finite(value, x.grad, *grads(loss))


@pytest.mark.parametrize("distance", [1e-1, 1e-2, 1e-3, 1e-4, 1e-6])
def test_arcface_near_its_class_has_the_gradient_of_double_precision(distance):
    """The derivative of the angle grows without bound towards a class; its product with that of x does not.

    A float32 cosine is known to 6e-8, and so 1 − cos θ = θ²/2 to 1e-7/θ² of itself: below θ = 3e-4 it is
    nothing, and all that can be asked is that the gradient be no larger than the true one.
    """
    loss = ArcFace(C, D, scale=4.0)
    with torch.no_grad():
        loss.weight.copy_(torch.eye(C, D) + 0.1)
    w = loss.weight[0].detach().double()
    side = torch.tensor([0.0, 1, -1, 0], dtype=torch.float64)
    x = (w / w.norm() + distance * side)[None]
    y = torch.tensor([0])

    theta = torch.acos((x[0] @ w) / (x[0].norm() * w.norm()))
    assert theta == pytest.approx(distance * math.sqrt(2), rel=1e-2)
    found = x.float().requires_grad_()
    loss(found, y).backward()
    # Against s·(cos(θ + m)) by finite differences of an exact angle, sin θ from the distance to the axis.
    axis = w / w.norm()

    def value(v):
        u = v / v.norm()
        z = 4 * (torch.nn.functional.normalize(loss.weight.detach().double(), dim=1) @ u)
        angle = torch.atan2((u - (u @ axis) * axis).norm(), u @ axis)
        z[0] = 4 * torch.cos(angle + 0.5)
        return z.logsumexp(0) - z[0]

    step = distance * 1e-3
    expected = torch.stack(
        [(value(x[0] + step * e) - value(x[0] - step * e)) / (2 * step) for e in torch.eye(D, dtype=torch.float64)]
    )
    error = (found.grad[0].double() - expected).norm() / expected.norm()
    if distance >= 1e-3:
        assert error < 1e-5 + 1e-7 / distance**2
    else:
        assert found.grad.norm() <= 1.01 * expected.norm()


@each
def test_a_zero_vector_is_finite_and_passes_no_gradient_of_cosines(name):
    loss = LOSSES[name]()
    x = torch.zeros(2, D, requires_grad=True)
    value = loss(x, torch.tensor([0, 1]))
    value.backward()
    assert finite(value, x.grad, *grads(loss))
    assert x.grad.abs().max() < 1e3


@each
def test_an_empty_batch_is_zero_with_a_gradient(name):
    loss = LOSSES[name]()
    x = torch.zeros(0, D, requires_grad=True)
    value = loss(x, torch.zeros(0, dtype=torch.long))
    assert value.item() == 0
    value.backward()
    assert x.grad.shape == (0, D)
    assert all((g == 0).all() for g in grads(loss))


@each
def test_one_sample_and_duplicates_are_finite(name):
    loss = LOSSES[name]()
    x, y = batch(1)
    single = loss(x, y)
    assert finite(single)
    torch.testing.assert_close(loss(x.repeat(3, 1), y.repeat(3)), single)


ONE_SOFTMAX = [Softmax, ModifiedSoftmax, NormSoftmax, CosFace, AMSoftmax, ArcFace, CombinedMargin, SubcenterArcFace]
ONE_SOFTMAX += [LSoftmax, SphereFace, SphereFaceR, CurricularFace, AdaFace, ElasticFace, MVSoftmax, ArcNegFace, NPCFace]


@pytest.mark.parametrize("cls", ONE_SOFTMAX)
def test_a_single_class_costs_nothing(cls):
    assert cls(1, D)(torch.randn(3, D), torch.zeros(3, dtype=torch.long)).item() == 0


def test_a_single_class_costs_what_is_not_of_other_classes():
    x, y = torch.randn(3, D), torch.zeros(3, dtype=torch.long)
    assert KappaFace(1, D, renewal=1)(x, y).item() == 0
    assert MagFace(1, D)(x, y).item() == pytest.approx(35 * (10 / 110**2 + 1 / 10), rel=1e-6)
    for loss in (P2SGrad(1, D), UnifiedCE(1, D)):
        assert 0 < loss(x, y).item() < 100


@each
@pytest.mark.parametrize("scale", [1.0, 128.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_scale_is_finite_on_either_side_and_at_either_end_of_the_labels(name, scale, dtype):
    """Embeddings on, opposite to and off the vectors of the first and of the last class."""
    loss = LOSSES[name]()
    if isinstance(getattr(loss, "scale", None), float) and loss.scale != 1:
        loss.scale = scale
    w = loss.weight.detach().view(C, -1, D)[:, 0] * 100
    x = torch.cat([w, -w, w.roll(1, 0)]).to(dtype).requires_grad_()
    for label in (0, C - 1):
        value = loss(x, torch.full((len(x),), label))
        value.backward()
        assert finite(value, x.grad, *grads(loss))


@each
def test_the_order_of_the_batch_does_not_matter(name):
    loss = LOSSES[name]()
    x, y = batch()
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    torch.testing.assert_close(loss(x[order], y[order]), loss(x, y))


@pytest.mark.parametrize("name", [n for n in LOSSES if not BY_LENGTH & {n, n.partition("-")[0]}])
def test_lengths_do_not_enter_cosines(name):
    loss = LOSSES[name]()
    x, y = batch()
    value = loss(x, y)
    with torch.no_grad():
        loss.weight *= torch.linspace(0.01, 100, C).view(C, *[1] * (loss.weight.ndim - 1))
    torch.testing.assert_close(loss(x * torch.linspace(0.001, 50, len(x))[:, None], y), value)


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_give_a_float32_loss(name, dtype):
    loss = LOSSES[name]()
    x, y = batch()
    half = x.to(dtype).requires_grad_()
    value = loss(half, y)
    value.backward()
    assert value.dtype == torch.float32
    assert half.grad.dtype == dtype
    torch.testing.assert_close(value, loss(x.to(dtype).float(), y))
    assert all(p.dtype == torch.float32 for p in loss.parameters())


@each
def test_autocast_changes_nothing(name):
    loss = LOSSES[name]()
    x, y = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, logits = loss(x, y), loss.logits(x)
    assert torch.equal(inside, loss(x, y))
    assert torch.equal(logits, loss.logits(x))


@each
@pytest.mark.parametrize(
    ("parameters", "embeddings"), [(torch.float64, torch.float32), (torch.bfloat16, torch.float32)]
)
def test_dtypes_of_parameters_and_embeddings_may_differ(name, parameters, embeddings):
    loss = LOSSES[name]().to(parameters)
    x, y = batch()
    value = loss(x.to(embeddings), y)
    value.backward()
    assert value.dtype == torch.promote_types(parameters, embeddings)
    assert all(p.dtype == parameters and p.grad.dtype == parameters for p in loss.parameters())


@each
def test_int32_labels_are_as_good(name):
    loss = LOSSES[name]()
    x, y = batch()
    assert torch.equal(loss(x, y.int()), loss(x, y))


@each
def test_a_miner_weighs_the_elements(name):
    """How often each was selected over the most: here 2, 1, 1 and 2 of 2; nothing else counts."""
    loss, single = LOSSES[name](), LOSSES[name](reducer=NoReduction())
    single.load_state_dict(loss.state_dict())
    x, y = batch()
    triplets = (torch.tensor([0, 0]), torch.tensor([1, 3]), torch.tensor([2, 3]))
    values = single(x, y)
    expected = (values[0] + values[1] / 2 + values[2] / 2 + values[3]) / 8
    torch.testing.assert_close(loss(x, y, triplets), expected)
    pairs = (torch.tensor([0, 0]), torch.tensor([1, 3]), torch.tensor([2, 3]), torch.tensor([3, 1]))
    counted = [2, 2, 1, 3, 0, 0, 0, 0]
    torch.testing.assert_close(single(x, y, pairs), values * torch.tensor(counted) / 3)


@each
def test_nothing_selected_costs_nothing(name):
    loss = LOSSES[name]()
    x, y = batch()
    value = loss(x.requires_grad_(), y, tuple(torch.zeros(0, dtype=torch.long) for _ in range(3)))
    value.backward()
    assert value.item() == 0
    assert (x.grad == 0).all()


@each
def test_reducers_of_pytorch_metric_learning_reduce_it(name):
    x, y = batch()
    loss, single = LOSSES[name](reducer=pml_reducers.MeanReducer()), LOSSES[name](reducer=NoReduction())
    single.load_state_dict(loss.state_dict())
    torch.testing.assert_close(loss(x, y), single(x, y).mean())


@pytest.mark.parametrize(
    "name", ["softmax", "softmax-smoothed", "norm_softmax", "norm_softmax-learned", "cosface", "arcface"]
)
def test_logits_are_the_scores_without_a_margin(name):
    """The cross entropy of the logits is the loss of the same classifier without margin or smoothing."""
    loss = LOSSES[name]()
    x, y = batch()
    if isinstance(loss, Softmax):
        plain = Softmax(C, D)
    else:
        plain = NormSoftmax(C, D, scale="auto" if "learned" in name else loss.scale, learn_scale="learned" in name)
    plain.load_state_dict(loss.state_dict())
    torch.testing.assert_close(torch.nn.functional.cross_entropy(loss.logits(x.half().float()), y), plain(x.half(), y))


@each
def test_logits_are_greatest_for_the_class_that_is_nearest(name):
    loss = LOSSES[name]()
    x, _ = batch()
    logits = loss.logits(x)
    assert logits.shape == (8, C)
    if name not in ("softmax", "softmax-smoothed", "l_softmax"):  # which mind the lengths of the vectors
        w = torch.nn.functional.normalize(loss.weight, dim=-1).view(C, -1, D)
        assert torch.equal(logits.argmax(1), (x @ w.flatten(0, 1).T).view(8, C, -1).amax(2).argmax(1))


@each
def test_what_does_not_fit_is_named(name):
    loss = LOSSES[name]()
    x, y = batch()
    with pytest.raises(InputError, match=r"labels run from 0 to 5; got labels from \d to 6"):
        loss(x, torch.full_like(y, 6).index_fill(0, torch.tensor([0]), 2))
    with pytest.raises(InputError, match="got labels from -100 to"):
        loss(x, y.index_fill(0, torch.tensor([0]), -100))
    with pytest.raises(InputError, match=r"embedding_size=4; got embeddings \(8, 3\)"):
        loss(x[:, :3], y)
    with pytest.raises(InputError, match="embedding_size=4"):
        loss.logits(x[:, :3])
    with pytest.raises(InputError, match="no ref_emb"):
        loss(x, y, ref_emb=x.clone(), ref_labels=y)
    with pytest.raises(InputError, match="needs labels"):
        loss(x, None, (y[:1] * 0, y[:1] * 0, y[:1] * 0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ArcFace(C, D, gradient="exakt"), "gradient must be one of 'exact', 'detached'; got 'exakt'"),
        (lambda: ArcFace(C, D, beyond_pi="flat"), "beyond_pi must be one of"),
        (lambda: CosFace(C, D, scale=0), "scale must be greater than 0"),
        (lambda: CosFace(0, D), "num_classes must be at least 1; got 0"),
        (lambda: CosFace(C, 0), "embedding_size must be at least 1"),
        (lambda: Softmax(C, D, smoothing="all"), "smoothing must be one of"),
        (lambda: Softmax(C, D, label_smoothing=1.1), r"label_smoothing must be in \[0, 1\]"),
        (lambda: Softmax(4, D, label_smoothing=0.8, smoothing="others"), r"in \[0, 0.75\]"),
        (lambda: NormSoftmax(C, D, scale="car"), "a number or 'auto'"),
        (lambda: NormSoftmax(1, D, scale="auto"), "two classes at least"),
        (lambda: least_scale(10, 0.05), "between chance and 1"),
        (lambda: CosFace(C, D, scale="car"), "a number or 'auto' or 'norm'"),
        (lambda: ArcFace(C, D, scale="norm"), "a number or 'auto'; got 'norm'"),
        (lambda: CosFace(3, D, margin=1.5, scale="auto"), "no scale is enough for a margin that leaves -0.5"),
        (lambda: LSoftmax(C, D, margin=0), "margin must be a whole number in 1..8; got 0"),
        (lambda: SphereFace(C, D, margin=2.5), "whole number"),
        (lambda: SphereFace(C, D, lambda_min=-1), "lambda_min must not be negative"),
        (lambda: SphereFaceR(C, D, margin=0.9), "margin must be at least 1"),
        (lambda: SphereFaceR(C, D, version="v3"), "version must be one of 'v1', 'v2'"),
        (lambda: SphereFace2(1, D), "num_classes must be at least 2"),
        (lambda: SphereFace2(C, D, balance=1.0), "balance must be between 0 and 1"),
        (lambda: SubcenterArcFace(C, D, centers=0), "centers must be a whole number of at least 1"),
        (lambda: AdaCos(2, D), "num_classes must be at least 3"),
        (lambda: MagFace(C, D, shortest=5.0, longest=5.0), "shortest must be below longest"),
        (lambda: MagFace(C, D, least_margin=0.9), "least_margin must not be above greatest_margin"),
        (lambda: ElasticFace(C, D, form="sin"), "form must be one of 'arc', 'cos'"),
        (lambda: ElasticFace(C, D, seed=-1), "seed must be a whole number"),
        (lambda: MVSoftmax(C, D, hardness=0.5), "hardness must be at least 1"),
        (lambda: KappaFace(C, D, renewal=0), "renewal must be a whole number of at least 1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@each
def test_state_survives_a_checkpoint(name):
    x, y = batch()
    first, second = LOSSES[name](), LOSSES[name]()
    assert not torch.equal(first(x, y), second(x, y))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x, y), second(x, y))


@each
def test_it_shows_its_arguments(name):
    assert "num_classes=6, embedding_size=4" in repr(LOSSES[name]())


def test_weights_start_as_documented():
    torch.manual_seed(0)
    assert CosFace(400, 64).weight.std().item() == pytest.approx(0.01, rel=0.02)
    softmax = Softmax(400, 64)
    for p in softmax.parameters():
        assert p.abs().max() <= 1 / 8
        assert p.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize(
    "name", ["cosface", "arcface", "arcface-detached", "sphereface_r", "subcenter_arcface", "npcface"]
)
def test_training_separates_the_classes(name):
    torch.manual_seed(0)
    loss = LOSSES[name]()
    x = torch.randn(24, D, requires_grad=True)
    y = torch.arange(24) % C
    optimiser = torch.optim.SGD([x, *loss.parameters()], lr=0.05, momentum=0.9)
    for _ in range(60):
        optimiser.zero_grad()
        loss(x, y).backward()
        optimiser.step()
    assert (loss.logits(x).argmax(1) == y).all()
