"""Classes spread over ranks: gloo processes on one machine against one process with all of them."""

from __future__ import annotations

import copy
import dataclasses
import importlib

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.checkpoint import load, save
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.nn.parallel import DistributedDataParallel

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.class_weights import load_weight, save_weight
from nearfar.nn.reducers import NoReduction
from nearfar.testing import run_on_ranks
from nearfar_margin.cosface import CosFace
from nearfar_margin.declaration import Rows
from nearfar_margin.fused import FusedSGD
from nearfar_margin.kappaface import KappaFace
from nearfar_margin.margin_softmax import MarginSoftmax
from nearfar_margin.norm_softmax import NormSoftmax
from nearfar_margin.plugin import nearfar_losses
from nearfar_margin.row_optimizers import RowAdamW, RowSGD
from nearfar_margin.sampling import sample
from nearfar_margin.shard import Shard, shard
from nearfar_margin.softmax import Softmax

C, D = 11, 5


@dataclasses.dataclass(frozen=True, slots=True)
class WithShift(Rows):
    shift: Tensor


class ThirdParty(MarginSoftmax):
    """Rows of its own, state of the whole batch, a survey, learned numbers, lengths; and nothing about ranks."""

    times_norm = times_weight_norm = surveys = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.margin = torch.nn.Parameter(torch.tensor(0.2))
        self.hardness = torch.nn.Parameter(torch.tensor(1.2))
        self.register_buffer("mean", torch.zeros(()))

    def prepare(self, rows):
        self.mean.lerp_(rows.norm.detach().mean().to(self.mean), 0.5)
        return WithShift(rows.t, rows.norm, rows.labels, shift=0.1 * rows.norm * rows.t - self.mean.clone())

    def survey(self, c, rows):
        return (c.square(),)

    def settle(self, rows, total):
        return WithShift(rows.t, rows.norm, rows.labels, shift=rows.shift + 0.01 * total)

    def target(self, t, rows):
        return t - self.margin - rows.shift

    def others(self, c, rows):
        hard = c > self.target(rows.t, rows)[:, None]
        return torch.where(hard, self.hardness * c + 0.2, c - 0.1 * c.square() * rows.shift[:, None])


def of(spec):
    """The class of a spec, without the search for plugins, which every rank would begin with."""
    module, _, name = spec.target.partition(":")
    arguments = {"renewal": 1} if spec.name == "kappaface" else {}
    return lambda **k: getattr(importlib.import_module(module), name)(C, D, **arguments, **k)


#: Every loss of the plugin; KappaFace renews its margins between the two steps. And smoothing, learned numbers, a
#: declaration from outside.
LOSSES = {spec.name: of(spec) for spec in nearfar_losses()} | {
    "softmax-smoothed": lambda **k: Softmax(C, D, label_smoothing=0.1, smoothing="others", **k),
    "softmax-unbiased": lambda **k: Softmax(C, D, bias=False, **k),
    "norm_softmax-learned": lambda **k: NormSoftmax(C, D, learn_scale=True, scale=6.0, **k),
    "cosface-smoothed": lambda **k: CosFace(C, D, label_smoothing=0.1, **k),
    "third party": lambda **k: ThirdParty(C, D, scale=3.0, **k),
    "third party-smoothed": lambda **k: ThirdParty(C, D, scale=3.0, label_smoothing=0.2, smoothing="others", **k),
}
#: Of each kind one: what is drawn does not depend on the formula.
SAMPLED = (
    "adacos",
    "arcface",
    "kappaface",
    "mv_softmax",
    "npcface",
    "norm_softmax-learned",
    "cosface-smoothed",
    "softmax-smoothed",
    "sphereface2",
    "subcenter_arcface",
    "third party",
)
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1),
}
ROW_OPTIMIZERS = {
    "sgd": lambda parameters: RowSGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: RowAdamW(parameters, lr=0.1, weight_decay=0.1),
}
#: Samples of each rank: ragged, and none at all.
SIZES = {1: (7,), 2: (4, 3), 3: (5, 0, 2), 4: (1, 2, 0, 4)}


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


def compare(rank, world, folder, whole_batch=False):
    """Gradients are of the mean over the ranks of each rank's loss, here its weighted sum; of the embeddings as if each
    rank were alone, so world times that. Where each is given the whole batch, they are those of its loss.
    """
    own, over = (slice(None), 1) if whole_batch else (own_of(rank, world), world)
    for name in LOSSES:
        expected, buffers = in_one_process(name)
        loss, (x, y) = shard(made(name)), batch()
        loss.whole_batch = whole_batch
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
                close(f"{name}.{what}", mine, gradient / over)
        for mine, theirs in zip(whole(loss.buffers()), buffers, strict=True):
            close(name, mine, theirs)
        close(name, loss.weight.full_tensor(), made(name).weight)
        if name != "adacos":  # whose scale has moved
            close(name, loss.logits(x), made(name).logits(x))


