"""Memory for large gradients: given again once nobody has it any more, and gone with the weight."""

from __future__ import annotations

import gc

import pytest
import torch

from nearfar.nn import memory
from nearfar.nn.memory import LARGE, LINE, gradient_like

ROWS = LARGE // 4 // 128


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [3, 2**15 + 1])
def test_memory_is_of_the_shape_and_can_be_a_gradient(dtype, rows):
    weight = torch.nn.Parameter(torch.zeros(129, rows, dtype=dtype).T)
    assert (weight.numel() * weight.itemsize >= LARGE) == (rows > 3)
    room = gradient_like(weight)
    assert (room.shape, room.dtype, room.device) == (weight.shape, weight.dtype, weight.device)
    assert room.is_contiguous()
    assert not room.requires_grad
    assert rows == 3 or room.data_ptr() % LINE == 0
    weight.grad = room.fill_(1)
    torch.optim.SGD([weight], lr=0.5).step()
    assert (weight == -0.5).all()


def test_memory_of_another_device_is_made_there():
    room = gradient_like(torch.empty(2**20, 2, device="meta"))
    assert room.device.type == "meta"
    assert room.shape == (2**20, 2)


def test_a_gradient_lies_where_the_last_one_was_once_that_is_let_go():
    weight = torch.nn.Parameter(torch.zeros(ROWS, 128))
    weight.grad = gradient_like(weight)
    place = weight.grad.data_ptr()
    weight.grad = None
    # Of whatever view of the weight it is asked for.
    assert gradient_like(weight.detach()[:, None]).data_ptr() == place


@pytest.mark.parametrize("held", [lambda room: room, lambda room: room[5:], lambda room: room.numpy()])
def test_a_gradient_that_somebody_has_is_left_alone(held):
    weight = torch.nn.Parameter(torch.zeros(ROWS, 128))
    kept = held(gradient_like(weight).fill_(1))
    gradient_like(weight).fill_(2)
    assert (kept == 1).all()


def test_weights_do_not_share_memory():
    one, other = torch.zeros(ROWS, 128), torch.zeros(ROWS, 128)
    place = gradient_like(one).data_ptr()
    assert gradient_like(other).data_ptr() != place


def test_a_part_of_a_weight_has_memory_of_its_own_size():
    weight = torch.zeros(2 * ROWS, 128)
    gradient_like(weight)
    assert gradient_like(weight[ROWS:]).shape == (ROWS, 128)
    assert gradient_like(weight).shape == weight.shape


def test_memory_goes_with_the_weight():
    weight = torch.nn.Parameter(torch.zeros(ROWS, 128))
    before = len(memory._rooms)
    gradient_like(weight)
    assert len(memory._rooms) == before + 1
    del weight
    gc.collect()
    assert len(memory._rooms) == before
