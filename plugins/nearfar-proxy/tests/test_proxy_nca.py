"""Proxy-NCA against the paper's formula, written as loops over plain Python numbers."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.distances import Cosine, Dot, Euclidean, SquaredEuclidean
from nearfar.nn.reducers import NoReduction
from nearfar_proxy import blocks, proxy_nca
from nearfar_proxy.proxy_nca import ProxyNCA

C, D = 6, 4
both = pytest.mark.parametrize("denominator", ["others", "all"])


def batch(n=8, dtype=torch.float64):
    g = torch.Generator().manual_seed(2)
    return torch.randn(n, D, generator=g, dtype=torch.float64).to(dtype), torch.randint(C, (n,), generator=g)


def made(**arguments):
    torch.manual_seed(1)
    return ProxyNCA(C, D, **arguments).double()


def unit(v):
    return [a / math.hypot(*v) for a in v]


def squared(a, b):
    return math.fsum((p - q) ** 2 for p, q in zip(unit(a), unit(b), strict=True))


def reference(x, proxies, y, denominator, scale, distance=squared):
    total = []
    for xi, yi in zip(x.tolist(), y.tolist(), strict=True):
        e = [math.exp(-scale * distance(xi, p)) for p in proxies.tolist()]
        below = math.fsum(v for j, v in enumerate(e) if denominator == "all" or j != yi)
        total.append(-math.log(e[yi] / below))
    return math.fsum(total) / len(total)


@both
@pytest.mark.parametrize("scale", [1.0, 9.0])
def test_value_is_the_papers(denominator, scale):
    loss = made(denominator=denominator, scale=scale)
    x, y = batch()
    expected = reference(x, loss.weight.detach(), y, denominator, scale)
    assert loss(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_the_papers_denominator_is_the_default():
    loss = ProxyNCA(2, 2)
    with torch.no_grad():
        loss.weight.copy_(torch.eye(2))
    x = torch.tensor([[1.0, 0.0]])
    assert loss(x, torch.tensor([0])).item() == pytest.approx(-2.0)
    every = ProxyNCA(2, 2, denominator="all")
    every.load_state_dict(loss.state_dict())
    assert every(x, torch.tensor([0])).item() == pytest.approx(math.log1p(math.exp(-2)), rel=1e-6)


@both
def test_gradient_is_that_of_the_value(denominator):
    loss = made(denominator=denominator, scale=3.0)
    x, y = batch(n=4)

    def value(x, w):
        return torch.func.functional_call(loss, {"weight": w}, (x, y))

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), loss.weight.detach().clone().requires_grad_()))


@pytest.mark.parametrize("scale", [1.0, 9.0])
def test_over_all_proxies_it_is_pytorch_metric_learnings(scale):
    ours, theirs = made(denominator="all", scale=scale), pml.ProxyNCALoss(C, D, softmax_scale=scale).double()
    with torch.no_grad():
        theirs.proxies.copy_(ours.weight)
    x, y = batch()
    torch.testing.assert_close(ours(x, y), theirs(x, y), rtol=1e-9, atol=0)


@both
@pytest.mark.parametrize(
    ("distance", "formula"),
    [
        (Euclidean(), lambda a, b: math.sqrt(squared(a, b))),
        (SquaredEuclidean(normalize=False), lambda a, b: math.dist(a, b) ** 2),
        (Cosine(), lambda a, b: -sum(p * q for p, q in zip(unit(a), unit(b), strict=True))),
        (Dot(), lambda a, b: -sum(p * q for p, q in zip(a, b, strict=True))),
        (pml_distances.LpDistance(power=2), squared),
        (pml_distances.CosineSimilarity(), lambda a, b: squared(a, b) / 2 - 1),
    ],
    ids=lambda d: type(d).__module__.split(".")[0] + "-" + type(d).__name__ if isinstance(d, torch.nn.Module) else "",
)
def test_any_distance_or_similarity_will_do(denominator, distance, formula):
    loss = made(denominator=denominator, scale=2.0, distance=distance)
    x, y = batch()
    expected = reference(x, loss.weight.detach(), y, denominator, 2.0, formula)
    assert loss(x, y).item() == pytest.approx(expected, rel=1e-9)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_finite_where_exponentials_are_not(denominator, dtype):
    """exp(−500·4) is 0 even in float64; the loss there is nearly 500 times the difference of the distances."""
    loss = ProxyNCA(2, 2, scale=500.0, denominator=denominator).to(dtype)
    with torch.no_grad():
        loss.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=dtype, requires_grad=True)
    value = loss(x, torch.tensor([0, 0]))
    value.backward()
    assert value.item() == pytest.approx({"others": 0.0, "all": 1000.0}[denominator], abs=1e-3)
    assert x.grad.isfinite().all()
    assert loss.weight.grad.isfinite().all()


@both
def test_degenerate_batches_are_finite(denominator):
    loss = ProxyNCA(C, D, denominator=denominator)
    x = torch.zeros(0, D, requires_grad=True)
    value = loss(x, torch.zeros(0, dtype=torch.long))
    value.backward()
    assert value.item() == 0
    assert (loss.weight.grad == 0).all()
    one, label = torch.randn(1, D), torch.tensor([3])
    torch.testing.assert_close(loss(one.repeat(4, 1), label.repeat(4)), loss(one, label))
    zero = torch.zeros(2, D, requires_grad=True)
    value = loss(zero, torch.tensor([1, 2]))
    value.backward()
    assert value.isfinite()
    assert zero.grad.isfinite().all()


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_give_a_float32_loss(denominator, dtype):
    loss = ProxyNCA(C, D, denominator=denominator)
    x, y = batch(dtype=dtype)
    value = loss(x.requires_grad_(), y)
    value.backward()
    assert value.dtype == torch.float32
    assert x.grad.dtype == dtype
    torch.testing.assert_close(value, loss(x.detach().float(), y))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(x, y), value)
    assert loss.to(torch.bfloat16)(x, y).isfinite()
    assert loss.weight.dtype == torch.bfloat16


@both
def test_order_and_label_dtype_do_not_matter(denominator):
    loss = made(denominator=denominator)
    x, y = batch()
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    torch.testing.assert_close(loss(x[order], y[order].int()), loss(x, y))


@both
def test_a_miner_weighs_the_elements(denominator):
    loss, single = made(denominator=denominator), made(denominator=denominator, reducer=NoReduction())
    x, y = batch()
    triplets = (torch.tensor([0, 0]), torch.tensor([1, 3]), torch.tensor([2, 3]))
    values = single(x, y)
    expected = (values[0] + values[1] / 2 + values[2] / 2 + values[3]) / 8
    torch.testing.assert_close(loss(x, y, triplets), expected)
    nothing = tuple(torch.zeros(0, dtype=torch.long) for _ in range(4))
    assert loss(x, y, nothing).item() == 0


@both
def test_logits_rank_proxies_by_distance(denominator):
    loss = made(denominator=denominator, scale=2.0)
    x, _ = batch()
    for row, xi in zip(loss.logits(x).tolist(), x.tolist(), strict=True):
        assert row == pytest.approx([-2 * squared(xi, p) for p in loss.weight.tolist()], rel=1e-9)


@both
def test_what_does_not_fit_is_named(denominator):
    loss = made(denominator=denominator)
    x, y = batch()
    with pytest.raises(InputError, match=r"labels run from 0 to 5; got labels from -100 to"):
        loss(x, y.index_fill(0, torch.tensor([0]), -100))
    with pytest.raises(InputError, match=r"got labels from \d to 6"):
        loss(x, y.index_fill(0, torch.tensor([0]), 6))
    with pytest.raises(InputError, match=r"embedding_size=4; got embeddings \(8, 3\)"):
        loss(x[:, :3], y)
    with pytest.raises(InputError, match="no ref_emb"):
        loss(x, y, ref_emb=x.clone(), ref_labels=y)
    with pytest.raises(InputError, match="needs labels"):
        loss(x, None, (y[:1] * 0, y[:1] * 0, y[:1] * 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"denominator": "none"}, "denominator must be one of 'others', 'all'; got 'none'"),
        ({"scale": 0.0}, "scale must be greater than 0"),
        ({"num_classes": 1}, "needs two classes"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        ProxyNCA(**({"num_classes": C, "embedding_size": D} | arguments))


def test_a_single_class_is_settled_over_all():
    assert ProxyNCA(1, D, denominator="all")(torch.randn(3, D), torch.zeros(3, dtype=torch.long)).item() == 0


def test_proxies_start_as_documented():
    torch.manual_seed(0)
    assert ProxyNCA(400, 64).weight.std().item() == pytest.approx(1 / 8, rel=0.02)


@pytest.mark.parametrize("denominator", ["others", "all"])
def test_in_blocks_of_proxies_it_is_the_same(denominator, monkeypatch):
    torch.manual_seed(3)
    loss = ProxyNCA(7, 5, scale=4.0, denominator=denominator).double()
    x, y = torch.randn(6, 5, dtype=torch.float64, requires_grad=True), torch.tensor([0, 6, 3, 3, 1, 6])
    expected = loss(x, y)
    gradients = torch.autograd.grad(expected, [x, loss.weight])
    monkeypatch.setattr(proxy_nca, "MANY", 0)
    for held in (1, 12, 10**6):
        monkeypatch.setitem(blocks._HELD, "cpu", held)
        found = loss(x, y)
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
        for a, b in zip(torch.autograd.grad(found, [x, loss.weight]), gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)


def test_blocks_keep_their_digits_at_large_scales_in_float32(monkeypatch):
    monkeypatch.setattr(proxy_nca, "MANY", 0)
    torch.manual_seed(3)
    loss = ProxyNCA(7, 5, scale=400.0)
    x, y = torch.cat([loss.weight.detach()[:3], -loss.weight.detach()[:3]]), torch.tensor([0, 1, 2, 0, 1, 2])
    x.requires_grad_()
    value = loss(x, y)
    value.backward()
    exact = ProxyNCA(7, 5, scale=400.0).double()
    exact.load_state_dict(loss.state_dict())
    monkeypatch.setattr(proxy_nca, "MANY", 10**9)
    torch.testing.assert_close(value.double(), exact.double()(x.detach().double(), y), rtol=1e-5, atol=0)
    assert x.grad.isfinite().all()
    assert loss.weight.grad.isfinite().all()


def test_on_other_distances_there_are_no_blocks(monkeypatch):
    monkeypatch.setattr(proxy_nca, "MANY", 0)
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 6, 3, 3, 1, 6])
    for distance in (SquaredEuclidean(normalize=False), Euclidean(), Cosine()):
        torch.manual_seed(3)
        loss = ProxyNCA(7, 5, denominator="all", distance=distance).double()
        logits = distance(x, loss.weight) * (1 if distance.is_inverted else -1)
        torch.testing.assert_close(loss(x, y), torch.nn.functional.cross_entropy(logits, y))