def whole(tensors):
    return [each.full_tensor() if hasattr(each, "full_tensor") else each for each in tensors]


def keep_what_is_of_classes_where_they_are(rank, world, folder):
    loss = shard(made("kappaface"))
    assert loss.sums.to_local().shape == loss.weight.to_local().shape
    assert loss.sums.shape == (C, D)


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


def labels_out_of_range_are_told_on_every_rank(rank, world, folder):
    x, y = batch()
    for name in ("cosface", "softmax"):
        loss = shard(made(name))
        for wrong in (C, -100):
            given = y[own_of(rank, world)].clone()
            if rank == 1:
                given[0] = wrong
            low, high = (4, 11) if wrong == C else (-100, 6)
            with pytest.raises(InputError, match=f"num_classes=11, .* 0 to 10; rank 1 has labels from {low} to {high}"):
                loss(x[own_of(rank, world)], given)
        assert loss(x[own_of(rank, world)], y[own_of(rank, world)]).isfinite().all()
        loss.whole_batch = True
        with pytest.raises(InputError, match="got labels from 0 to 11"):
            loss(x, y.clamp(0, 10).index_fill(0, torch.tensor([1]), C))


def gathering():
    """KappaFace between two renewals, with sums of the embeddings of each class."""
    torch.manual_seed(2)
    loss = KappaFace(C, D, renewal=3, reducer=NoReduction()).double()
    with torch.no_grad():
        loss.weight.normal_()
    return loss


def gather_and_save(rank, world, folder):
    loss, (x, y) = shard(gathering()), batch()
    loss(x[own_of(rank, world)], y[own_of(rank, world)])
    save({"model": get_model_state_dict(loss)}, checkpoint_id=f"{folder}/sums")


def load_and_gather(rank, world, folder):
    """The sums that two ranks began are those that others renew the margins by."""
    loss, alone, (x, y) = shard(gathering()), gathering(), batch()
    state = {"model": get_model_state_dict(loss)}
    load(state, checkpoint_id=f"{folder}/sums")
    set_model_state_dict(loss, state["model"])
    alone(x, y)
    for scale in (1, 2):
        loss(scale * x[own_of(rank, world)], y[own_of(rank, world)])
        alone(scale * x, y)
        for mine, theirs in zip(whole(loss.buffers()), alone.buffers(), strict=True):
            close("kappaface", mine, theirs)
    assert (alone.alpha != 1).any()


def compare_sampled(rank, world, folder):
    """Ranks draw together what one process draws, and have its values, gradients and estimates."""
    own = own_of(rank, world)
    for name in SAMPLED:
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
                    close(f"{name}.{what}", parameter.grad.to_dense(), gradient)
        for mine, theirs in zip(whole(spread.buffers()), one.buffers(), strict=True):
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


def refuse_the_plain_engine(rank, world, folder):
    """Asked for before the classes are spread, or afterwards."""
    with pytest.raises(ArgumentError, match=r"CosFace has engine='plain', .* use 'auto' or 'chunked'"):
        shard(CosFace(C, D, engine="plain"))
    loss = shard(CosFace(C, D))
    x, y = torch.randn(2, D), torch.tensor([0, 1])
    loss(x, y)
    loss.engine = "plain"
    with pytest.raises(ArgumentError, match="engine='plain'"):
        loss(x, y)


def exchange_weights(rank, world, folder):
    """Each rank reads its own classes of another program's head; one of them writes all."""
    whole = torch.arange(C * D, dtype=torch.float64).view(C, D)
    for loss in (shard(made("cosface")), shard(made("softmax"))):
        load_weight(loss, {"W": whole.T})
        share = loss.shard
        assert torch.equal(loss.weight.to_local(), whole[share.start : share.stop])
        (file,) = save_weight(loss, f"{folder}/exchanged-{world}.pt", layout="columns")
        dist.barrier()
        assert torch.equal(torch.load(file)["W"], whole.T)
        dist.barrier()


def compare_replicated(rank, world, folder):
    """Under DistributedDataParallel, each rank with a whole head: a loss without state is that of one process. One with
    a running mean has that of rank 0's part of the batch before a call, and its own part in it.
    """
    own, (x, y) = own_of(rank, world), batch()
    for name in ("cosface", "curricularface"):
        head = DistributedDataParallel(made(name))
        alone = made(name)
        values = alone(x, y)
        found = head(x[own], y[own])
        if name == "curricularface":
            t = F.cosine_similarity(x[own], alone.weight.detach()[y[own]]).mean()
            close(name, head.module.tau, (0.01 * t).float().double())
            assert abs(head.module.tau - alone.tau) > 1e-6
            continue
        close(name, found, values[own])
        found.sum().backward()
        close(name, head.module.weight.grad, torch.autograd.grad(values.sum() / world, alone.weight)[0])


