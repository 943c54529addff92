"""A share of the classes for each step: Partial FC, An et al. 2022 (2203.15565)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from nearfar.errors import ArgumentError
from nearfar.nn import Stepping
from nearfar.nn.arguments import finite
from nearfar_margin.noise import counted_below
from nearfar_margin.sample import Sample, is_sampled
from nearfar_margin.shard import Shard

if TYPE_CHECKING:
    from nearfar_margin.engine_loss import EngineLoss

__all__ = ["Sampler", "sample"]

Head = TypeVar("Head", bound="EngineLoss")

#: Classes whose numbers are made at a time: as many as stay in a cache.
BLOCK = 1 << 16


class Sampler(Stepping):
    """Which classes a step has: those of its samples, and of all others a random share.

    Whether a class is drawn is a function of the seed, the step and the class alone: a run that is resumed, on any
    number of ranks, draws what one that was not interrupted draws. A step is a call in training mode, unless it follows
    an optimiser (:meth:`nearfar.nn.Criterion.follow`); then all calls of one step draw the same classes.

    Parameters
    ----------
    rate
        (0..1] The share.
    seed
        [0..2⁶³ − 1] Which sequence of draws.
    """

    steps: Tensor

    def __init__(self, rate: float, seed: int) -> None:
        super().__init__()
        if not 0 < finite("rate", rate) <= 1:
            raise ArgumentError(f"the rate of sampled classes lies above 0 and up to 1; got {rate!r}")
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise ArgumentError(f"the seed of sampled classes is a whole number from 0 to 2⁶³ − 1; got {seed!r}")
        self.rate, self.seed = float(rate), seed
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def step(self) -> None:
        self.steps += 1

    @torch.no_grad()
    def draw(self, labels: Tensor, num_classes: int, shard: Shard | None = None) -> Sample:
        """The classes of the step at hand.

        Parameters
        ----------
        labels
            (n,) of the batch, that of all ranks where classes are spread over them.
        num_classes
            Of all ranks.
        shard
            This rank's share of the classes.
        """
        start, stop = (0, num_classes) if shard is None else (shard.start, shard.stop)
        step = self.steps.to(labels.device)
        drawn = torch.empty(stop - start, dtype=torch.bool, device=labels.device)
        for first in range(start, stop, BLOCK):
            places = torch.arange(first, min(first + BLOCK, stop), device=labels.device)
            drawn[first - start :][: len(places)] = counted_below(self.seed, step, places, self.rate)
        self.called()
        return Sample.of(drawn, labels - start, self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, seed={self.seed}"


def sample(loss: Head, rate: float, *, seed: int = 0) -> Head:
    """Train a loss on a share of its classes at each step, in place.

    A step in training mode is computed on the classes of the batch, of all ranks where the loss is sharded, and on a
    random share of all others; the loss and its gradient are those of a loss that has no other classes. In evaluation
    mode it has all of them. What a loss adapts to means the same: sums over all classes are estimated, with each drawn
    class standing for those that were not, and what is kept of classes or samples knows of all.

    The gradient of ``weight``, and of a bias, is a sparse tensor of the rows that were drawn.
    :class:`~nearfar_margin.row_optimizers.RowSGD` and :class:`~nearfar_margin.row_optimizers.RowAdamW` step on it and
    leave all other rows, and what they keep of them, alone. An optimiser that could not is refused when it steps.

    Parameters
    ----------
    loss
        Any loss of the family, sharded before (:func:`~nearfar_margin.shard.shard`), afterwards or not at all.
    rate
        (0..1] The share of the other classes. With 1 the loss is left as it is.
    seed
        [0..2⁶³ − 1] Which sequence of draws.

    Returns
    -------
    EngineLoss
        The loss. Its ``sampler`` keeps the number of steps in a buffer, so that a run that is resumed goes on with the
        draws of one that was not interrupted, on any number of ranks.

    Raises
    ------
    ArgumentError
        The rate or the seed is out of range, the loss is sampled already, its weight's update is fused into the
        backward pass, or it is none of the family.

    References
    ----------
    An, Deng, Guo, Feng, Zhu, Yang, Liu (2022). Killing Two Birds with One Stone: Efficient and Robust Training of Face
    Recognition CNNs by Partial FC. arXiv:2203.15565.

    Notes
    -----
    The paper draws as many of each rank's classes as make a fixed number with those of the batch. Here each class is
    drawn by itself, so the number varies by its root, and is the same on any number of ranks.
    """
    sampler = Sampler(rate, seed)
    name = type(loss).__name__
    if not hasattr(loss, "sampler"):
        raise ArgumentError(f"{name} is not computed by an engine of nearfar-margin, so its classes cannot be sampled")
    if loss.sampler is not None:
        raise ArgumentError(f"{name} is sampled already, with rate={loss.sampler.rate}")
    if loss.fused is not None:
        raise ArgumentError(
            f"{name} has its weight stepped by FusedSGD in the backward pass, which takes all classes; to sample them "
            "use RowSGD"
        )
    if rate < 1:
        loss.sampler = sampler
        _refuse_others()
    return loss


@functools.cache
def _refuse_others() -> None:
    """Have every step of an optimiser looked at, once for the process: torch's SGD with momentum would take a sparse
    gradient, add up the rows of all steps in a buffer that grows without end, and move rows that were not drawn.
    """
    register_optimizer_step_pre_hook(_refuse)


def _refuse(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    if getattr(optimizer, "takes_rows", False):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None or not gradient.is_sparse or not is_sampled(parameter):
                continue
            if hasattr(parameter, "to_local") or not _leaves_rows_alone(optimizer, group):
                raise ArgumentError(
                    "the weights of a sampled head have a gradient of the rows that were drawn alone, and "
                    f"{type(optimizer).__name__} would move other rows as well, or cannot take it; give them to "
                    "nearfar_margin.row_optimizers.RowSGD or RowAdamW"
                )


def _leaves_rows_alone(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> bool:
    """Whether one of torch's own does right with the sparse gradient of a tensor that is not sharded."""
    if isinstance(optimizer, torch.optim.SGD):
        return not group["momentum"] and not group["weight_decay"]
    return isinstance(optimizer, torch.optim.SparseAdam | torch.optim.Adagrad)
