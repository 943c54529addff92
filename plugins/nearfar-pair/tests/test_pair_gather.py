"""The batches of all ranks as one: gloo processes on one machine against one process with everything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import nearfar
from nearfar.errors import InputError
from nearfar.testing import run_on_ranks

DIM = 4
LABELS = torch.tensor([0, 1, 0, 2, 1, 2, 0])
#: Samples of each rank: ragged, and none at all.
SIZES = {2: (4, 3), 3: (5, 0, 2)}
#: Triplets with a miner inside; a loss of every pair; one that learns; class weights; a memory; draws.
RECIPES = (
    "triplet(miner=semihard)",
    "sup_con",
    "margin_beta(miner=distance_weighted)",
    "info_nce(learned=True)",
    "softmax",
    "cross_batch_memory(triplet, size=10)",
)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, DIM)).double()


def criterion(recipe: str) -> nn.Module:
    torch.manual_seed(1)
    return nearfar.compose(recipe, num_classes=3, embedding_size=DIM).double()


def samples(step: int) -> Tensor:
    return torch.randn(len(LABELS), 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def own_of(rank: int, world: int) -> slice:
    start = sum(SIZES[world][:rank])
    return slice(start, start + SIZES[world][rank])


def in_one_process(recipe: str) -> list[list[Tensor]]:
    """Of two steps the value, and its gradients by the model and by what the loss learns."""
    network, loss, found = model(), criterion(recipe), []
    for step in range(2):
        value = loss(network(samples(step)), LABELS)
        parameters = [*network.parameters(), *loss.parameters()]
        found.append([value.detach(), *torch.autograd.grad(value, parameters)])
    return found


class Everything(nn.Module):
    """A model and a criterion in one module, so that DistributedDataParallel averages the gradients of both."""

    def __init__(self, network: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        return self.loss(self.network(x), labels)


def compare_with_one_process(rank: int, world: int) -> None:
    own = own_of(rank, world)
    for recipe in RECIPES:
        whole = Everything(model(), criterion(f"gather({recipe})"))
        parallel = DistributedDataParallel(whole, find_unused_parameters=False, broadcast_buffers=False)
        for step, (value, *gradients) in enumerate(in_one_process(recipe)):
            whole.zero_grad()
            found = parallel(samples(step)[own], LABELS[own])
            torch.testing.assert_close(found.detach(), value, rtol=1e-12, atol=0, msg=recipe)
            found.backward()
            for parameter, expected in zip(whole.parameters(), gradients, strict=True):
                assert parameter.grad is not None
                torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-12, msg=recipe)


def choose_and_compare(rank: int, world: int) -> None:
    """Choices from outside count in a rank's own batch, and a reference set is gathered like the batch."""
    own, x, reference = own_of(rank, world), samples(0)[:, :DIM], samples(1)[:, :DIM]
    alone, together = criterion("triplet"), criterion("gather(triplet)")
    start = own.start
    # Of each rank: the first of its samples with the next two, as triplets and as pairs; none where it has none.
    first = torch.arange(min(1, own.stop - start))
    chosen = {3: (first, first + 1, first + 1), 4: (first, first + 1, first, first)}
    starts = [own_of(r, world).start for r in range(world) if SIZES[world][r]]
    everywhere = torch.tensor(starts)
    expected = {
        3: (everywhere, everywhere + 1, everywhere + 1),
        4: (everywhere, everywhere + 1, everywhere, everywhere),
    }
    for arity in (3, 4):
        for given in ({}, {"ref_emb": reference[own], "ref_labels": LABELS[own]}):
            whole = {"ref_emb": reference, "ref_labels": LABELS} if given else {}
            found = together(x[own], LABELS[own], chosen[arity], **given)
            torch.testing.assert_close(found, alone(x, LABELS, expected[arity], **whole), rtol=1e-12, atol=0)

    found = together(x[own], LABELS[own])
    itself = x[own]
    assert torch.equal(together(itself, LABELS[own], ref_emb=itself, ref_labels=LABELS[own]), found)


def raise_everywhere(rank: int, world: int) -> None:
    together = criterion("gather(triplet)")
    x, labels = samples(0)[:4, :DIM], LABELS[:4]
    with pytest.raises(InputError, match="the ranks differ in the embedding size"):
        together(x[:, : DIM - rank], labels)
    with pytest.raises(InputError, match="the ranks differ in ref_emb"):
        together(x, labels, **({"ref_emb": x, "ref_labels": labels} if rank else {}))
    with pytest.raises(InputError, match="shape" if rank == 1 else "rank 1 was called with what it cannot use"):
        together(x[0] if rank == 1 else x, labels)
    assert together(x, labels).isfinite()  # and nothing is left that the next call would get


def everything(rank: int, world: int) -> None:
    compare_with_one_process(rank, world)
    choose_and_compare(rank, world)
    raise_everywhere(rank, world)


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.long)])
def test_ranks_have_the_values_gradients_and_errors_of_one_process(world: int) -> None:
    """Gradients under DistributedDataParallel; choices from outside; what one rank was given wrong."""
    run_on_ranks(everything, world)


@pytest.mark.parametrize("recipe", RECIPES)
def test_in_one_process_it_is_the_loss_itself(recipe: str) -> None:
    x = samples(0)[:, :DIM]
    assert torch.equal(criterion(recipe)(x, LABELS), criterion(f"gather({recipe})")(x, LABELS))
