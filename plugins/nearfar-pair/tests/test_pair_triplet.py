"""The triplet loss is what its formula says, on every selection, distance and reference set."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import AvgNonZero, Mean, NoReduction, Sum
from nearfar_pair.losses.triplet import Triplet
from nearfar_pair.miners.all import All
from nearfar_pair.miners.batch_hard import BatchHard
from nearfar_pair.miners.hard import Hard
from nearfar_pair.miners.semihard import SemiHard

LABELS = [3, 0, 3, 1, 0, 3, 2, 1, 0, 4]
REFERENCE = [0, 1, 4, 0, 3, 3, 1]
MARGIN = 0.3
REDUCERS: dict[str, Any] = {"mean": Mean, "sum": Sum, "avg_non_zero": AvgNonZero}


def reduced(name: str, values: list[float]) -> float:
    kept = [v for v in values if v > 0] if name == "avg_non_zero" else values
    return math.fsum(kept) / (1 if name == "sum" else max(len(kept), 1))


def cost(d: list[list[float]], r: list[list[float]], t: tuple[int, int, int], swap: bool, smooth: bool) -> float:
    """By the formula; ``r`` holds the distances within the reference set."""
    a, p, n = t
    negative = min(d[a][n], r[p][n]) if swap else d[a][n]
    violation = d[a][p] - negative + MARGIN
    return math.log1p(math.exp(violation)) if smooth else max(violation, 0.0)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine", "dot", "euclidean_raw"])
@pytest.mark.parametrize("reducer", ["mean", "sum", "avg_non_zero"])
@pytest.mark.parametrize(("swap", "smooth"), [(False, False), (True, False), (False, True), (True, True)])
def test_value(
    swap: bool, smooth: bool, reducer: str, distance: str, with_reference: bool, brute: SimpleNamespace
) -> None:
    x, r = brute.clustered(LABELS), brute.clustered(REFERENCE, seed=1)
    d = brute.matrix(distance, x, r if with_reference else None)
    within = brute.matrix(distance, r) if with_reference else d
    chosen = brute.triplets(d, LABELS, REFERENCE if with_reference else None)
    expected = reduced(reducer, [cost(d, within, t, swap, smooth) for t in chosen])
    loss = Triplet(MARGIN, swap, smooth, distance=brute.distances[distance][0](), reducer=REDUCERS[reducer]())
    reference = {"ref_emb": r, "ref_labels": torch.tensor(REFERENCE)} if with_reference else {}
    assert loss(x, torch.tensor(LABELS), **reference).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("options", [{}, {"swap": True}, {"smooth": True}])
@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine", "dot"])
def test_gradient(distance: str, options: dict[str, Any], with_reference: bool, brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS[:7], dim=3).requires_grad_()
    r = brute.clustered(REFERENCE[:4], dim=3, seed=1).requires_grad_()
    loss = Triplet(MARGIN, **options, distance=brute.distances[distance][0]())
    y, z = torch.tensor(LABELS[:7]), torch.tensor(REFERENCE[:4])
    if with_reference:
        assert torch.autograd.gradcheck(lambda x, r: loss(x, y, None, r, z), (x, r))
    else:
        assert torch.autograd.gradcheck(lambda x: loss(x, y), (x,))


def test_triplets_and_pairs_given_by_index(brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS)
    d = brute.matrix("euclidean", x)
    chosen = [(0, 2, 1), (4, 1, 6), (0, 2, 1)]
    loss = Triplet(MARGIN, reducer=Sum())
    expected = sum(cost(d, d, t, False, False) for t in chosen)
    indices = tuple(torch.tensor(column) for column in zip(*chosen, strict=True))
    assert loss(x, torch.tensor(LABELS), indices).item() == pytest.approx(expected, rel=1e-9)
    assert loss(x, None, indices).item() == pytest.approx(expected, rel=1e-9)
    # Pairs (0, 2), (0, 5) and (0, 1), (0, 3), (2, 4): joined on the anchor 0.
    pairs = tuple(torch.tensor(i) for i in ([0, 0], [2, 5], [0, 0, 2], [1, 3, 4]))
    expected = sum(cost(d, d, (0, p, n), False, False) for p in (2, 5) for n in (1, 3))
    assert loss(x, None, pairs).item() == pytest.approx(expected, rel=1e-9)


def test_batch_hard_takes_the_hardest_triplet_of_each_anchor(brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS)
    y = torch.tensor(LABELS)
    d = brute.matrix("euclidean", x)
    worst: dict[int, float] = {}
    for t in brute.triplets(d, LABELS):
        violation = d[t[0]][t[1]] - d[t[0]][t[2]]
        worst[t[0]] = max(worst.get(t[0], -math.inf), violation)
    expected = reduced("mean", [max(v + MARGIN, 0.0) for v in worst.values()])
    loss = Triplet(MARGIN, reducer=Mean())
    assert loss(x, y, BatchHard().select(x, y, loss=loss)).item() == pytest.approx(expected, rel=1e-9)


def test_swap_with_a_reference_set_does_not_depend_on_its_order(brute: SimpleNamespace) -> None:
    x, r = brute.clustered(LABELS), brute.clustered(REFERENCE, seed=1)
    y, z = torch.tensor(LABELS), torch.tensor(REFERENCE)
    shuffled = torch.randperm(len(REFERENCE), generator=torch.Generator().manual_seed(3))
    loss = Triplet(MARGIN, swap=True)
    one, two = loss(x, y, None, r, z), loss(x, y, None, r[shuffled], z[shuffled])
    assert one.item() == pytest.approx(two.item(), rel=1e-12)


@pytest.mark.parametrize("miner", [None, All, SemiHard, Hard, BatchHard])
def test_the_order_of_the_batch_does_not_matter(miner: Any, brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    shuffled = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(3))
    loss = Triplet(MARGIN)

    def value(x: Tensor, y: Tensor) -> float:
        selection = None if miner is None else miner().select(x, y, loss=loss)
        return float(loss(x, y, selection))

    assert value(x, y) == pytest.approx(value(x[shuffled], y[shuffled]), rel=1e-12)


@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1, 2]])
@pytest.mark.parametrize("options", [{}, {"swap": True}, {"smooth": True}])
@pytest.mark.parametrize("reducer", [Mean, Sum, AvgNonZero])
def test_without_a_triplet_it_is_zero_with_a_gradient(labels: list[int], options: Any, reducer: Any) -> None:
    x = torch.randn(len(labels), 4, requires_grad=True)
    value = Triplet(**options, reducer=reducer())(x, torch.tensor(labels, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("options", [{}, {"swap": True}, {"smooth": True}])
@pytest.mark.parametrize("x", [torch.zeros(6, 3), torch.ones(6, 3)], ids=["zero vectors", "duplicates"])
def test_collapsed_embeddings_cost_the_margin_and_have_a_finite_gradient(x: Tensor, options: Any) -> None:
    x = x.clone().requires_grad_()
    value = Triplet(0.5, **options)(x, torch.tensor([0, 1, 0, 1, 2, 2]))
    value.backward()
    assert value.item() == pytest.approx(math.log1p(math.exp(0.5)) if options.get("smooth") else 0.5, rel=1e-6)
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("miner", [None, SemiHard, BatchHard])
def test_half_precision_loses_nothing_but_its_inputs(dtype: torch.dtype, miner: Any, brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS).to(dtype).requires_grad_()
    y = torch.tensor(LABELS)
    loss = Triplet(MARGIN)
    value = loss(x, y, None if miner is None else miner().select(x, y, loss=loss))
    value.backward()
    d = brute.matrix("euclidean", x)
    if miner is BatchHard:
        indices = BatchHard()(x.detach().double(), y)
        chosen = list(zip(*(i.tolist() for i in indices), strict=True))
    else:
        chosen = list(brute.triplets(d, LABELS, None, *((0.0, MARGIN) if miner is SemiHard else ())))
    expected = reduced("avg_non_zero", [cost(d, d, t, False, False) for t in chosen])
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()


def test_autocast_does_not_reach_the_loss(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS, dtype=torch.float32), torch.tensor(LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        inside = Triplet(MARGIN)(x, y)
    assert inside.dtype == torch.float32
    assert inside.item() == pytest.approx(Triplet(MARGIN)(x, y).item(), rel=1e-7)


def test_labels_may_be_int32(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    assert Triplet()(x, y.int()) == Triplet()(x, y)


def test_unreduced_it_gives_every_triplet(brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS)
    d = brute.matrix("euclidean", x)
    expected = [cost(d, d, t, False, False) for t in brute.triplets(d, LABELS)]
    values = Triplet(MARGIN, reducer=NoReduction())(x, torch.tensor(LABELS))
    assert values.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("margin", [-1.0, math.inf, math.nan, "0.2"])
def test_a_margin_that_is_none_is_refused(margin: Any) -> None:
    with pytest.raises(ArgumentError, match="margin"):
        Triplet(margin)


def test_a_selection_of_another_batch_is_refused() -> None:
    selection = All().select(torch.randn(6, 2), torch.tensor([0, 0, 1, 1, 2, 2]))
    with pytest.raises(InputError, match="6 embeddings and 6 references, and there are 4 and 4"):
        Triplet()(torch.randn(4, 2), torch.tensor([0, 0, 1, 1]), selection)
