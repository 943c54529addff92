"""Optimisers that step on some rows of a tensor and leave the others, and what they keep of them, alone."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import non_negative
from nearfar_margin.shard import local

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["RowAdamW", "RowOptimizer", "RowSGD", "sgd", "zeros_of_rows"]

Rows: TypeAlias = "slice | Tensor"

#: Numbers that are worked on at a time: copies of so many stay in a cache, and none of all rows is made.
BLOCK = 1 << 18


class RowOptimizer(torch.optim.Optimizer):
    """What steps on rows: those of a sparse gradient, or all of a dense one.

    What it keeps of a tensor is sharded as the tensor is, so that ``torch.distributed.checkpoint`` loads it on any
    number of ranks. A first step with a learning rate of 0 on a gradient of 0 makes the state and nothing more: so does
    ``torch.distributed.checkpoint.state_dict.get_state_dict`` ask a fresh optimiser for it.
    """

    #: Says that sparse gradients of sampled heads are rightly dealt with (:func:`nearfar_margin.sampling.sample`).
    takes_rows = True

    @abstractmethod
    def prepare(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The state of a tensor of which there is none yet; parts of it have its rows."""

    @abstractmethod
    def update(self, weight: Tensor, state: dict[str, Tensor], rows: Rows, g: Tensor, group: dict[str, Any]) -> None:
        """Step on ``rows`` of ``weight`` and of its state, of which ``g`` is the gradient, and may be written to."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on all gradients there are.

        Raises
        ------
        ArgumentError
            A sparse gradient is of another kind than that of a sampled head: of rows.
        """
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_on(parameter, group)
        return value

    def _step_on(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        fresh = not self.state[parameter]
        if fresh:
            self.state[parameter].update(self.prepare(parameter, group))
        gradient = parameter.grad if parameter.grad.is_sparse else local(parameter.grad)
        if fresh and not group["lr"] and not gradient.is_sparse and not gradient.any():
            return
        for name, tensor in self.state[parameter].items():
            # A count of steps that was loaded is left by torch where it was in the file.
            if tensor.device != parameter.device:
                self.state[parameter][name] = tensor.to(parameter.device)
        weight = _rows_of(local(parameter))
        state = {name: _rows_of(local(tensor)) for name, tensor in self.state[parameter].items()}
        for rows, g in _blocks(parameter, gradient):
            self.update(weight, state, rows, g, group)


class RowSGD(RowOptimizer):
    r"""SGD with momentum on the rows of a gradient.

    .. math:: v \leftarrow \mu v + g + \lambda w, \qquad w \leftarrow w - \eta v

    of each row that has a gradient; with a dense gradient it is ``torch.optim.SGD``. In Nesterov's form the step is
    along :math:`g + \lambda w + \mu v` with the new v.

    Parameters
    ----------
    params
        Tensors, or groups of them, as any optimiser of torch takes.
    lr : float
        [0..inf] Learning rate, η.
    momentum : float
        [0..inf] μ; 0 by default.
    weight_decay : float
        [0..inf] λ; 0 by default.
    nesterov : bool
        Whether the momentum is Nesterov's.

    Raises
    ------
    ArgumentError
        A number is negative, or Nesterov's momentum is 0.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and not momentum:
            raise ArgumentError("RowSGD: Nesterov's momentum is to be above 0")
        numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(
            params, {name: non_negative(name, value) for name, value in numbers.items()} | {"nesterov": nesterov}
        )

    def prepare(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {"momentum_buffer": torch.zeros_like(parameter)} if group["momentum"] else {}

    def update(self, weight: Tensor, state: dict[str, Tensor], rows: Rows, g: Tensor, group: dict[str, Any]) -> None:
        sgd(weight, state.get("momentum_buffer"), rows, g, group)


class RowAdamW(RowOptimizer):
    r"""AdamW on the rows of a gradient, each with a step count of its own.

    .. math::

        m \leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
        w \leftarrow (1 - \eta\lambda) w - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \varepsilon}

    of each row that has a gradient, for the t-th time; with dense gradients it is ``torch.optim.AdamW``.

    Parameters
    ----------
    params
        Tensors, or groups of them, as any optimiser of torch takes.
    lr : float
        [0..inf] Learning rate, η; 0.001 as in torch.
    betas : tuple of float
        [0..1) β₁ and β₂; 0.9 and 0.999 as in the paper.
    eps : float
        [0..inf] ε; 1e-8 as in the paper.
    weight_decay : float
        [0..inf] λ; 0.01 as in torch.

    Raises
    ------
    ArgumentError
        A number is out of its range.

    References
    ----------
    Loshchilov, Hutter (2019). Decoupled Weight Decay Regularization. arXiv:1711.05101.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ArgumentError(f"RowAdamW: betas lie in [0, 1); got {betas}")
        numbers = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
        super().__init__(
            params, {name: non_negative(name, value) for name, value in numbers.items()} | {"betas": betas}
        )

    def prepare(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {
            "step": zeros_of_rows(parameter),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }

    def update(self, weight: Tensor, state: dict[str, Tensor], rows: Rows, g: Tensor, group: dict[str, Any]) -> None:
        (beta1, beta2), lr = group["betas"], group["lr"]
        step, m, v = state["step"][rows] + 1, state["exp_avg"][rows], state["exp_avg_sq"][rows]
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        shape = (-1,) + (1,) * (g.ndim - 1)
        first, second = (_correction(beta, step).to(g).view(shape) for beta in (beta1, beta2))
        w = weight[rows] * (1 - lr * group["weight_decay"])
        w -= lr * (m / first) / ((v / second).sqrt_() + group["eps"])
        for tensor, new in ((weight, w), (state["step"], step), (state["exp_avg"], m), (state["exp_avg_sq"], v)):
            tensor[rows] = new


def sgd(weight: Tensor, momentum: Tensor | None, rows: Rows, g: Tensor, group: dict[str, Any]) -> None:
    """One step of SGD on ``rows`` of a weight (c, …), ``g`` being their gradient; it is written to."""
    w = weight[rows]
    if group["weight_decay"]:
        g.add_(w, alpha=group["weight_decay"])
    if momentum is not None:
        velocity = momentum[rows].mul_(group["momentum"]).add_(g)
        g = g.add_(velocity, alpha=group["momentum"]) if group.get("nesterov") else velocity
    w.add_(g, alpha=-group["lr"])
    if isinstance(rows, Tensor):  # of which these are copies
        weight[rows] = w
        if momentum is not None:
            momentum[rows] = velocity


def zeros_of_rows(parameter: Tensor) -> Tensor:
    """A 0 for each row of a tensor, of int32, sharded as it is."""
    if not hasattr(parameter, "to_local"):
        return torch.zeros(parameter.shape[:1], dtype=torch.int32, device=parameter.device)
    from torch.distributed.tensor import DTensor

    whole = cast("DTensor", parameter)
    zeros = torch.zeros(len(whole.to_local()), dtype=torch.int32, device=whole.device)
    return DTensor.from_local(
        zeros, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape[:1], stride=(1,)
    )


def _rows_of(tensor: Tensor) -> Tensor:
    """With a dimension of rows: of a single number, one."""
    return tensor if tensor.ndim else tensor.view(1)


def _blocks(parameter: Tensor, gradient: Tensor) -> Iterator[tuple[Rows, Tensor]]:
    """Some of the rows that this process holds, and their gradient, which may be written to."""
    if not gradient.is_sparse:
        gradient = _rows_of(gradient)
        for start, stop in _spans(gradient):
            yield slice(start, stop), gradient[start:stop].clone()
        return
    gradient = gradient.coalesce()
    if gradient.sparse_dim() != 1:
        raise ArgumentError(
            f"a sparse gradient is to be one of rows, with 1 sparse dimension; got {gradient.sparse_dim()} of "
            f"{gradient.ndim}"
        )
    rows, values = gradient.indices()[0] - _first_row(parameter), gradient.values()
    for start, stop in _spans(values):
        yield rows[start:stop], values[start:stop].to(parameter.dtype, copy=True)


def _spans(values: Tensor) -> Iterable[tuple[int, int]]:
    height = max(1, BLOCK // max(values[:1].numel(), 1))
    return ((start, min(start + height, len(values))) for start in range(0, len(values), height))


def _first_row(parameter: Tensor) -> int:
    """That this rank holds, counted as the whole does: each has as many as the first, but for the last ones."""
    if not hasattr(parameter, "to_local"):
        return 0
    whole = cast("DTensor", parameter)
    mesh = whole.device_mesh
    return min(mesh.get_local_rank() * -(-len(whole) // mesh.size()), len(whole))


def _correction(beta: float, step: Tensor) -> Tensor:
    """1 − βᵗ, without the rounding of 1 less a number close to it."""
    if not beta:
        return torch.ones_like(step, dtype=torch.float32)
    return -torch.expm1(step.double() * math.log(beta))
