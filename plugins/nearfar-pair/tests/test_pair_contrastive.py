"""The contrastive loss is what its formula says, for distances and for similarities."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nearfar.errors import ArgumentError
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Cosine, Euclidean
from nearfar.nn.reducers import AvgNonZero, Mean, NoReduction, Sum
from nearfar.nn.selection import IndexSelection
from nearfar_pair.losses.contrastive import Contrastive
from nearfar_pair.miners.all import All
from nearfar_pair.miners.batch_hard import BatchHard

LABELS = [3, 0, 3, 1, 0, 3, 2, 1, 0, 4]
REFERENCE = [0, 1, 4, 0, 3, 3, 1]
REDUCERS: dict[str, Any] = {"mean": Mean, "sum": Sum, "avg_non_zero": AvgNonZero}
#: Per distance, margins between which some pairs of each sort cost and some do not.
MARGINS = {"euclidean": (1.0, 1.3), "squared": (1.0, 1.5), "cosine": (0.4, 0.2), "dot": (3.0, 0.5)}


def costs(d: float, margin: float, sort: str, similarity: bool, hinge: str) -> float:
    """By the formula; ``d`` has a similarity negated, as the fixture gives it."""
    if similarity:
        s = -d
        excess = margin - s if sort == "positive" else s - margin
    else:
        excess = d - margin if sort == "positive" else margin - d
    return max(excess, 0.0) ** (2 if hinge == "squared" else 1)


def reduced(name: str, values: list[float]) -> float:
    kept = [v for v in values if v > 0] if name == "avg_non_zero" else values
    return math.fsum(kept) / (1 if name == "sum" else max(len(kept), 1))


def expected(
    d: list[list[float]], pairs: tuple[list[Any], list[Any]], distance: str, hinge: str
) -> tuple[list[float], list[float]]:
    similarity = distance in ("cosine", "dot")
    m_pos, m_neg = MARGINS[distance]
    return (
        [costs(d[i][j], m_pos, "positive", similarity, hinge) for i, j in pairs[0]],
        [costs(d[i][j], m_neg, "negative", similarity, hinge) for i, j in pairs[1]],
    )


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("distance", MARGINS)
@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize("hinge", ["squared", "linear"])
def test_value(hinge: str, reducer: str, distance: str, with_reference: bool, brute: SimpleNamespace) -> None:
    x, r = brute.clustered(LABELS), brute.clustered(REFERENCE, seed=1)
    d = brute.matrix(distance, x, r if with_reference else None)
    pairs = brute.pairs(LABELS, REFERENCE if with_reference else None)
    positive, negative = expected(d, pairs, distance, hinge)
    for side in (positive, negative):
        assert 0 < sum(v > 0 for v in side) < len(side), "the margins must divide the pairs"
    loss = Contrastive(*MARGINS[distance], hinge, distance=brute.distances[distance][0](), reducer=REDUCERS[reducer]())
    reference = {"ref_emb": r, "ref_labels": torch.tensor(REFERENCE)} if with_reference else {}
    value = loss(x, torch.tensor(LABELS), **reference)
    assert value.item() == pytest.approx(reduced(reducer, positive) + reduced(reducer, negative), rel=1e-9)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("distance", MARGINS)
@pytest.mark.parametrize("hinge", ["squared", "linear"])
def test_gradient(hinge: str, distance: str, with_reference: bool, brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS[:6], dim=3).requires_grad_()
    r = brute.clustered(REFERENCE[:4], dim=3, seed=1).requires_grad_()
    y, z = torch.tensor(LABELS[:6]), torch.tensor(REFERENCE[:4])
    loss = Contrastive(*MARGINS[distance], hinge, distance=brute.distances[distance][0]())
    if with_reference:
        assert torch.autograd.gradcheck(lambda x, r: loss(x, y, None, r, z), (x, r))
    else:
        assert torch.autograd.gradcheck(lambda x: loss(x, y), (x,))


def test_the_paper_s_margins_are_the_default(brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS)
    d = brute.matrix("euclidean", x)
    positive, negative = brute.pairs(LABELS)
    one = [d[i][j] ** 2 for i, j in positive]
    two = [max(1 - d[i][j], 0) ** 2 for i, j in negative]
    value = Contrastive()(x, torch.tensor(LABELS)).item()
    assert value == pytest.approx(reduced("avg_non_zero", one) + reduced("avg_non_zero", two), rel=1e-9)


def test_pairs_given_by_index_count_as_often_as_they_are_given(brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS)
    d = brute.matrix("euclidean", x)
    positive, negative = [(0, 2), (0, 2), (1, 4)], [(0, 1), (3, 5)]
    one, two = expected(d, (positive, negative), "euclidean", "squared")
    indices = tuple(torch.tensor(c) for pairs in (positive, negative) for c in zip(*pairs, strict=True))
    loss = Contrastive(*MARGINS["euclidean"], reducer=Mean())
    for labels in (None, torch.tensor(LABELS)):
        assert loss(x, labels, indices).item() == pytest.approx(sum(one) / 3 + sum(two) / 2, rel=1e-9)


@pytest.mark.parametrize("miner", [All, BatchHard])
def test_triplets_give_a_pair_of_each_sort(miner: Any, brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    d = brute.matrix("euclidean", x)
    loss = Contrastive(*MARGINS["euclidean"], reducer=Sum())
    selection = miner().select(x, y, loss=loss)
    chosen = list(zip(*(i.tolist() for i in selection.indices()), strict=True))
    one, two = expected(d, ([(a, p) for a, p, _ in chosen], [(a, n) for a, _, n in chosen]), "euclidean", "squared")
    assert loss(x, y, selection).item() == pytest.approx(math.fsum(one) + math.fsum(two), rel=1e-9)


def test_terms_say_what_they_are(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    d = brute.matrix("euclidean", x)
    loss = Contrastive(*MARGINS["euclidean"])
    every = tuple(torch.tensor(c) for pairs in brute.pairs(LABELS) for c in zip(*pairs, strict=True))
    for selection in (None, IndexSelection(every)):
        terms = loss.terms(Batch.of(x, y, selection))
        for (name, part), kind, pairs, values in zip(
            terms.items(),
            ("pos_pair", "neg_pair"),
            brute.pairs(LABELS),
            expected(d, brute.pairs(LABELS), "euclidean", "squared"),
            strict=True,
        ):
            assert (name, part.kind) == ({"pos_pair": "positive", "neg_pair": "negative"}[kind], kind)
            assert list(zip(*(i.tolist() for i in part.indices), strict=True)) == pairs
            assert part.values.tolist() == pytest.approx(values, abs=1e-12)
            assert part.count() == len(pairs)
            assert part.count_positive() == sum(v > 0 for v in values)
            by_anchor = [math.fsum(v for (i, _), v in zip(pairs, values, strict=True) if i == a) for a in range(10)]
            assert part.sum_by_anchor().tolist() == pytest.approx(by_anchor, abs=1e-12)
            assert part.count_by_anchor().tolist() == [sum(i == a for i, _ in pairs) for a in range(10)]
            assert part.sum().item() == pytest.approx(math.fsum(values), rel=1e-12)


def test_unreduced_it_gives_both_sides_by_name(brute: SimpleNamespace) -> None:
    values = Contrastive(reducer=NoReduction())(brute.clustered(LABELS), torch.tensor(LABELS))
    assert {name: len(v) for name, v in values.items()} == {
        name: len(pairs) for name, pairs in zip(("positive", "negative"), brute.pairs(LABELS), strict=True)
    }


def test_one_positive_and_one_negative_pair_cost() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    indices = tuple(torch.tensor([i]) for i in (0, 1, 0, 2))
    # d(0, 1) = √2 and d(0, 2) = √0.8.
    expected = 2 + (1 - math.sqrt(0.8)) ** 2
    assert Contrastive()(x, None, indices).item() == pytest.approx(expected, rel=1e-12)


def test_the_order_of_the_batch_does_not_matter(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    shuffled = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(3))
    loss = Contrastive()
    assert loss(x, y).item() == pytest.approx(loss(x[shuffled], y[shuffled]).item(), rel=1e-12)


def test_collapsed_classes_cost_less_than_a_collapsed_batch() -> None:
    y = torch.tensor([0, 0, 1, 1])
    apart = torch.eye(2)[y]
    together = torch.ones(4, 2)
    for loss in (Contrastive(), Contrastive(1.0, 0.2, distance=Cosine())):
        assert loss(apart, y).item() == pytest.approx(0, abs=1e-6)
        assert loss(together, y).item() > 0.5


@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize("labels", [[], [0], [0, 0, 0], [0, 1, 2]])
def test_small_batches_have_a_finite_loss_and_gradient(labels: list[int], reducer: str) -> None:
    x = torch.randn(len(labels), 4, requires_grad=True)
    value = Contrastive(reducer=REDUCERS[reducer]())(x, torch.tensor(labels, dtype=torch.int64))
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    if len(labels) < 2:
        assert value == 0


@pytest.mark.parametrize("distance", [Euclidean, Cosine])
@pytest.mark.parametrize("x", [torch.zeros(4, 3), torch.ones(4, 3)], ids=["zero vectors", "duplicates"])
def test_collapsed_embeddings_have_a_finite_gradient(x: torch.Tensor, distance: Any) -> None:
    x = x.clone().requires_grad_()
    Contrastive(0.5, 0.2, distance=distance())(x, torch.tensor([0, 1, 0, 1])).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_nothing_but_its_inputs(dtype: torch.dtype, brute: SimpleNamespace) -> None:
    x = brute.clustered(LABELS).to(dtype).requires_grad_()
    value = Contrastive(*MARGINS["euclidean"])(x, torch.tensor(LABELS))
    value.backward()
    sides = expected(brute.matrix("euclidean", x), brute.pairs(LABELS), "euclidean", "squared")
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(sum(reduced("avg_non_zero", side) for side in sides), rel=1e-5)
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()


def test_labels_may_be_int32(brute: SimpleNamespace) -> None:
    x, y = brute.clustered(LABELS), torch.tensor(LABELS)
    assert Contrastive()(x, y.int()) == Contrastive()(x, y)


def test_unusable_arguments_are_refused() -> None:
    with pytest.raises(ArgumentError, match="hinge must be one of 'squared', 'linear'; got 'cubic'"):
        Contrastive(hinge="cubic")
    with pytest.raises(ArgumentError, match="neg_margin"):
        Contrastive(neg_margin=math.inf)
    with pytest.raises(ArgumentError, match="pos_margin"):
        Contrastive("0")  # type: ignore[arg-type]
