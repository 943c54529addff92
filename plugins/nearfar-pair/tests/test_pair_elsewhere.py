"""On another device than the CPU, where other ways are taken, losses and miners give what they do there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import nearfar
from nearfar.registry import default_registry
from nearfar.testing.elsewhere import ELSEWHERE, elsewhere, here, there
from nearfar.testing.exercise import tensors_in

#: Those that take embeddings and labels alone, and wrappers around one of them.
LOSSES = [
    *(
        name
        for name in nearfar.list_losses(plugin="pair")
        if name not in ("cross_batch_memory", "gather", "graded_log_ratio", "matryoshka", "symmetric", "vicreg")
    ),
    "cross_batch_memory(loss=contrastive, size=300)",
    "gather(loss=sup_con)",
    "matryoshka(loss=triplet, dims=[8, 16])",
]
SPECS = {entry.spec.name: entry.spec for entry in default_registry().entries("loss") if entry.namespace == "pair"}
REFERENCE = [name for name in LOSSES if name in SPECS and SPECS[name].reference]
MINERS = [
    {"semihard": "semihard(margin=1.0)", "easy": "easy(margin=1.0)"}.get(name, name)
    for name in nearfar.list_miners(plugin="pair")
]
#: In whole matrices, and a few rows at a time.
SIZES = (40, 400)
#: Of an unnormalised distance sums over all pairs grow with what is summed, and so does their rounding.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def batch(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(size, 16, generator=generator, dtype=torch.float64)
    return embeddings.requires_grad_(), torch.arange(size) // 4


def outcome(make: Callable[[], nn.Module], size: int, reference: int, *, away: bool) -> list[Tensor]:
    """What is returned, and the gradients of what can have any; all of it on the CPU."""
    inputs = [*batch(size), *(batch(reference, seed=1) if reference else ())]
    with elsewhere() if away else contextlib.nullcontext():
        torch.manual_seed(0)
        part = make().double().to(ELSEWHERE if away else "cpu")
        inputs = [there(x) if away else x for x in inputs]
        returned = part(*inputs[:2], **dict(zip(("ref_emb", "ref_labels"), inputs[2:], strict=False)))
        found = tensors_in(returned)
        if found[0].requires_grad:
            sum(each.sum() for each in found).backward()
            found += [leaf.grad for leaf in (*inputs, *part.parameters()) if leaf.grad is not None]
        assert all(each.is_cpu is not away for each in found)
        return [here(each.detach()) for each in found]


def same_in_both_places(make: Callable[[], nn.Module], size: int, reference: int = 0) -> None:
    found, expected = (outcome(make, size, reference, away=away) for away in (True, False))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("size", [0, *SIZES])
@pytest.mark.parametrize("recipe", LOSSES)
def test_a_loss_is_the_same_elsewhere(recipe: str, size: int) -> None:
    same_in_both_places(lambda: nearfar.compose(recipe, embedding_size=16, num_classes=100), size)


@pytest.mark.parametrize("recipe", REFERENCE)
def test_a_loss_of_a_reference_set_is_the_same_elsewhere(recipe: str) -> None:
    same_in_both_places(lambda: nearfar.compose(recipe, embedding_size=16, num_classes=100), SIZES[1], 200)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("miner", MINERS)
def test_a_miner_chooses_the_same_elsewhere(miner: str, size: int) -> None:
    same_in_both_places(lambda: nearfar.create_miner(miner), size)


@pytest.mark.parametrize("reducer", ["mean", "avg_non_zero", "top_k(k=50)", "threshold(low=0.1)", "per_anchor", "none"])
@pytest.mark.parametrize("loss", ["triplet", "contrastive(pos_margin=0.1)", "multi_similarity", "nt_xent"])
@pytest.mark.parametrize("miner", ["semihard", "batch_hard", "multi_similarity", "distance_weighted"])
def test_what_is_composed_is_the_same_elsewhere(loss: str, miner: str, reducer: str) -> None:
    def make() -> nn.Module:
        return nearfar.compose(loss, miner=miner, reducer=reducer)

    with contextlib.suppress(nearfar.NearfarError):  # what does not compose does nowhere
        make()
        same_in_both_places(make, SIZES[1])
