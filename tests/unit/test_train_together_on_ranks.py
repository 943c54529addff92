"""Steps of a criterion on two ranks, classes shared out where a term can, are those of one process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import nearfar
from nearfar.nn import Criterion
from nearfar.testing.ranks import run_on_ranks
from nearfar.train.clipping import clip
from nearfar.train.config import Optimizer
from nearfar.train.optimizer import make_optimizer, parameter_groups
from nearfar.train.ranks import Ranks, gathered, give_whole_batches
from nearfar.train.sampled import row_optimizers, sample_classes
from nearfar.train.shards import shard_classes, sharded_names, whole

CLASSES, DIM, BATCH, STEPS = 7, 6, 8, 3
#: Most of the gradients of these steps are longer.
LIMIT = 0.3

#: What ranks share out beside what they do not; miners, reducers and numbers of a whole batch; what is learned besides
#: class vectors; what tells other ranks of the batch itself; what is not nearfar's.
RECIPES = (
    "arcface + 0.5 * triplet(miner=semihard)",
    "arcface(miner=semihard(margin=0.2)) + 0.1 * adaface(reducer=avg_non_zero)",
    "softmax(label_smoothing=0.1) + 0.003 * center",
    "modified_softmax + 0.01 * ring + 0.1 * norm_softmax(learn_scale=True)",
    "adacos + 0.5 * proxy_anchor + 0.1 * proxy_nca(reducer=sum)",
    "subcenter_arcface(reducer=sum) + gather(triplet)",
    "cosface + pml.n_pairs_loss",
    "curricularface + 0.1 * kappaface(renewal=2) + elasticface",
    "proxy_nca_pp(miner=semihard(margin=0.2)) + soft_triple",
)
#: Which of the classes that are not in the batch are taken every rank draws alike.
SAMPLED = ("arcface(miner=semihard(margin=0.2)) + 0.5 * triplet", "softmax + 0.1 * norm_softmax(learn_scale=True)")


def made(recipe: str) -> tuple[nn.Linear, Criterion]:
    torch.manual_seed(1)
    model, criterion = nn.Linear(5, DIM).double(), nearfar.compose(recipe, num_classes=CLASSES, embedding_size=DIM)
    return model, criterion.double().train()


def batch(step: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, 5, generator=g, dtype=torch.float64), torch.randint(CLASSES, (BATCH,), generator=g)


def steps(recipe: str, rate: float, ranks: Ranks, *, share_out: bool = True) -> list[dict[str, Tensor]]:
    """What each step leaves: the loss, the norm of its gradients, and everything that is learned or kept."""
    model, criterion = made(recipe)
    if ranks.world > 1:
        give_whole_batches(criterion)
        if share_out:
            shard_classes(criterion, torch.device("cpu"))
    if rate < 1:
        sample_classes(criterion, rate, seed=0)
    config = Optimizer(name="sgd", lr=0.05)
    optimizer = make_optimizer(parameter_groups(model, criterion, config), config, row_optimizers(criterion))
    criterion.follow(optimizer)
    found = []
    for step in range(STEPS):
        x, y = (each.chunk(ranks.world)[ranks.rank] for each in batch(step))
        optimizer.zero_grad()
        torch.manual_seed(step)
        loss = criterion(*gathered(model(x), y, ranks))
        loss.backward()
        _average(model, criterion, ranks)
        norm = clip(optimizer, LIMIT)
        optimizer.step()
        kept = whole(criterion.state_dict(), keep=True)
        found.append({"loss": loss.detach(), "norm": norm, **model.state_dict(), **kept})
        found[-1] = {name: value.clone() for name, value in found[-1].items()}
    return found


def _average(model: nn.Module, criterion: Criterion, ranks: Ranks) -> None:
    """As DistributedDataParallel does, which leaves alone what it is told to."""
    if ranks.world == 1:
        return
    everything = nn.ModuleList([model, criterion])
    apart = sharded_names(everything)
    for name, parameter in everything.named_parameters():
        if name not in apart and parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= ranks.world


def compare(rank: int, world: int, expected: dict[tuple[str, float], Any]) -> None:
    for (recipe, rate), alone in expected.items():
        for share_out in (True, False) if rate == 1 else (True,):
            together = steps(recipe, rate, Ranks(rank, world), share_out=share_out)
            for one, two in zip(alone, together, strict=True):
                assert one.keys() == two.keys()
                for name, value in one.items():
                    told = f"{recipe}, {share_out=}: {name}"
                    torch.testing.assert_close(
                        two[name], value, rtol=1e-6, atol=1e-7, msg=lambda text, told=told: f"{told}: {text}"
                    )


def test_two_ranks_do_what_one_process_does() -> None:
    alone = {(recipe, 1.0): steps(recipe, 1.0, Ranks()) for recipe in RECIPES}
    alone |= {(recipe, 0.5): steps(recipe, 0.5, Ranks()) for recipe in SAMPLED}
    clipped = [step["norm"] > LIMIT for each in alone.values() for step in each]
    assert sum(clipped) > len(clipped) / 2
    run_on_ranks(compare, 2, alone)
