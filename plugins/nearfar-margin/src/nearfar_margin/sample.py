"""The classes of one step, where a loss is computed on some of them only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar_margin.shard import Shard, local

__all__ = ["Sample", "is_sampled", "sampled_rows"]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Some of the classes of this process.

    Attributes
    ----------
    rows
        (m,) rows of the weight that this process holds, ascending.
    places
        (n,) of each sample of the batch, where its class is among ``rows``; −1 where another rank holds it.
    stands_for
        (m,) how many classes each is drawn for: 1 where it is the class of a sample, which is always among them, else
        one over the share of those that are drawn. So weighted, sums over the classes are right on average.
    """

    rows: Tensor
    places: Tensor
    stands_for: Tensor

    @classmethod
    def of(cls, drawn: Tensor, labels: Tensor, rate: float) -> Sample:
        """The drawn classes, and those of the samples.

        Parameters
        ----------
        drawn
            (c,) of bool, for each class of this process; written to.
        labels
            (n,) counted from its first class; below 0 or beyond the last where the class is on another rank.
        rate
            The share of the classes that are drawn.
        """
        mine = (labels >= 0) & (labels < len(drawn))
        present = torch.zeros_like(drawn)
        present[labels[mine]] = True
        rows = drawn.logical_or_(present).nonzero().squeeze(1)
        places = torch.searchsorted(rows, labels).masked_fill_(~mine, -1)
        stands_for = torch.full(rows.shape, 1 / rate, device=rows.device).masked_fill_(present[rows], 1)
        return cls(rows, places, stands_for)

    def among(self, tensor: Tensor, shard: Shard | None = None) -> Tensor:
        """The rows (m, …) of these classes, a copy; the gradient of ``tensor`` is a sparse tensor of them."""
        return sampled_rows(tensor, self.rows, 0 if shard is None else shard.start)

    def classes(self, shard: Shard | None) -> int:
        """How many there are, of all ranks."""
        return len(self.rows) if shard is None else sum(shard.sizes(len(self.rows), self.rows.device))


def sampled_rows(tensor: Tensor, rows: Tensor, start: int = 0) -> Tensor:
    """Rows (m, …) of a tensor, a copy, with a sparse gradient; of a DTensor, those of this rank, from ``start`` on."""
    # So that optimisers that cannot take such a gradient are told from it, whichever tensor that is by now.
    tensor.nearfar_sampled = True  # type: ignore[attr-defined]
    own: Tensor = _Rows.apply(tensor, rows, start)
    return own


def is_sampled(parameter: Tensor) -> bool:
    """Whether rows of it have been sampled."""
    return getattr(parameter, "nearfar_sampled", False)


class _Rows(torch.autograd.Function):
    """Rows of a tensor, or of what this rank holds of it, ``start`` being the first of these.

    Its gradient is sparse, has the shape of the whole, and counts rows as that does. It is no DTensor, which cannot be
    sparse: of the whole it has the rows of this rank.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rows: Tensor, start: int) -> Tensor:
        ctx.shape, ctx.start = tensor.shape, start
        ctx.save_for_backward(rows)
        return local(tensor)[rows]

    @staticmethod
    def backward(ctx: Any, to_rows: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        gradient = torch.sparse_coo_tensor((rows + ctx.start)[None], to_rows, ctx.shape, check_invariants=False)
        return gradient, None, None
