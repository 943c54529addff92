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
from nearfar_margin.fused import FusedSGD
from nearfar_margin.kappaface import KappaFace
from nearfar_margin.l_softmax import LSoftmax
from nearfar_margin.mv_softmax import MVSoftmax
from nearfar_margin.norm_softmax import NormSoftmax
from nearfar_margin.npcface import NPCFace
from nearfar_margin.row_optimizers import RowAdamW, RowSGD
from nearfar_margin.sampling import sample
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
ROW_OPTIMIZERS = {
    "sgd": lambda parameters: RowSGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: RowAdamW(parameters, lr=0.1, weight_decay=0.1),
}
#: Samples of each rank: ragged, and none at all.
SIZES = {1: (7,), 2: (4, 3), 3: (5, 0, 2), 4: (1, 3, 0, 3)}


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


def compare_sampled(rank, world, folder):
    """Ranks draw together what one process draws, and have its values, gradients and estimates."""
    own = own_of(rank, world)
    for name in LOSSES:
        one, (x, y) = sample(made(name), 0.4), batch()
        # In either order.
        spread = shard(sample(made(name), 0.4)) if world == 2 else sample(shard(made(name)), 0.4)
        for _ in range(2):
            leaf, mine = x.clone().requires_grad_(), x[own].clone().requires_grad_()
            expected, found = one(leaf, y), spread(mine, y[own])
            one.zero_grad()
            spread.zero_grad()
            (expected * weights()).sum().backward()
            (found * weights()[own]).sum().backward()
            close(name, found, expected[own])
            close(name, mine.grad, leaf.grad[own])
            for (what, theirs), parameter in zip(one.named_parameters(), spread.parameters(), strict=True):
                gradient = theirs.grad.to_dense() / world
                if what == "weight":
                    drawn = one.weight.grad.coalesce().indices()[0]
                    share = spread.shard
                    held = drawn[(drawn >= share.start) & (drawn < share.stop)]
                    assert torch.equal(parameter.grad.coalesce().indices()[0], held)
                    assert parameter.grad.shape == (C, *theirs.shape[1:])
                    close(f"{name}.{what}", parameter.grad.to_dense()[held], gradient[held])
                else:
                    close(f"{name}.{what}", parameter.grad, gradient)
        for mine, theirs in zip(spread.buffers(), one.buffers(), strict=True):
            close(name, mine, theirs)


def row_step(loss, optimizer, step, own=slice(None), over=1):
    """One of training on the drawn classes; the batch is another each time."""
    g = torch.Generator().manual_seed(step)
    x, y = torch.randn(7, D, generator=g, dtype=torch.float64), torch.randint(C, (7,), generator=g)
    optimizer.zero_grad()
    (loss(x[own], y[own]).sum() / over).backward()
    optimizer.step()


def sampled(name="subcenter_arcface"):
    return sample(made(name), 0.4)


def row_train_and_save(rank, world, folder):
    for name, make in ROW_OPTIMIZERS.items():
        loss = shard(sampled())
        optimizer = make(loss.parameters())
        for step in range(3):
            row_step(loss, optimizer, step, own_of(rank, world))
        state = state_of(loss, optimizer)
        assert all(hasattr(each, "to_local") for each in state["optimizer"]["state"]["weight"].values())
        save(state, checkpoint_id=f"{folder}/rows-{name}")


def in_one_go(name, *worlds):
    """One process with all classes, three steps of each number of ranks."""
    loss = sampled()
    optimizer = ROW_OPTIMIZERS[name](loss.parameters())
    for step, world in enumerate(w for w in worlds for _ in range(3)):
        row_step(loss, optimizer, step, over=world)
    return loss, optimizer


def row_load_and_train(rank, world, folder):
    for name, make in ROW_OPTIMIZERS.items():
        loss = sampled()
        with torch.no_grad():
            loss.weight.zero_()
        shard(loss)
        optimizer = make(loss.parameters())
        state = state_of(loss, optimizer)
        load(state, checkpoint_id=f"{folder}/rows-{name}")
        set_state_dict(loss, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        for step in range(3, 6):
            row_step(loss, optimizer, step, own_of(rank, world))
        expected, reference = in_one_go(name, 2, world)
        close(name, loss.weight.full_tensor(), expected.weight)
        for key, tensor in optimizer.state[loss.weight].items():
            close(f"{name}.{key}", tensor.full_tensor(), reference.state[expected.weight][key])


def fused_in_ranks(rank, world, folder):
    """And its momentum, in shards, with another number of ranks."""
    own = own_of(rank, world)
    one, spread = made("mv_softmax"), shard(made("mv_softmax"))
    theirs = OPTIMIZERS["sgd"](one.parameters())
    ours = FusedSGD(spread, lr=0.1, momentum=0.9, weight_decay=0.01)
    for i in range(3):
        row_step(one, theirs, i, over=world)
        row_step(spread, ours, i, own)
    assert spread.weight.grad is None
    close("fused", spread.weight.full_tensor(), one.weight)
    momentum = ours.state[spread.weight]["momentum_buffer"].full_tensor()
    close("momentum", momentum, theirs.state[one.weight]["momentum_buffer"])


def refuse_other_optimizers(rank, world, folder):
    loss = shard(sampled())
    row_step(loss, RowSGD(loss.parameters(), lr=0.0), 0, own_of(rank, world))
    for make in (*OPTIMIZERS.values(), lambda p: torch.optim.SGD(p, lr=0.1)):
        with pytest.raises(ArgumentError, match="RowSGD or RowAdamW"):
            make(loss.parameters()).step()


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
    compare_sampled(rank, world, folder)
    row_train_and_save(rank, world, folder)
    fused_in_ranks(rank, world, folder)
    refuse_other_optimizers(rank, world, folder)


def on_three(rank, world, folder):
    compare(rank, world, folder)
    load_and_train(rank, world, folder)
    compare_sampled(rank, world, folder)
    row_load_and_train(rank, world, folder)
    fused_in_ranks(rank, world, folder)


def on_another_number(rank, world, folder):
    load_and_train(rank, world, folder)
    row_load_and_train(rank, world, folder)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # as is asked for
def test_ranks_have_the_values_gradients_and_checkpoints_of_one_process(tmp_path):
    """Two ranks save; three, one and four go on; and one process, without any group, has it all in one matrix."""
    run(on_two, 2, tmp_path)
    run(on_three, 3, tmp_path)
    run(on_another_number, 4, tmp_path)
    on_a_rank(0, 1, tmp_path, on_another_number)
    for name, make in OPTIMIZERS.items():
        loss, expected = made("arcface"), made("arcface")
        step(expected, make(expected.parameters()), over=2)
        state = {"model": loss.state_dict()}
        load(state, checkpoint_id=tmp_path / name, no_dist=True)
        loss.load_state_dict(state["model"])
        close(name, loss.weight, expected.weight)
    for name in ROW_OPTIMIZERS:
        loss = sampled()
        state = {"model": loss.state_dict()}
        load(state, checkpoint_id=tmp_path / f"rows-{name}", no_dist=True)
        loss.load_state_dict(state["model"])
        close(name, loss.weight, in_one_go(name, 2)[0].weight)
        assert loss.sampler.steps == 3


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
