"""The update of class weights inside the backward pass: of SGD with momentum, a chunk of the classes at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.arguments import non_negative
from nearfar_margin.row_optimizers import Rows, sgd
from nearfar_margin.shard import local

if TYPE_CHECKING:
    from nearfar_margin.engine_loss import EngineLoss

__all__ = ["FusedSGD", "FusedStep"]


class FusedSGD(torch.optim.Optimizer):
    """SGD with momentum of a loss's class weights, stepped by the backward pass itself.

    A chunk of the classes is stepped as soon as its gradient is known, so there is never a gradient of all of them:
    ``weight.grad`` stays None, and besides the weight and the momentum nothing of their size is made. The weights are
    those that ``torch.optim.SGD`` would make.

    Use it as any optimiser, beside another for the rest of the model: each :meth:`step` ends a step, of which there is
    one backward pass. That uses the learning rate it finds, so a scheduler steps after :meth:`step`, as always. In
    evaluation mode, and where gradients are off, nothing is stepped.

    Parameters
    ----------
    loss : EngineLoss
        Any loss of the family; it takes the chunked engine from now on.
    lr : float
        [0..inf] Learning rate.
    momentum : float
        [0..inf] 0 by default.
    weight_decay : float
        [0..inf] 0 by default.
    nesterov : bool
        Whether the momentum is Nesterov's.

    Notes
    -----
    What needs the gradient of the weight does not go with it: it is not clipped with the others, a loss scaler would
    have scaled it, and several backward passes cannot be accumulated in one step. The latter two are refused. Any
    backward pass through the loss is a step, also one that asks for the gradients of the embeddings alone.

    Raises
    ------
    ArgumentError
        The loss is none of the family, is sampled, asks for the plain engine, has one already, a number is negative, or
        Nesterov's momentum is 0.
    """

    def __init__(
        self,
        loss: EngineLoss,
        lr: float,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        name = type(loss).__name__
        if not hasattr(loss, "fused"):
            raise ArgumentError(f"{name} is not computed by an engine of nearfar-margin; FusedSGD steps those only")
        if loss.fused is not None:
            raise ArgumentError(f"{name} has a FusedSGD already")
        if loss.sampler is not None:
            raise ArgumentError(
                f"{name} is sampled, so its gradient has the sampled rows only and is small; use RowSGD"
            )
        if loss.engine == "plain":
            raise ArgumentError(f"{name} has engine='plain', which has no backward pass of its own; use 'chunked'")
        if nesterov and not momentum:
            raise ArgumentError("FusedSGD: Nesterov's momentum is to be above 0")
        numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        checked = {key: non_negative(key, value) for key, value in numbers.items()}
        super().__init__([loss.weight], checked | {"nesterov": nesterov})
        #: How often the weight has been stepped: a value that was computed before the last one is out of date.
        self.steps = 0
        self._open = False
        loss.fused = self

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps none of an optimiser's own attributes; a copy of the loss has a copy of this, which steps that.
        return super().__getstate__() | {"steps": self.steps, "_open": self._open}

    def begin(self, steps: int) -> None:
        """Start a backward pass through values that were computed after so many steps.

        Raises
        ------
        InputError
            There was one since :meth:`step`, or the weight has been stepped in the meantime.
        """
        if self._open:
            raise InputError(
                "FusedSGD steps in the backward pass, and this is the second one before step(): gradients cannot be "
                "accumulated with it; call step() after each, or use torch.optim.SGD"
            )
        if steps != self.steps:
            raise InputError(
                "FusedSGD has stepped the class weights since this value was computed, so its gradient would be that "
                "of other weights; compute, go back and step once at a time, or use torch.optim.SGD"
            )
        self._open = True
        self._prepare()

    def update(self, rows: Rows, gradient: Tensor) -> None:
        """Step on some rows; their ``gradient`` (c, k, d) is written to."""
        weight, momentum = (*self._tensors(), None)[:2]
        assert weight is not None
        sgd(weight, momentum, rows, gradient, self.param_groups[0])

    def rows(self, rows: Rows) -> list[Tensor]:
        """Copies of rows of the weight, and of the momentum if there is any."""
        return [tensor[rows].clone() for tensor in self._tensors()]

    def restore(self, rows: Rows, copies: list[Tensor]) -> None:
        """Put back what :meth:`rows` gave."""
        for tensor, copy in zip(self._tensors(), copies, strict=True):
            tensor[rows] = copy

    def finish(self) -> None:
        """End a backward pass: the weight is another now, and whoever has kept it is told."""
        self.steps += 1
        increment_version(self._weight)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """End a step, in which the backward pass has stepped the weight.

        Raises
        ------
        ArgumentError
            A loss scaler calls it, or the weight has a gradient from elsewhere.
        """
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        if hasattr(self, "found_inf"):
            raise ArgumentError(
                "FusedSGD steps in the backward pass, where a loss scaler has scaled the gradients, and cannot take "
                "that back; train in bfloat16, which needs no scaler, or use torch.optim.SGD"
            )
        gradient = self._weight.grad
        if gradient is not None and local(gradient).any():
            raise ArgumentError(
                "the class weights have a gradient from elsewhere than the loss that FusedSGD steps, which it would "
                "leave out; use torch.optim.SGD"
            )
        self._prepare()
        self._open = False
        return value

    #: Asks a loss scaler to let it see what it has done, rather than to skip a step by itself.
    _step_supports_amp_scaling = True

    @property
    def _weight(self) -> Tensor:
        weight: Tensor = self.param_groups[0]["params"][0]
        return weight

    def _prepare(self) -> None:
        if self.param_groups[0]["momentum"] and not self.state[self._weight]:
            self.state[self._weight]["momentum_buffer"] = torch.zeros_like(self._weight, requires_grad=False)

    def _tensors(self) -> list[Tensor]:
        """The weight and the momentum that this process holds, (c, k, d)."""
        tensors = [self._weight, *self.state[self._weight].values()]
        # Apart from what autograd watches: it looks at versions of the weight that it keeps until the pass is over.
        return [each if each.ndim == 3 else each[:, None] for each in (local(t.detach()).data for t in tensors)]


class FusedStep:
    """The step of one backward pass.

    The gradient of a class that is a sample's own has two parts, of which the second is known last of all. So while the
    others are stepped a chunk at a time, the first part of these is put aside.

    Parameters
    ----------
    optimizer
        What steps.
    labels
        (n,) rows of the weight; outside of it where another rank has the class.
    shape
        (c, k, d) of the weight that this process holds.
    """

    def __init__(self, optimizer: FusedSGD, labels: Tensor, shape: torch.Size) -> None:
        self._optimizer, self._shape = optimizer, shape
        self._mine = (labels >= 0) & (labels < shape[0])
        self._rows, self._places = torch.unique(labels[self._mine], return_inverse=True)
        self._before = optimizer.rows(self._rows)
        self._own = torch.zeros_like(self._before[0])

    def chunk(self, start: int, stop: int, gradient: Tensor) -> None:
        """Step on the classes of a chunk; ``gradient`` is written to."""
        gradient = gradient.view(stop - start, *self._shape[1:])
        if len(self._rows):
            column = self._rows - start
            inside = ((column >= 0) & (column < stop - start))[:, None, None]
            self._own = torch.where(inside, gradient[column.clamp(0, stop - start - 1)], self._own)
        self._optimizer.update(slice(start, stop), gradient)

    def end_of_chunks(self) -> None:
        """Undo what was done to the samples' own classes, of which not everything was known."""
        self._optimizer.restore(self._rows, self._before)

    def own(self, along: Tensor) -> None:
        """Step on them, with the other part of each sample's gradient, (n, k, d)."""
        self._own.index_add_(0, self._places, along[self._mine].to(self._own.dtype))
        self._optimizer.update(self._rows, self._own)
        self._optimizer.finish()
