"""Proxies spread over ranks, and centres that ranks move together: gloo processes against one process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from pytorch_metric_learning import losses as pml
from torch.distributed.checkpoint import load, save
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel

import nearfar
from nearfar.errors import ArgumentError, InputError
from nearfar.nn.class_weights import class_vectors, load_weight
from nearfar.nn.distances import Euclidean
from nearfar.testing import run_on_ranks
from nearfar_proxy import blocks, nearest
from nearfar_proxy.center import Center
from nearfar_proxy.center_invariant import CenterInvariant
from nearfar_proxy.island import Island
from nearfar_proxy.proxy_anchor import ProxyAnchor
from nearfar_proxy.proxy_gml import ProxyGML
from nearfar_proxy.proxy_nca import ProxyNCA
from nearfar_proxy.proxy_nca_pp import ProxyNCAPlusPlus
from nearfar_proxy.ranks import Share
from nearfar_proxy.ring import Ring
from nearfar_proxy.selecting import kth_greatest
from nearfar_proxy.sharding import shard
from nearfar_proxy.soft_triple import SoftTriple
from nearfar_proxy.starts import initialize

C, D = 11, 5
LOSSES = {
    "proxy_nca": lambda: ProxyNCA(C, D, scale=3.0),
    "steep": lambda: ProxyNCA(C, D, scale=60.0),
    "proxy_nca_pp": lambda: ProxyNCAPlusPlus(C, D),
    "proxy_anchor": lambda: ProxyAnchor(C, D, scale=8.0),
    "soft_triple": lambda: SoftTriple(C, D, centers=3),
    "proxy_gml": lambda: ProxyGML(C, D, proxies_per_class=2, ratio=0.4),
    "whole_gml": lambda: ProxyGML(C, D, proxies_per_class=2, ratio=1.0),
}
#: Samples of each rank: ragged, and none at all.
SIZES = {2: (4, 3), 3: (5, 0, 2)}


def made(name):
    torch.manual_seed(2)
    return LOSSES[name]().double()


def batch(step=0):
    g = torch.Generator().manual_seed(3 + step)
    x = torch.randn(7, D, generator=g, dtype=torch.float64)
    return x, torch.tensor([0, C - 1, C - 1, 3, 5, 6, 4])


def own_of(rank, world):
    sizes = SIZES[world]
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def works_of(rank, world, folder, works):
    for work in works:
        work(rank, world, folder)


def close(what, found, expected):
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-9, atol=1e-11, msg=lambda m: f"{what}: {m}")


def compare(rank, world, folder):
    own = own_of(rank, world)
    pairs = (torch.tensor([0]), torch.tensor([1]), torch.tensor([0]), torch.tensor([2]))
    nothing = tuple(torch.zeros(0, dtype=torch.long) for _ in range(4))
    for name in LOSSES:
        x, y = batch()
        # The first two samples are mined for twice and once, the third once: on the first rank, in both ways.
        for mined in (None, pairs):
            whole = made(name)
            leaf = x.clone().requires_grad_()
            expected = whole(leaf, y, mined)
            to_x, to_weight = torch.autograd.grad(expected, (leaf, whole.weight))
            loss, part = shard(made(name)), x[own].clone().requires_grad_()
            found = loss(part, y[own], mined if mined is None or rank == 0 else nothing)
            found.backward()
            close(name, found, expected)
            # As DistributedDataParallel divides by their number afterwards.
            close(name, part.grad, to_x[own] * world)
            close(name, loss.weight.grad.to_local(), to_weight[loss.shard.classes()])
            close(name, loss.weight.full_tensor(), whole.weight)
            close(name, loss.logits(x), whole.logits(x))
        with torch.no_grad():
            close(name, loss(x[own], y[own]), whole(x, y))


def numbers(dtype):
    """Rows of 31 columns: any numbers; ties, at the k-th too and over all ranks; infinite ones; few that differ."""
    g = torch.Generator().manual_seed(9)
    x = torch.randn(5, 31, generator=g, dtype=torch.float64).to(dtype)
    x[1] = x[1].round()
    x[2] = -0.25
    x[3, ::4], x[3, 1::4] = torch.inf, -torch.inf
    x[4] = 1 + torch.arange(31) % 3 * torch.finfo(dtype).eps
    return x


def the_kth_of_all_ranks_is_found(rank, world, folder):
    # Blocks of another number of columns on each rank, one rank of three without any.
    bounds = {2: (0, 9, 31), 3: (0, 17, 17, 31)}[world]
    share = Share.of(31)
    for dtype in (torch.float32, torch.float64):
        x = numbers(dtype)
        own = x[:, bounds[rank] : bounds[rank + 1]]
        ordered = x.sort(1, descending=True).values
        for k in (1, 2, 8, 16, 30, 31):
            found = kth_greatest(lambda own=own: iter(own.split(4 + rank, 1)), len(x), k, x, share)
            assert torch.equal(found, ordered[:, k - 1]), (dtype, k)


def proxies_kept_in_many_blocks_are_the_same(rank, world, folder):
    """More than is held at once, so that the last one kept is found by its bits; some proxies equally near."""
    calls = []
    nearest.kth_greatest = lambda *given: calls.append(given[-1]) or kth_greatest(*given)
    blocks._HELD["cpu"] = 20
    x, y = batch()

    def tied():
        loss = made("proxy_gml")
        with torch.no_grad():
            loss.weight[5:] = loss.weight[4]
        return loss

    whole, leaf = tied(), x.clone().requires_grad_()
    expected = whole(leaf, y)
    to_x, to_weight = torch.autograd.grad(expected, (leaf, whole.weight))
    loss, part = shard(tied()), x[own_of(rank, world)].clone().requires_grad_()
    found = loss(part, y[own_of(rank, world)])
    found.backward()
    assert calls == [None, loss.shard]
    close("value", found, expected)
    close("x", part.grad, to_x[own_of(rank, world)] * world)
    close("weight", loss.weight.grad.to_local(), to_weight[loss.shard.classes()])


def proxies_of_another_program_are_shared_out_and_put_together(rank, world, folder):
    theirs = pml.SoftTripleLoss(C, D, centers_per_class=3).double()
    dist.broadcast(theirs.fc.detach(), 0)
    x, y = batch()
    loss = shard(SoftTriple(C, D, centers=3, tau=0.0).double())
    load_weight(loss, theirs)
    own = own_of(rank, world)
    close("loaded", loss(x[own], y[own]), theirs(x, y))
    assert torch.equal(class_vectors(loss, "columns", key="fc")["fc"], theirs.fc)


def refusals(rank, world, folder):
    with pytest.raises(ArgumentError, match="sharded already"):
        shard(shard(made("proxy_nca")))
    with pytest.raises(ArgumentError, match="default distance only"):
        shard(ProxyNCA(C, D, distance=Euclidean()))
    with pytest.raises(ArgumentError, match="assignment='dynamic' is not sharded"):
        shard(ProxyNCA(C, D, assignment="dynamic", num_proxies=3))
    with pytest.raises(ArgumentError, match="Center has no proxies"):
        shard(Center(C, D))
    with pytest.raises(ArgumentError, match="initialize it first"):
        initialize(shard(made("proxy_nca")), [batch()])
    around = CenterInvariant(made("proxy_nca"))
    shard(around.loss)
    with pytest.raises(InputError, match="those of ProxyNCA are sharded"):
        around(*batch())


def start_on_the_meta_device(rank, world, folder):
    for name, std in (("proxy_nca", 1 / 8), ("soft_triple", (3 * 64) ** -0.5)):
        torch.manual_seed(7)
        makers = {"proxy_nca": lambda: ProxyNCA(400, 64), "soft_triple": lambda: SoftTriple(400, 64, centers=2)}
        with torch.device("meta"):
            loss = makers[name]()
        loss = shard(loss)
        whole = loss.weight.full_tensor()
        assert whole.std().item() == pytest.approx(std, rel=0.05)
        assert len(torch.unique(whole.flatten(1), dim=0)) == 400


def step(loss, optimizer, own=slice(None)):
    x, y = batch()
    optimizer.zero_grad()
    loss(x[own], y[own]).backward()
    optimizer.step()


def optimizer_of(loss):
    return torch.optim.AdamW(loss.parameters(), lr=0.1, weight_decay=0.1)


def write(rank, world, folder):
    for name in LOSSES:
        loss = shard(made(name))
        optimizer = optimizer_of(loss)
        step(loss, optimizer, own_of(rank, world))
        model, state = get_state_dict(loss, optimizer)
        save({"model": model, "optimizer": state}, checkpoint_id=f"{folder}/{name}")


def read_and_go_on(rank, world, folder):
    for name in LOSSES:
        whole = made(name)
        expected = optimizer_of(whole)
        loss = shard(made(name))
        with torch.no_grad():
            loss.weight.zero_()
        optimizer = optimizer_of(loss)
        model, state = get_state_dict(loss, optimizer)
        load({"model": model, "optimizer": state}, checkpoint_id=f"{folder}/{name}")
        set_state_dict(loss, optimizer, model_state_dict=model, optim_state_dict=state)
        step(whole, expected)
        close(name, loss.weight.full_tensor(), whole.weight)
        step(loss, optimizer, own_of(rank, world))
        step(whole, expected)
        close(name, loss.weight.full_tensor(), whole.weight)


class Embedding(torch.nn.Module):
    """A linear network under a center loss, as DistributedDataParallel gets them: with centres in a buffer."""

    def __init__(self, loss):
        super().__init__()
        torch.manual_seed(5)
        self.linear = torch.nn.Linear(D, D).double()
        self.criterion = nearfar.compose(loss.double())

    def forward(self, x, y):
        return self.criterion(self.linear(x), y)


def center_steps(module, follow, parts):
    """Three steps, each accumulated over two calls where the centres follow the optimiser."""
    bare = getattr(module, "module", module)
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.1)
    if follow:
        bare.criterion.follow(optimizer)
    for number in range(3):
        optimizer.zero_grad()
        for call in range(2 if follow else 1):
            x, y = batch(10 * number + call)
            module(x[parts], y[parts]).backward()
        optimizer.step()
    return bare


def centres_move_together(rank, world, folder):
    for make in (lambda: Center(C, D), lambda: Island(C, D, init="normal", factor=0.3)):
        for follow in (False, True):
            # In the sum over the batch, and through a network that does not learn, ranks differ by their parts alone.
            torch.manual_seed(6)
            whole = Embedding(make())
            torch.manual_seed(6)
            module = Embedding(make())
            for each in (whole, module):
                each.linear.weight.register_hook(torch.zeros_like)
                each.linear.bias.register_hook(torch.zeros_like)
            (start,) = (b.clone() for b in whole.buffers())
            found = center_steps(DistributedDataParallel(module), follow, own_of(rank, world))
            dist.barrier()
            (buffer,) = found.buffers()
            (expected,) = in_one_process(whole, follow)
            assert not torch.equal(expected, start)
            close(f"{type(found.criterion.losses)}", buffer, expected)
            everybodys = [torch.empty_like(buffer) for _ in range(world)]
            dist.all_gather(everybodys, buffer)
            assert all(torch.equal(each, buffer) for each in everybodys)


def in_one_process(whole, follow):
    """The same steps where no process group is seen."""
    seen, dist.is_initialized = dist.is_initialized, lambda: False
    try:
        return list(center_steps(whole, follow, slice(None)).buffers())
    finally:
        dist.is_initialized = seen


def a_ring_starts_at_the_length_of_all(rank, world, folder):
    x, y = batch()
    loss = Ring().double()
    loss(x[own_of(rank, world)], y[own_of(rank, world)])
    close("ring", loss.radius, x.norm(dim=1).mean())


def test_two_ranks_do_what_one_process_does(tmp_path):
    """Values, gradients, centres, and what is refused: ranks take seconds to start, so that they are started once."""
    kept = (
        proxies_of_another_program_are_shared_out_and_put_together,
        the_kth_of_all_ranks_is_found,
        proxies_kept_in_many_blocks_are_the_same,
    )
    run_on_ranks(
        works_of,
        2,
        tmp_path,
        (compare, centres_move_together, refusals, *kept),
    )


@pytest.mark.long
def test_three_ranks_do_so_with_one_that_has_no_samples_and_two_go_on_from_their_checkpoint(tmp_path):
    run_on_ranks(works_of, 3, tmp_path, (compare, centres_move_together, a_ring_starts_at_the_length_of_all, write))
    run_on_ranks(works_of, 3, tmp_path, (the_kth_of_all_ranks_is_found, proxies_kept_in_many_blocks_are_the_same))
    run_on_ranks(works_of, 2, tmp_path, (start_on_the_meta_device, read_and_go_on))


def test_without_a_process_group_there_is_nothing_to_shard_over():
    with pytest.raises(ArgumentError, match="init_process_group first"):
        shard(made("proxy_nca"))
