"""The supervised contrastive loss is what its formula says."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nearfar.errors import ArgumentError
from nearfar.nn.batch import Batch
from nearfar.nn.reducers import AvgNonZero, Mean, NoReduction, Sum
from nearfar_pair.losses.sup_con import SupCon
from nearfar_pair.miners.all import All

LABELS = [3, 0, 3, 1, 0, 3, 2, 1, 0, 4]
REFERENCE = [0, 1, 4, 0, 3, 3, 1]
Pairs = list[tuple[int, int]]


def by_anchor(d: list[list[float]], pairs: tuple[Pairs, Pairs], temperature: float) -> dict[int, float]:
    """Anchor → its loss by the formula, for anchors with a positive."""
    positive, negative = pairs
    losses = {}
    for i in range(len(d)):
        P = sorted({j for a, j in positive if a == i})
        A = sorted({j for a, j in [*positive, *negative] if a == i})
        if P:
            total = math.fsum(math.exp(-d[i][a] / temperature) for a in A)
            losses[i] = -math.fsum(math.log(math.exp(-d[i][p] / temperature) / total) for p in P) / len(P)
    return losses


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("distance", ["cosine", "euclidean", "squared", "dot"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_value(temperature: float, distance: str, with_reference: bool, brute: SimpleNamespace) -> None:
    x, r = brute.clustered(LABELS), brute.clustered(REFERENCE, seed=1)
    d = brute.matrix(distance, x, r if with_reference else None)
    losses = by_anchor(d, brute.pairs(LABELS, REFERENCE if with_reference else None), temperature)
    assert len(losses) < len(LABELS), "some anchor must be without a positive"
    loss = SupCon(temperature, distance=brute.distances[distance][0]())
    reference = {"ref_emb": r, "ref_labels": torch.tensor(REFERENCE)} if with_reference else {}
    value = loss(x, torch.tensor(LABELS), **reference)
    assert value.item() == pytest.approx(math.fsum(losses.values()) / len(losses), rel=1e-9)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_gradient(distance: str, with_reference: bool, brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS[:7], dim=3).requires_grad_()
    r = brute.clustered(REFERENCE[:4], dim=3, seed=1).requires_grad_()
    y, z = torch.tensor(LABELS[:7]), torch.tensor(REFERENCE[:4])
    loss = SupCon(distance=brute.distances[distance][0]())
    if with_reference:
        assert torch.autograd.gradcheck(lambda x, r: loss(x, y, None, r, z), (x, r))
    else:
        assert torch.autograd.gradcheck(lambda x: loss(x, y), (x,))


def test_a_miner_restricts_positives_and_negatives(brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS)
    d = brute.matrix("cosine", x)
    positive, negative = [(0, 2), (0, 2), (0, 5), (1, 4)], [(0, 1), (1, 3), (6, 2)]
    losses = by_anchor(d, (positive, negative), 0.1)
    indices = tuple(torch.tensor(c) for pairs in (positive, negative) for c in zip(*pairs, strict=True))
    for labels in (None, torch.tensor(LABELS)):
        assert SupCon()(x, labels, indices).item() == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-9)


def test_all_triplets_leave_out_nothing_in_a_batch_of_several_classes(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    losses = by_anchor(brute.matrix("cosine", x), brute.pairs(LABELS), 0.1)
    value = SupCon()(x, y, All().select(x, y)).item()
    assert value == pytest.approx(math.fsum(losses.values()) / len(losses), rel=1e-9)


def test_terms_are_the_anchors_with_a_positive(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    losses = by_anchor(brute.matrix("cosine", x), brute.pairs(LABELS), 0.1)
    terms = SupCon().terms(Batch.of(x, y))
    assert terms.kind == "element"
    assert terms.indices[0].tolist() == list(losses) == [0, 1, 2, 3, 4, 5, 7, 8]
    assert terms.values.tolist() == pytest.approx(list(losses.values()), rel=1e-9)
    assert terms.count() == terms.count_positive() == 8
    assert terms.sum().item() == pytest.approx(math.fsum(losses.values()), rel=1e-9)
    assert terms.sum_by_anchor().tolist() == pytest.approx([losses.get(i, 0.0) for i in range(10)], rel=1e-9)
    assert terms.count_by_anchor().tolist() == [int(i in losses) for i in range(10)]
    assert SupCon(reducer=NoReduction())(x, y).tolist() == pytest.approx(list(losses.values()), rel=1e-9)


def test_one_positive_and_one_negative_pair_cost() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    indices = tuple(torch.tensor([i]) for i in (0, 1, 0, 2))
    # Similarities 0 to the positive and 0.6 to the negative, at temperature 1.
    assert SupCon(1.0)(x, None, indices).item() == pytest.approx(math.log(1 + math.exp(0.6)), rel=1e-12)


def test_in_a_batch_of_one_class_each_positive_stands_against_the_others() -> None:
    x = torch.eye(4, dtype=torch.float64)  # all similarities 0: each of three positives has a third
    assert SupCon()(x, torch.zeros(4, dtype=torch.int64)).item() == pytest.approx(math.log(3), rel=1e-12)


def test_the_order_of_the_batch_does_not_matter(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    shuffled = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(3))
    assert SupCon()(x, y).item() == pytest.approx(SupCon()(x[shuffled], y[shuffled]).item(), rel=1e-12)


def test_a_cold_temperature_does_not_overflow() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], requires_grad=True)
    value = SupCon(1e-3)(x, torch.tensor([0, 0, 1, 1]))
    value.backward()
    # Each anchor has one positive and one of the two negatives at similarity 0, the other at −1.
    assert value.item() == pytest.approx(math.log(2), rel=1e-6)
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("reducer", [Mean, Sum, AvgNonZero])
@pytest.mark.parametrize("labels", [[], [0], [0, 1, 2]])
def test_without_a_positive_it_is_zero_with_a_gradient(labels: list[int], reducer: Any) -> None:
    x = torch.randn(len(labels), 4, requires_grad=True)
    value = SupCon(reducer=reducer())(x, torch.tensor(labels, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_an_empty_reference_set_is_zero() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    none = torch.tensor([], dtype=torch.int64)
    value = SupCon()(x, torch.tensor([0, 0, 1]), ref_emb=torch.randn(0, 2), ref_labels=none)
    value.backward()
    assert value.item() == 0


@pytest.mark.parametrize("x", [torch.zeros(6, 3), torch.ones(6, 3)], ids=["zero vectors", "duplicates"])
def test_collapsed_embeddings_are_a_draw_with_a_finite_gradient(x: torch.Tensor) -> None:
    x = x.clone().requires_grad_()
    value = SupCon()(x, torch.tensor([0, 1, 0, 1, 2, 2]))
    value.backward()
    assert value.item() == pytest.approx(math.log(5), rel=1e-6)
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_nothing_but_its_inputs(dtype: torch.dtype, brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS).to(dtype).requires_grad_()
    value = SupCon()(x, torch.tensor(LABELS))
    value.backward()
    losses = by_anchor(brute.matrix("cosine", x), brute.pairs(LABELS), 0.1)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(math.fsum(losses.values()) / len(losses), rel=1e-5)
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()


def test_labels_may_be_int32(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    assert SupCon()(x, y.int()) == SupCon()(x, y)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, "0.1"])
def test_a_temperature_that_is_none_is_refused(temperature: Any) -> None:
    with pytest.raises(ArgumentError, match="temperature"):
        SupCon(temperature)
