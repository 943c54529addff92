"""Center loss against the paper's formula and its rule for the centres, as loops over plain Python numbers."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import NoReduction, Sum
from nearfar.nn.steps import follow
from nearfar_proxy.center import Center

C, D = 6, 4


def batch(n=8, dtype=torch.float64, seed=4):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=g, dtype=torch.float64).to(dtype) * 2, torch.randint(C, (n,), generator=g)


def values(x, y, centers):
    return [sum((a - b) ** 2 for a, b in zip(xi, centers[j], strict=True)) / 2 for xi, j in zip(x, y, strict=True)]


def moved(x, y, centers, alpha):
    new = [list(c) for c in centers]
    for j, c in enumerate(centers):
        mine = [xi for xi, yi in zip(x, y, strict=True) if yi == j]
        for k in range(len(c)):
            delta = sum(c[k] - xi[k] for xi in mine) / (1 + len(mine))
            new[j][k] = c[k] - alpha * delta
    return new


@pytest.mark.parametrize("alpha", [0.5, 1.0, 0.1])
def test_three_batches_go_by_the_paper(alpha):
    loss, centers = Center(C, D, alpha=alpha).double(), [[0.0] * D for _ in range(C)]
    for step in range(3):
        x, y = batch(seed=step)
        expected = values(x.tolist(), y.tolist(), centers)
        assert loss(x, y).item() == pytest.approx(math.fsum(expected) / len(expected), rel=1e-12)
        centers = moved(x.tolist(), y.tolist(), centers, alpha)
        torch.testing.assert_close(loss.centers, torch.tensor(centers, dtype=torch.float64), rtol=1e-12, atol=1e-14)


def test_the_sum_is_one_word_away():
    x, y = batch()
    expected = math.fsum(values(x.tolist(), y.tolist(), [[0.0] * D] * C))
    assert Center(C, D, reducer=Sum())(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_evaluation_leaves_the_centres_alone():
    loss = Center(C, D).eval()
    x, y = batch()
    assert torch.equal(loss(x, y), loss(x, y))
    assert (loss.centers == 0).all()


def test_the_gradient_is_that_to_the_centres_before_the_update():
    """∂L/∂x = (x − c)/n with the old c, though the centres have moved by the time of the backward pass."""
    loss = Center(C, D).double()
    loss(*batch(seed=1))
    old = loss.centers.clone()
    x, y = batch(seed=2)
    loss(x.requires_grad_(), y).backward()
    assert not torch.equal(loss.centers, old)
    torch.testing.assert_close(x.grad, (x.detach() - old[y]) / len(x), rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(lambda v: loss.eval()(v, y), (x,))


def test_centres_that_are_a_parameter_are_left_to_the_optimiser():
    loss = Center(C, D, update="gradient").double()
    assert [name for name, _ in loss.named_parameters()] == ["centers"]
    assert [name for name, _ in Center(C, D).named_buffers()] == ["centers"]
    x, y = batch()

    def value(x, centers):
        return torch.func.functional_call(loss, {"centers": centers}, (x, y))

    centers = torch.randn(C, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, (x.requires_grad_(), centers))
    loss(x, y).backward()
    assert (loss.centers == 0).all()
    expected = torch.zeros(C, D, dtype=torch.float64)
    for xi, j in zip(x.detach(), y.tolist(), strict=True):
        expected[j] -= xi / len(x)
    torch.testing.assert_close(loss.centers.grad, expected, rtol=1e-12, atol=1e-14)


def test_centres_come_to_the_means_of_their_classes():
    loss = Center(2, D)
    x, y = torch.randn(40, D), torch.arange(40) % 2
    for _ in range(60):
        loss(x, y)
    torch.testing.assert_close(loss.centers, torch.stack([x[y == 0].mean(0), x[y == 1].mean(0)]), rtol=1e-4, atol=1e-5)


def test_the_update_is_the_same_every_time_and_in_any_order():
    x, y = batch(n=64, dtype=torch.float32)
    first, again, other = Center(C, D), Center(C, D), Center(C, D)
    first(x, y)
    again(x, y)
    assert torch.equal(first.centers, again.centers)
    order = torch.randperm(64)
    torch.testing.assert_close(other(x[order], y[order]), Center(C, D)(x, y))
    torch.testing.assert_close(other.centers, first.centers)


def test_centres_survive_a_checkpoint():
    first, second = Center(C, D), Center(C, D)
    first(*batch())
    second.load_state_dict(first.state_dict())
    x, y = batch(seed=9)
    assert torch.equal(first(x, y), second(x, y))
    assert torch.equal(first.centers, second.centers)


@pytest.mark.parametrize("update", ["paper", "gradient"])
def test_degenerate_batches_are_finite(update):
    loss = Center(C, D, update=update)
    x = torch.zeros(0, D, requires_grad=True)
    value = loss(x, torch.zeros(0, dtype=torch.long))
    value.backward()
    assert value.item() == 0
    assert (loss.centers == 0).all()
    x = torch.zeros(2, D, requires_grad=True)
    value = loss(x, torch.tensor([1, 1]))
    value.backward()
    assert value.item() == 0
    assert (x.grad == 0).all()
    assert loss(torch.ones(1, D), torch.tensor([2])).item() == D / 2


@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e30])
def test_an_embedding_without_a_finite_distance_moves_no_centre(bad):
    loss, clean = Center(C, D), Center(C, D)
    x, y = torch.arange(1.0, 13).reshape(3, D), torch.tensor([0, 0, 1])
    spoilt = x.clone()
    spoilt[0, 1] = bad
    loss(spoilt, y)
    clean(x[1:], y[1:])
    torch.testing.assert_close(loss.centers, clean.centers)


@pytest.mark.parametrize("update", ["paper", "gradient"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_give_a_float32_loss(update, dtype):
    loss, full = Center(C, D, update=update), Center(C, D, update=update)
    x, y = batch(dtype=dtype)
    value = loss(x.requires_grad_(), y)
    value.backward()
    assert value.dtype == torch.float32
    assert x.grad.dtype == dtype
    torch.testing.assert_close(value, full(x.detach().float(), y))
    assert torch.equal(loss.centers, full.centers)
    assert loss.centers.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(x, y), full(x.detach().float(), y))
    assert loss.to(torch.bfloat16)(x, y).isfinite()
    assert loss.centers.dtype == torch.bfloat16


def test_a_miner_weighs_the_losses_and_not_the_update():
    x, y = batch()
    triplets = (torch.tensor([0, 0]), torch.tensor([1, 3]), torch.tensor([2, 3]))
    mined, free = Center(C, D), Center(C, D)
    v = values(x.tolist(), y.tolist(), [[0.0] * D] * C)
    assert mined(x, y, triplets).item() == pytest.approx((v[0] + v[1] / 2 + v[2] / 2 + v[3]) / 8, rel=1e-12)
    free(x, y)
    assert torch.equal(mined.centers, free.centers)
    single = Center(C, D, reducer=NoReduction())
    nothing = tuple(torch.zeros(0, dtype=torch.long) for _ in range(4))
    assert single(x, y.int(), nothing).tolist() == [0.0] * 8


def test_logits_are_largest_for_the_nearest_centre():
    loss = Center(C, D).double()
    with torch.no_grad():
        loss.centers.copy_(batch(n=C, seed=5)[0])
    x, _ = batch()
    nearest = [min(range(C), key=lambda j, xi=xi: math.dist(xi, loss.centers[j].tolist())) for xi in x.tolist()]
    assert loss.logits(x).argmax(1).tolist() == nearest


def test_what_does_not_fit_is_named():
    loss = Center(C, D)
    x, y = batch()
    with pytest.raises(InputError, match=r"labels run from 0 to 5; got labels from -1 to"):
        loss(x, y.index_fill(0, torch.tensor([0]), -1))
    with pytest.raises(InputError, match=r"got labels from \d to 6"):
        loss(x, y.index_fill(0, torch.tensor([0]), 6))
    with pytest.raises(InputError, match=r"embedding_size=4; got embeddings \(8, 3\)"):
        loss(x[:, :3], y)
    with pytest.raises(InputError, match="no ref_emb"):
        loss(x, y, ref_emb=x.clone(), ref_labels=y)
    assert (loss.centers == 0).all()
    with pytest.raises(ArgumentError, match="update must be one of 'paper', 'gradient'"):
        Center(C, D, update="momentum")
    with pytest.raises(ArgumentError, match=r"alpha must be in \[0, 1\]; got 1.5"):
        Center(C, D, alpha=1.5)


@pytest.mark.parametrize("split", [(8,), (3, 5), (0, 1, 7)])
def test_after_an_optimiser_calls_of_one_step_move_centres_as_one_batch(split):
    x, y = batch()
    whole, loss = Center(C, D).double(), Center(C, D).double()
    whole(x, y)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    follow(loss, optimizer)
    for part, labels in zip(x.split(split), y.split(split), strict=True):
        loss(part, labels)
        assert (loss.centers == 0).all()
    optimizer.step()
    torch.testing.assert_close(loss.centers, whole.centers, rtol=1e-12, atol=1e-14)
    # What was seen was seen once, and evaluation is no training.
    loss.eval()(x, y)
    optimizer.step()
    torch.testing.assert_close(loss.centers, whole.centers, rtol=1e-12, atol=1e-14)
