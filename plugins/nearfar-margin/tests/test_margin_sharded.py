"""Classes spread over ranks: gloo processes on one machine against one process with all of them."""

from __future__ import annotations

import datetime
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.checkpoint import load, save
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from nearfar.errors import ArgumentError
from nearfar.nn.reducers import NoReduction
from nearfar_margin.adacos import AdaCos
from nearfar_margin.adaface import AdaFace
from nearfar_margin.arcface import ArcFace
from nearfar_margin.cosface import CosFace
from nearfar_margin.curricularface import CurricularFace
from nearfar_margin.kappaface import KappaFace
from nearfar_margin.l_softmax import LSoftmax
from nearfar_margin.mv_softmax import MVSoftmax
from nearfar_margin.norm_softmax import NormSoftmax
from nearfar_margin.npcface import NPCFace
from nearfar_margin.shard import Shard, shard
from nearfar_margin.sphereface2 import SphereFace2
from nearfar_margin.subcenter_arcface import SubcenterArcFace

C, D = 11, 5
#: A scale that is learned; rows that others depend on; state of the whole batch, two of them; several vectors a class;
#: a sum of losses with a learned bias; lengths.
LOSSES = {
    "arcface": lambda **k: ArcFace(C, D, **k),
    "norm_softmax": lambda **k: NormSoftmax(C, D, learn_scale=True, scale=6.0, **k),
    "mv_softmax": lambda **k: MVSoftmax(C, D, **k),
    "curricularface": lambda **k: CurricularFace(C, D, **k),
    "adacos": lambda **k: AdaCos(C, D, **k),
    "adaface": lambda **k: AdaFace(C, D, **k),
    "npcface": lambda **k: NPCFace(C, D, **k),
    "subcenter_arcface": lambda **k: SubcenterArcFace(C, D, **k),
    "sphereface2": lambda **k: SphereFace2(C, D, **k),
    "kappaface": lambda **k: KappaFace(C, D, renewal=1, **k),
    "l_softmax": lambda **k: LSoftmax(C, D, **k),
}
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1),
}
#: Samples of each rank: ragged, and none at all.
SIZES = {2: (4, 3), 3: (5, 0, 2)}


def made(name):
    torch.manual_seed(2)
    loss = LOSSES[name](reducer=NoReduction()).double()
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
        init_method=f"file://{folder}/rendezvous-of-{world}",  # one that another group has left names its dead ranks
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
    own = own_of(rank, world)
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


def step(loss, optimizer, own=slice(None), over=1):
    """One of training, on the mean over some ranks of the sum of each one's losses."""
    x, y = batch()
    optimizer.zero_grad()
    (loss(x[own], y[own]).sum() / over).backward()
    optimizer.step()


def own_of(rank, world):
    sizes = SIZES[world]
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def state_of(loss, optimizer):
    model, states = get_state_dict(loss, optimizer)
    return {"model": model, "optimizer": states}


def train_and_save(rank, world, folder):
    for name, make in OPTIMIZERS.items():
        loss = shard(made("arcface"))
        optimizer = make(loss.parameters())
        step(loss, optimizer, own_of(rank, world))
        save(state_of(loss, optimizer), checkpoint_id=f"{folder}/{name}")


def load_and_train(rank, world, folder):
    """What two ranks began and others go on with is what one process does in two steps."""
    for name, make in OPTIMIZERS.items():
        loss = made("arcface")
        with torch.no_grad():
            loss.weight.zero_()
        shard(loss)
        optimizer = make(loss.parameters())
        state = state_of(loss, optimizer)
        load(state, checkpoint_id=f"{folder}/{name}")
        set_state_dict(loss, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        step(loss, optimizer, own_of(rank, world))
        expected = made("arcface")
        optimizer = make(expected.parameters())
        for ranks in (2, world):
            step(expected, optimizer, over=ranks)
        close(name, loss.weight.full_tensor(), expected.weight)


def start_nowhere_whole(rank, world, folder):
    """Ranks that are seeded alike draw different weights, as large as one process would."""
    torch.manual_seed(0)
    with torch.device("meta"):
        loss, learned = CosFace(400, 64), NormSoftmax(C, D, learn_scale=True)
    whole = shard(loss).weight.full_tensor()
    assert loss.weight.to_local().shape == (200, 64)
    assert not torch.equal(whole[:200], whole[200:])
    assert 0.009 < whole.std() < 0.011
    with pytest.raises(ArgumentError, match="NormSoftmax has scale on the meta device"):
        shard(learned)
    with pytest.raises(ArgumentError, match="sharded already"):
        shard(loss)


def on_two(rank, world, folder):
    start_nowhere_whole(rank, world, folder)
    compare(rank, world, folder)
    train_and_save(rank, world, folder)


def on_three(rank, world, folder):
    compare(rank, world, folder)
    load_and_train(rank, world, folder)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # as is asked for
def test_ranks_have_the_values_gradients_and_checkpoints_of_one_process(tmp_path):
    """Two ranks save, three go on, and one process, without any group, has it all in one matrix."""
    run(on_two, 2, tmp_path)
    run(on_three, 3, tmp_path)
    for name, make in OPTIMIZERS.items():
        loss, expected = made("arcface"), made("arcface")
        step(expected, make(expected.parameters()), over=2)
        state = {"model": loss.state_dict()}
        load(state, checkpoint_id=tmp_path / name, no_dist=True)
        loss.load_state_dict(state["model"])
        close(name, loss.weight, expected.weight)


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
