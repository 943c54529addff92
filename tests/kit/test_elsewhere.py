"""A device that is not there computes what the CPU does, and refuses what a GPU would."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from nearfar.testing.elsewhere import ELSEWHERE, MixedDevices, elsewhere, here, is_beyond, there


@pytest.fixture
def x():
    with elsewhere():
        yield there(torch.arange(12.0).reshape(4, 3).requires_grad_())


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x + 1,
        lambda x: x.new_zeros(3),
        lambda x: torch.zeros_like(x),
        lambda x: torch.zeros(3, device=x.device),
        lambda x: torch.full((3,), 2.0, device=x.device),
        lambda x: torch.arange(3, device="lazy"),
        lambda x: torch.tensor(3.0, device=x.device),
        lambda x: torch.as_tensor([3.0], device=x.device),
        lambda x: torch.as_tensor(np.ones(3), device=x.device),
        lambda x: x.new_tensor([1, 2]),
        lambda x: torch.ones(3).to(x.device),
        lambda x: torch.ones(3).to(x),
        lambda x: x.double(),
        lambda x: x[[0, 1]],
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x[range(2)],
        lambda x: x[(0, 1, 2), 0],
        lambda x: x[:, [0, 1]],
        lambda x: x[[[0, 1], [1, 2]], :],
        lambda x: x.cuda(),
        lambda x: torch.ones(3).cuda(),
        lambda x: torch.ones(3).to("cuda"),
        lambda x: torch.ones(3).to(torch.device("cuda") if x.is_cuda else torch.device("cpu")),
        lambda x: torch.ones(3, device="cuda:0"),
        lambda x: x[x[:, 0] > 3],
        lambda x: x * torch.tensor(2.0),
        lambda x: torch.where(x > 0, torch.tensor(0.0), x),
        lambda x: x.unbind()[0],
        lambda x: nn.Linear(3, 2).to(x.device)(x),
        lambda x: nn.Parameter(x),
        lambda x: copy.deepcopy(x.detach()),
        lambda x: torch.randn(3, device=x.device),
    ],
)
def test_what_is_made_there_is_there(x, make):
    made = make(x)
    assert made.device == x.device == ELSEWHERE
    assert not made.is_cpu
    assert here(made).is_cpu


def test_numbers_and_copies_come_home(x):
    x = x.detach()
    assert (x.sum().item(), float(x[0, 1]), bool(x.sum() > 0), len(x)) == (66.0, 1.0, True, 4)
    assert x[0].tolist() == [0.0, 1.0, 2.0]
    for home in (x.cpu(), x.to("cpu"), torch.tensor(x.tolist())):
        assert home.is_cpu
        assert torch.equal(home, torch.arange(12.0).reshape(4, 3))
    assert x.cpu().numpy().shape == (4, 3)
    assert torch.empty(4, 3).copy_(x).is_cpu


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (lambda x: x * torch.ones(3), r"mul has inputs on another device and a tensor \(3,\) on the CPU"),
        (lambda x: torch.ones(1, 4) @ x, r"mm has inputs .* \(1, 4\)"),
        (lambda x: torch.cat([x, torch.ones(1, 3)]), r"cat has inputs .* \(1, 3\)"),
        (lambda x: torch.ones(4)[x[:, 0] > 3], r"index has inputs .* \(4,\)"),
        (lambda x: torch.zeros(4, 3).add_(x), "add_ has inputs"),
        (lambda x: torch.stack([torch.tensor(0.0), x.sum()]), r"stack has inputs .* \(\) on the CPU"),
        (lambda x: torch.rand(3, generator=torch.Generator(), device=x.device), "with a generator of the CPU"),
        (lambda x: nn.Linear(3, 2)(x), "addmm|linear"),
        (lambda x: x.detach().numpy(), r"call cpu\(\) first"),
        (lambda x: np.asarray(x.detach()), r"call cpu\(\) first"),
    ],
)
def test_two_devices_in_one_operation_are_refused(x, operation, said):
    with pytest.raises(MixedDevices, match=said):
        operation(x)


def test_gradients_views_and_writes_are_those_of_the_cpu():
    def value(x):
        y = (x * 2).sigmoid()
        z = y.clone()
        z[1:, 0] += 3
        z.view(-1)[2].mul_(2)
        return (z.square() + torch.zeros_like(z).addcmul_(y, y)).logsumexp(1).sum()

    home = torch.linspace(-1, 1, 12).reshape(4, 3).requires_grad_()
    with elsewhere():
        away = there(home)
        assert away.requires_grad
        assert away.is_leaf
        found = value(away)
        found.backward()
    expected = value(home)
    expected.backward()
    assert torch.equal(here(found), expected)
    assert torch.equal(here(away.grad), home.grad)


def test_a_wrong_write_is_refused_there_too():
    with elsewhere():
        y = there(torch.ones(3, requires_grad=True)).exp()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.add_(1).sum().backward()


def test_what_cannot_be_made_up_is_no_fault_of_a_part(x):
    for beyond in (
        lambda: torch.sparse_coo_tensor(torch.zeros(1, 4, dtype=torch.int64, device=x.device), x[:, 0]),
        lambda: torch.Generator(device=x.device),
    ):
        with pytest.raises((NotImplementedError, RuntimeError)) as raised:
            beyond()
        assert is_beyond(raised.value)
    assert not is_beyond(MixedDevices("mul has inputs on another device"))


def test_autocast_and_inference_mode_can_be_asked_for(x):
    with torch.autocast(x.device.type, enabled=False), torch.inference_mode():
        assert not torch.is_autocast_enabled(x.device.type)
        assert x.t().device == ELSEWHERE
        with torch.inference_mode(mode=False):
            assert x.t().is_inference() is False


def test_outside_of_the_block_all_is_as_it_was():
    with elsewhere(), torch.inference_mode():
        assert not torch.is_inference_mode_enabled()
    with torch.inference_mode():
        assert torch.is_inference_mode_enabled()
    with pytest.raises(RuntimeError):
        torch.is_autocast_enabled("lazy")
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.zeros(3, device=ELSEWHERE)
