"""What a loss cuts from the graph is held constant: finite differences of the frozen function are its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.testing.frozen import Frozen

START = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)


def gradient(function) -> Tensor:
    x = START.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(x), x)
    return found


def differences(function, frozen: Frozen) -> Tensor:
    """The derivative of the frozen function by each coordinate, which was frozen at the start."""

    def value(x: Tensor) -> float:
        x = x.clone().requires_grad_()
        with frozen:
            found = function(x)
        return float(found.detach())

    value(START)
    steps = 1e-6 * torch.eye(3, dtype=torch.float64)
    return torch.tensor([(value(START + h) - value(START - h)) / 2e-6 for h in steps], dtype=torch.float64)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.detach() * x.data

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return Square.apply(x) * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 3 * x.square() * grad


def detached(x):
    return (x * x.detach()).sum()


def data(x):
    return (x * x.data).sum()


def straight_through(x):
    return (x.exp().detach() + (x - x.detach())).sum()


def number(x):
    return (x * float(x.detach().max())).sum()


def item(x):
    return (x * x.detach().sum().item()).sum()


def listed(x):
    return (x * torch.tensor(x.detach().tolist())).sum()


def without_grad(x):
    with torch.no_grad():
        weights = x.softmax(0)
        weights = weights / weights.max()
    return (x * weights).sum()


def several_results(x):
    with torch.no_grad():
        values, _ = x.topk(2)
        low, high = x.aminmax()
    return (x * values.sum()).sum() + x[0] * (high - low)


def view(x):
    with torch.no_grad():
        row = x.view(1, 3)
    return (x * row[0]).sum()


def running_mean(x):
    mean = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        mean.lerp_(x, 0.5)
        mean[1:].add_(x[1:])
        mean[0] = x[2]
    return (x * mean).sum()


def written_out(x):
    total = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        torch.mul(x, x, out=total)
    return (x * total).sum()


def as_data(x):
    kept = torch.zeros(3, dtype=torch.float64)
    kept.data = x.exp().detach()
    return (x * kept).sum()


def as_data_of_itself(x):
    kept = torch.zeros(3, dtype=torch.float64)
    kept.data = x
    return (x * kept).sum()


class Weighed(torch.autograd.Function):
    # x times a weight that its gradient holds constant.

    @staticmethod
    def forward(ctx, x):
        weight = x.exp().detach()
        ctx.save_for_backward(weight)
        return x * weight

    @staticmethod
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors
        return weight * grad


def own_weight(x):
    return Weighed.apply(x).sum()


def own_function(x):
    return Square.apply(x).sum()


def nested_functions(x):
    return (Cube.apply(x) * Square.apply(x).detach()).sum()


def own_function_without_grad(x):
    with torch.no_grad():
        square = Square.apply(x)
    return (x * square).sum()


def nothing_cut(x):
    return (x.softmax(0) * x.exp()).norm()


@pytest.mark.parametrize(
    "function",
    [
        detached,
        data,
        straight_through,
        number,
        item,
        listed,
        without_grad,
        several_results,
        view,
        running_mean,
        written_out,
        as_data,
        as_data_of_itself,
        own_weight,
        own_function,
        nested_functions,
        own_function_without_grad,
        nothing_cut,
    ],
    ids=lambda function: function.__name__,
)
def test_the_derivative_of_the_frozen_function_is_its_gradient(function):
    torch.testing.assert_close(differences(function, Frozen()), gradient(function), rtol=1e-7, atol=1e-7)


def test_frozen_at_one_point_a_function_has_the_values_of_that_point():
    frozen = Frozen()
    with frozen:
        detached(START.clone().requires_grad_())
    with frozen:
        moved = detached((2 * START).requires_grad_())
    assert float(moved.detach()) == float((2 * START * START).sum())


def test_the_input_itself_is_not_written_to():
    frozen, inputs = Frozen(), [(START + k).requires_grad_() for k in range(3)]
    for x in inputs:
        with frozen:
            as_data_of_itself(x)
    assert [float(x[0].detach()) for x in inputs] == [1.0, 2.0, 3.0]


def test_a_function_may_be_frozen_within_another():
    outer, inner = Frozen(), Frozen()

    def twice(x):
        with inner:
            return detached(x) + without_grad(x)

    torch.testing.assert_close(
        differences(twice, outer), gradient(lambda x: detached(x) + without_grad(x)), rtol=1e-7, atol=1e-7
    )


def test_afterwards_autograd_functions_are_what_they_were():
    before = torch.autograd.Function.__dict__["apply"]
    with pytest.raises(ZeroDivisionError), Frozen():
        raise ZeroDivisionError
    assert torch.autograd.Function.__dict__["apply"] is before


@pytest.mark.parametrize("more", [True, False], ids=["more", "less"])
def test_a_function_that_cuts_other_things_than_at_first_is_an_error(more):
    frozen = Frozen()
    with frozen:
        (detached if more else without_grad)(START.clone().requires_grad_())
    with pytest.raises(RuntimeError, match="cut from the graph"), frozen:
        (several_results if more else nothing_cut)(START.clone().requires_grad_())


def test_another_shape_than_at_first_is_an_error():
    frozen = Frozen()
    with frozen:
        detached(START.clone().requires_grad_())
    with pytest.raises(RuntimeError, match=r"\(3,\) at first, now \(2,\)"), frozen:
        detached(START[:2].clone().requires_grad_())
