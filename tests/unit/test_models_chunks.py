"""Large batches in chunks: the gradients of the whole batch, the activations of one chunk."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch import Tensor, nn

from nearfar import compose
from nearfar.errors import ArgumentError
from nearfar.models import create_model, in_chunks

N = 23


def network(*, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.GELU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(216, 5)]
    return nn.Sequential(*layers).double()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, 3, 8, 8, generator=generator, dtype=torch.float64), torch.arange(N) % 5


def gradients(net: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(net.parameters())))


@pytest.mark.parametrize("chunk", [1, 4, 7, 22, 23, 100, None])
@pytest.mark.parametrize("criterion", ["sup_con", "triplet(miner=batch_hard)", "multi_similarity"])
def test_gradients_are_those_of_the_whole_batch(criterion: str, chunk: int | None) -> None:
    net, judge = network(), compose(criterion)
    images, labels = batch()
    expected = judge(net(images), labels)
    found = judge(in_chunks(net, images, chunk), labels)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients(net, found), gradients(net, expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_what_was_dropped_is_dropped_again() -> None:
    net, judge = network(dropout=0.5), compose("sup_con")
    images, labels = batch()
    torch.manual_seed(7)
    expected = gradients(net, judge(torch.cat([net(part) for part in images.tensor_split(4)]), labels))
    torch.manual_seed(7)
    loss = judge(in_chunks(net, images, 6), labels)
    after = torch.get_rng_state()
    found = gradients(net, loss)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    assert torch.equal(torch.get_rng_state(), after)


class Counted(nn.Module):
    """Counts the rows of its own outputs that something still holds."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[weakref.ref[Tensor]] = []
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        made = x * 1.0
        self.held.append(weakref.ref(made))
        self.most = max(self.most, sum(len(each) for held in self.held if (each := held()) is not None))
        return made.exp().square()  # both keep what they are given


def test_one_chunk_is_in_memory_at_a_time() -> None:
    counted = Counted()
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), counted, nn.Linear(4, 3)).double()
    images, labels = batch()
    compose("sup_con")(in_chunks(net, images, 4), labels).backward()
    assert len(counted.held) == 12  # of each of six chunks twice
    assert counted.most <= 2 * 4
    held = [counted.held.clear(), net(images)]
    assert counted.most == N
    del held


def test_running_statistics_move_once_a_chunk() -> None:
    torch.manual_seed(0)
    model = create_model("test_resnet", 4, image_size=32)
    reference = copy.deepcopy(model)
    images = torch.randn(9, 3, 32, 32)
    in_chunks(model, images, 4).square().sum().backward()
    for part in images.split(3):  # 9 in chunks of at most 4
        reference(part)
    assert all(torch.equal(one, other) for one, other in zip(model.buffers(), reference.buffers(), strict=True))
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_without_gradients_nothing_is_done_twice() -> None:
    net = nn.Sequential(nn.Flatten(), Counted())
    with torch.no_grad():
        assert in_chunks(net, batch()[0], 4).shape == (N, 192)
    assert len(net[1].held) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [0, -1, 2.0, True])
def test_a_chunk_is_a_positive_integer(chunk: object) -> None:
    with pytest.raises(ArgumentError, match="chunk is"):
        in_chunks(network(), batch()[0], chunk)  # type: ignore[arg-type]