def copies_sum_too(rank, world, folder):
    """The bias's gradient of a copy of a sharded loss is that of the loss; of a shallow copy it is not summed twice."""
    loss = shard(made("softmax"))
    deep = copy.deepcopy(loss)
    own = own_of(rank, world)
    x, y = batch()
    gradients = []
    for each in (loss, deep, copy.copy(loss)):
        each.zero_grad()
        each(x[own], y[own]).mean().backward()
        gradients.append(each.bias.grad.clone())
    close("the bias of a copy", gradients[1], gradients[0])
    close("the bias of a shallow copy", gradients[2], gradients[0])


def on_two(rank, world, folder):
    start_nowhere_whole(rank, world, folder)
    refuse_the_plain_engine(rank, world, folder)
    keep_what_is_of_classes_where_they_are(rank, world, folder)
    labels_out_of_range_are_told_on_every_rank(rank, world, folder)
    exchange_weights(rank, world, folder)
    compare_replicated(rank, world, folder)
    extremes_are_finite(rank, world, folder)
    compare(rank, world, folder)
    compare(rank, world, folder, whole_batch=True)
    train_and_save(rank, world, folder)
    gather_and_save(rank, world, folder)
    compare_sampled(rank, world, folder)
    row_train_and_save(rank, world, folder)
    fused_in_ranks(rank, world, folder)
    refuse_other_optimizers(rank, world, folder)


def on_three(rank, world, folder):
    compare(rank, world, folder)
    load_and_train(rank, world, folder)
    load_and_gather(rank, world, folder)
    compare_sampled(rank, world, folder)
    row_load_and_train(rank, world, folder)
    fused_in_ranks(rank, world, folder)


def on_another_number(rank, world, folder):
    load_and_train(rank, world, folder)
    row_load_and_train(rank, world, folder)


def extremes_are_finite(rank, world, folder):
    """Cosines of ±1 and vectors without a direction, of classes too, whoever holds them; labels at both ends."""
    axes = torch.cat([torch.eye(D), torch.eye(D)[:2]])
    own, y = own_of(rank, world), torch.tensor([0, 1, 2, 3, 4, D + 1, C - 1])
    for name in LOSSES:
        loss = LOSSES[name](reducer=NoReduction())
        with torch.no_grad():
            weight = loss.weight.normal_(generator=torch.Generator().manual_seed(0)).view(C, -1, D)
            weight[:D, 0] = torch.eye(D)
            weight[D + 1] = 0
        shard(loss)
        for dtype in (torch.float32, torch.bfloat16, torch.float16, "autocast", torch.float64):
            for x in (axes, -axes, 0 * axes, 1e4 * axes):
                loss.to(torch.float64 if dtype == torch.float64 else torch.float32)
                leaf = (x if dtype == "autocast" else x.to(dtype))[own].requires_grad_()
                with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "autocast"):
                    value = loss(leaf, y[own])
                loss.zero_grad()
                value.sum().backward()
                gradients = [leaf.grad, *(p.grad for p in loss.parameters())]
                gradients[1 + [n for n, _ in loss.named_parameters()].index("weight")] = loss.weight.grad.to_local()
                assert value.isfinite().all(), (name, dtype)
                assert all(g.isfinite().all() for g in gradients), (name, dtype)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # as is asked for
def test_ranks_have_the_values_gradients_and_checkpoints_of_one_process(tmp_path):
    """Two ranks save; three, one and four go on; and one process, without any group, has it all in one matrix."""
    run_on_ranks(on_two, 2, tmp_path)
    run_on_ranks(on_three, 3, tmp_path)
    run_on_ranks(on_another_number, 4, tmp_path)
    run_on_ranks(on_another_number, 1, tmp_path)
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


def test_copies_of_a_sharded_loss_sum_gradients_too(tmp_path):
    run_on_ranks(copies_sum_too, 2, tmp_path)


def overflowing(rank, world):
    """On the last rank alone, with an optimiser for the network and one for the head; then a step that does not."""
    torch.manual_seed(0)
    head, network = shard(CosFace(C, D)), torch.nn.Linear(3, D)
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (network, head)]
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for overflow in (True, False):
        before = head.weight.detach().to_local().clone()
        for optimizer in optimizers:
            optimizer.zero_grad()
        scaler.scale(head(network(torch.randn(4, 3)), torch.arange(C - 4, C))).backward()
        if overflow and rank == world - 1:
            head.weight.grad.to_local()[0, 0] = float("inf")
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 4.0
        assert torch.equal(head.weight.detach().to_local(), before) == overflow


def test_torchs_loss_scaler_skips_the_step_of_a_head_on_all_ranks_where_one_overflows():
    run_on_ranks(overflowing, 2)
