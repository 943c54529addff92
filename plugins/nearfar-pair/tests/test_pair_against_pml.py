"""Where pytorch-metric-learning computes the same thing, it gets the same number; where it errs, it is said how."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers

from nearfar.nn.distances import Cosine
from nearfar_pair.losses.contrastive import Contrastive
from nearfar_pair.losses.sup_con import SupCon
from nearfar_pair.losses.triplet import Triplet
from nearfar_pair.miners.all import All
from nearfar_pair.miners.batch_hard import BatchHard
from nearfar_pair.miners.hard import Hard
from nearfar_pair.miners.semihard import SemiHard

LABELS = [3, 0, 3, 1, 0, 3, 2, 1, 0, 4, 2, 2, 1, 3]
KINDS = {"all": All, "semihard": SemiHard, "hard": Hard}
MARGIN = 0.3


def batch(brute: SimpleNamespace, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return brute.clustered(LABELS, dim=8, dtype=dtype).requires_grad_(), torch.tensor(LABELS)


def same(ours: Any, theirs: Any, x: torch.Tensor, rel: float = 1e-9) -> None:
    assert theirs.item() > 0
    assert ours.item() == pytest.approx(theirs.item(), rel=rel)
    one, two = torch.autograd.grad(ours, x)[0], torch.autograd.grad(theirs, x)[0]
    torch.testing.assert_close(one, two, rtol=rel, atol=rel * float(two.abs().max()))


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("similarity", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_triplet_with_each_miner(
    kind: str, similarity: bool, dtype: torch.dtype, rel: float, brute: SimpleNamespace
) -> None:
    x, y = batch(brute, dtype)
    theirs_on = {"distance": distances.CosineSimilarity()} if similarity else {}
    mine = Triplet(MARGIN, distance=Cosine() if similarity else None)
    their_loss = losses.TripletMarginLoss(MARGIN, **theirs_on)
    their_miner = miners.TripletMarginMiner(MARGIN, type_of_triplets=kind, **theirs_on)
    same(mine(x, y, KINDS[kind]().select(x, y, loss=mine)), their_loss(x, y, their_miner(x, y)), x, rel)


@pytest.mark.parametrize("options", [{}, {"swap": True}, {"smooth": True}])
def test_triplet_without_a_miner(options: dict[str, Any], brute: SimpleNamespace) -> None:
    x, y = batch(brute)
    theirs = {"smooth_loss" if name == "smooth" else name: value for name, value in options.items()}
    same(Triplet(MARGIN, **options)(x, y), losses.TripletMarginLoss(MARGIN, **theirs)(x, y), x)


def test_triplet_with_a_reference_set(brute: SimpleNamespace) -> None:
    x, y = batch(brute)
    r, z = brute.clustered(LABELS[::-1], dim=8, seed=4), y.flip(0)
    mine, theirs = Triplet(MARGIN), losses.TripletMarginLoss(MARGIN)
    miner = miners.TripletMarginMiner(MARGIN, type_of_triplets="semihard")
    selection = SemiHard().select(x, y, r, z, loss=mine)
    same(mine(x, y, selection, r, z), theirs(x, y, miner(x, y, r, z), r, z), x)


def test_batch_hard_selects_the_same_triplets(brute: SimpleNamespace) -> None:
    x, y = batch(brute)
    ours, theirs = BatchHard()(x, y), miners.BatchHardMiner()(x, y)
    assert sorted(zip(*(i.tolist() for i in ours), strict=True)) == sorted(
        zip(*(i.tolist() for i in theirs), strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_their_loss_takes_our_miner_and_ours_theirs(kind: str, brute: SimpleNamespace) -> None:
    x, y = batch(brute)
    mine, theirs = Triplet(MARGIN), losses.TripletMarginLoss(MARGIN)
    our_miner = All() if kind == "all" else KINDS[kind](*([MARGIN] if kind == "semihard" else []))
    their_miner = miners.TripletMarginMiner(MARGIN, type_of_triplets=kind)
    same(mine(x, y, their_miner(x, y)), theirs(x, y, our_miner(x, y)), x)


@pytest.mark.parametrize("reducer", [reducers.MeanReducer, reducers.SumReducer, reducers.AvgNonZeroReducer])
def test_their_reducers_get_every_triplet(reducer: Any, brute: SimpleNamespace) -> None:
    x, y = batch(brute)
    mine, theirs = Triplet(MARGIN, reducer=reducer()), losses.TripletMarginLoss(MARGIN, reducer=reducer())
    same(mine(x, y), theirs(x, y), x)


def test_their_distances_are_taken(brute: SimpleNamespace) -> None:
    x, y = batch(brute)
    for d in (distances.LpDistance(), distances.CosineSimilarity()):
        mine = Triplet(MARGIN, distance=d)
        selection = SemiHard().select(x, y, loss=mine)
        miner = miners.TripletMarginMiner(MARGIN, type_of_triplets="semihard", distance=d)
        same(mine(x, y, selection), losses.TripletMarginLoss(MARGIN, distance=d)(x, y, miner(x, y)), x)


@pytest.mark.parametrize("similarity", [False, True])
@pytest.mark.parametrize("mined", [False, True])
def test_contrastive_with_a_linear_hinge(mined: bool, similarity: bool, brute: SimpleNamespace) -> None:
    x, y = batch(brute)
    margins = (0.9, 0.1) if similarity else (0.4, 1.2)
    mine = Contrastive(*margins, "linear", distance=Cosine() if similarity else None)
    theirs = losses.ContrastiveLoss(*margins, **({"distance": distances.CosineSimilarity()} if similarity else {}))
    tuple_ = miners.MultiSimilarityMiner(0.3)(x, y) if mined else None
    same(mine(x, y, tuple_), theirs(x, y, tuple_), x)


@pytest.mark.parametrize("mined", [False, True])
def test_sup_con_by_anchor(mined: bool, brute: SimpleNamespace) -> None:
    x, y = batch(brute)
    tuple_ = miners.MultiSimilarityMiner(0.3)(x, y) if mined else None
    # Their default leaves out what is not above zero; no anchor with a positive is that here.
    same(SupCon()(x, y, tuple_), losses.SupConLoss()(x, y, tuple_), x)


def test_sup_con_with_a_reference_set(brute: SimpleNamespace) -> None:
    x, y = batch(brute)
    r, z = brute.clustered(LABELS[::-1], dim=8, seed=4), y.flip(0)
    same(SupCon(0.5)(x, y, None, r, z), losses.SupConLoss(0.5)(x, y, None, r, z), x)


def test_they_give_nothing_for_one_pair_of_each_sort_and_we_do() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    indices = tuple(torch.tensor([i]) for i in (0, 1, 0, 2))
    assert losses.ContrastiveLoss()(x, None, indices) == 0
    assert losses.SupConLoss()(x, None, indices) == 0
    expected = math.sqrt(2) + 1 - math.sqrt(0.8)
    assert Contrastive(hinge="linear")(x, None, indices).item() == pytest.approx(expected, rel=1e-6)
    assert SupCon(1.0)(x, None, indices).item() == pytest.approx(math.log(1 + math.exp(0.6)), rel=1e-6)


def test_their_swap_fails_with_a_reference_set_and_ours_does_not(brute: SimpleNamespace) -> None:
    x, y = batch(brute)
    r, z = brute.clustered(LABELS * 2, dim=8, seed=4), torch.tensor(LABELS * 2)
    with pytest.raises(IndexError):
        losses.TripletMarginLoss(swap=True)(x, y, None, r, z)
    assert Triplet(swap=True)(x, y, None, r, z).isfinite()
