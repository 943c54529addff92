"""Classes spread over ranks: gloo processes on one machine against one process with all of them."""

from __future__ import annotations

import datetime
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import nearfar
from nearfar.errors import ArgumentError
from nearfar_margin.cosface import CosFace
from nearfar_margin.shard import Shard, shard

C, D = 11, 5
#: A scale that is learned; rows that others depend on; state of the whole batch, two of them; several vectors a class;
#: a sum of losses with a learned bias; lengths.
LOSSES = {
    "arcface": "",
    "norm_softmax": "learn_scale=True, scale=6",
    "mv_softmax": "",
    "curricularface": "",
    "adacos": "",
    "adaface": "",
    "npcface": "",
    "subcenter_arcface": "",
    "sphereface2": "",
    "l_softmax": "",
}
#: Samples of each rank: ragged, and none at all.
SIZES = {2: (4, 3), 3: (5, 0, 2)}


def made(name):
    torch.manual_seed(2)
    given = ", ".join(filter(None, (LOSSES[name], "reducer=none")))
    loss = nearfar.compose(f"{name}({given})", num_classes=C, embedding_size=D).losses[name].double()
    with torch.no_grad():
        loss.weight.normal_()
    return loss


def batch():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(7, D, generator=g, dtype=torch.float64)
    return x, torch.tensor([0, C - 1, C - 1, 3, 5, 6, 4])


def weights():
    """Of each sample, so that the gradient of each is seen."""
    return torch.linspace(0.5, 2, 7, dtype=torch.float64)


def in_one_process(name):
    """Values, and gradients of the sum over all samples of weight · loss, of two steps."""
    loss, (x, y) = made(name), batch()
    found = []
    for scale in (3.0, 1.0):
        leaf = (scale * x).requires_grad_()
        values = loss(leaf, y)
        gradients = torch.autograd.grad((values * weights()).sum(), (leaf, *loss.parameters()))
        found.append((values.detach(), *gradients))
    return found, [b.clone() for b in loss.buffers()]


def on_a_rank(rank, world, folder, work):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=60),
    )
    try:
        work(rank, world, folder)
    finally:
        dist.destroy_process_group()


def run(work, world, folder):
    mp.spawn(on_a_rank, (world, str(folder), work), nprocs=world)


def compare(rank, world, folder):
    """Gradients are of the mean over the ranks of each rank's loss, here its weighted sum; of the embeddings as if each
    rank were alone, so world times that.
    """
    sizes = SIZES[world]
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    for name in LOSSES:
        expected, buffers = in_one_process(name)
        loss, (x, y) = shard(made(name)), batch()
        share = loss.shard
        assert loss.weight.to_local().shape[0] == share.stop - share.start
        for scale, (values, to_x, *to_parameters) in zip((3.0, 1.0), expected, strict=True):
            leaf = (scale * x[own]).requires_grad_()
            found = loss(leaf, y[own])
            loss.zero_grad()
            (found * weights()[own]).sum().backward()
            close(name, found, values[own])
            close(name, leaf.grad, to_x[own])
            for (what, parameter), gradient in zip(loss.named_parameters(), to_parameters, strict=True):
                mine = parameter.grad
                if what == "weight":
                    mine, gradient = mine.to_local(), gradient[share.start : share.stop]
                close(f"{name}.{what}", mine, gradient / world)
        for mine, theirs in zip(loss.buffers(), buffers, strict=True):
            close(name, mine, theirs)
        close(name, loss.weight.full_tensor(), made(name).weight)
        if name != "adacos":  # whose scale has moved
            close(name, loss.logits(x), made(name).logits(x))


def close(what, found, expected):
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-9, atol=1e-9, msg=lambda m: f"{what}: {m}")


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_have_the_values_and_gradients_of_one_process(world, tmp_path):
    run(compare, world, tmp_path)


def test_without_a_process_group_it_says_what_to_do():
    with pytest.raises(ArgumentError, match="torchrun"):
        shard(CosFace(C, D))


@pytest.mark.parametrize(("world", "parts"), [(1, [11]), (2, [6, 5]), (3, [4, 4, 3]), (8, [2, 2, 2, 2, 2, 1, 0, 0])])
def test_every_class_is_on_one_rank(world, parts, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda group: world)
    shares = []
    for rank in range(world):
        monkeypatch.setattr(dist, "get_rank", lambda group, rank=rank: rank)
        shares.append(Shard.of(C))
    assert [s.stop - s.start for s in shares] == parts
    assert [s.start for s in shares[1:]] == [s.stop for s in shares[:-1]]
