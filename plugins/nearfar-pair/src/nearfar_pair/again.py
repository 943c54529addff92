"""Gradients that can be differentiated once more, for backward passes written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["again", "is_differentiable"]


def is_differentiable(*tensors: Tensor) -> bool:
    """Whether what is made of these is to be recorded: who asks first may want no gradient, and the next one does."""
    # torch.compile cannot follow the question, and asks nothing of a backward pass where there is none.
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        return False
    return any(tensor.requires_grad for tensor in tensors)


def again(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor | None], by: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradient of each input, with a graph of its own, by ordinary differentiation of the same function.

    Parameters
    ----------
    function
        Of the inputs, in torch's own operations; returns as many outputs as there are gradients.
    inputs
        As a backward pass has them saved; where one is None, the function is called with None.
    by
        The gradients by the outputs; None where an output was not differentiated.

    Returns
    -------
    tuple
        One gradient for each input; None for what needs none, 0 for what nothing depends on.
    """
    # Under other names: an input may be made from another, which is not this function's to go back through.
    inputs = [x if x is None else x.view_as(x) for x in inputs]
    used = [(o, g) for o, g in zip(function(*inputs), by, strict=True) if g is not None and o.requires_grad]
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    if not used or not wanted:
        return (None,) * len(inputs)
    outputs, by_output = zip(*used, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, by_output, create_graph=True, materialize_grads=True))
    return tuple(next(found) if x is not None and x.requires_grad else None for x in inputs)
