"""Gradients that can be differentiated once more: what is asked for, of what there is."""

import torch
from torch import Tensor

from nearfar_pair.again import again


def cubes(x: Tensor, y: Tensor | None, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x**3, x * k, k.double()


def test_the_gradient_has_a_gradient() -> None:
    x, k = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True), torch.tensor([5, 7])
    by = torch.tensor([1.0, 10.0], dtype=torch.float64)
    with torch.enable_grad():
        to_x, to_y, to_k = again(cubes, (x, None, k), [by, by, None])
    assert to_y is None
    assert to_k is None
    assert to_x is not None
    assert to_x.tolist() == [12 + 5, 270 + 70]
    assert torch.autograd.grad(to_x.sum(), x)[0].tolist() == [6 * 2.0, 6 * 3.0 * 10]


def test_an_input_made_of_another_has_a_gradient_of_its_own() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    to_x, to_twice = again(lambda a, b: [a * b], (x, 2 * x), [torch.ones(1)])
    assert to_x is not None
    assert to_twice is not None
    assert (to_x.item(), to_twice.item()) == (4.0, 2.0)


def test_what_nothing_depends_on_has_a_gradient_of_zero() -> None:
    x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
    to_x, to_y = again(lambda a, b: [a.square()], (x, y), [torch.ones(2)])
    assert to_x is not None
    assert to_y is not None
    assert (to_x.tolist(), to_y.tolist()) == ([2.0, 2.0], [0.0, 0.0])


def test_where_no_output_was_differentiated_there_is_no_gradient() -> None:
    x = torch.ones(2, requires_grad=True)
    assert again(lambda a: [a.square()], (x,), [None]) == (None,)
    assert again(lambda a: [a.detach()], (x,), [torch.ones(2)]) == (None,)
