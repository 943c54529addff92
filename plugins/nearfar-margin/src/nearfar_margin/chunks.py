"""Classes in chunks: their weights, and the products of embeddings with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nearfar.nn.vectors import TINY, unit
from nearfar_margin.declaration import Rows

__all__ = ["NO_LOGIT", "Block", "Chunks", "overwrite", "product", "reciprocal"]

#: Cosines in a chunk: about as many as stay in a cache.
CHUNK = 1 << 20
#: Classes in a chunk at least, whatever the size of the batch: matrices that are too narrow multiply slowly.
NARROWEST = 256
#: In a target's place among the others: its exponential is 0, and so is 0 times it, which of −∞ is not a number.
NO_LOGIT = -1e30


@dataclass(slots=True, eq=False)
class Block:
    """The weights of a chunk of classes.

    Attributes
    ----------
    start, stop
        The classes; of weights there may be several each.
    weight
        (k, d) as they are.
    inverse
        (k,) 1 over their length; None where lengths are left in.
    factor
        (k, d) what embeddings are multiplied with: in the dtype of the products, and of length one if that is a
        narrow one, whose range lengths might leave.
    """

    start: int
    stop: int
    weight: Tensor
    inverse: Tensor | None
    factor: Tensor


@dataclass(slots=True, eq=False)
class Chunks:
    """One call of the chunked engine: what its functions and their loops over chunks share.

    Attributes
    ----------
    weight
        (c · centers, d).
    labels
        (n,).
    dtype
        Of what is computed; float32 at least.
    products
        The dtype matrices are multiplied in, where it is another.
    centers
        Weights a class.
    width
        Classes a chunk.
    keep
        Whether cosines are kept for the backward pass.
    needs_weight
        Whether the weight is differentiated.
    unit
        Whether cosines are asked for, or the products as they are.
    unit_weight
        Whether columns are divided by the length of the weight.
    wants_lse, wants_total
        What is summed up: exponentials, logits.
    others, rows, fields, learned
        N where it changes the cosines, what it is called with, and the fields of ``rows`` and the learned tensors that
        it is differentiated with.
    detached
        Whether N passes gradients as if it changed nothing.
    weight_lengths
        Whether N's values are multiplied with the length of the weight.
    gradient
        Of the weight, between the two backward passes.
    """

    weight: Tensor
    labels: Tensor
    dtype: torch.dtype
    products: torch.dtype | None
    centers: int
    width: int
    keep: bool
    needs_weight: bool
    unit: bool = True
    unit_weight: bool = True
    wants_lse: bool = True
    wants_total: bool = False
    others: Callable[[Tensor, Rows], Tensor] | None = None
    rows: Rows | None = None
    fields: list[str] = field(default_factory=list)
    learned: list[Tensor] = field(default_factory=list)
    detached: bool = False
    weight_lengths: bool = False
    gradient: Tensor | None = None

    @classmethod
    def of(
        cls,
        embeddings: Tensor,
        weight: Tensor,
        labels: Tensor,
        centers: int,
        budget: float,
        products: torch.dtype | None,
    ) -> Chunks:
        """The chunks of a call; cosines are kept where they take no more than ``budget`` bytes."""
        dtype = torch.promote_types(embeddings.dtype, weight.dtype)
        n, classes = len(embeddings), len(weight) // centers
        differentiated = torch.is_grad_enabled() and (embeddings.requires_grad or weight.requires_grad)
        return cls(
            weight=weight.detach(),
            labels=labels,
            dtype=dtype,
            # Wider inputs were not meant to be multiplied in half precision.
            products=products if dtype == torch.float32 and products != dtype else None,
            centers=centers,
            width=min(classes, max(NARROWEST, CHUNK // max(n * centers, 1))),
            # Of several centers the nearest would have to be kept as well.
            needs_weight=weight.requires_grad,
            keep=differentiated and centers == 1 and n * classes * dtype.itemsize <= budget,
        )

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.weight) // self.centers

    def spans(self) -> Iterator[tuple[int, int]]:
        """The first class of each chunk, and that after its last."""
        for start in range(0, self.classes, self.width):
            yield start, min(start + self.width, self.classes)

    def buffer(self, n: int) -> Tensor:
        """Room for the products of n embeddings with a chunk."""
        return self.weight.new_empty(n * self.width * self.centers, dtype=self.dtype)

    def block(self, start: int, stop: int) -> Block:
        """The weights of a chunk."""
        weight = self.weight[start * self.centers : stop * self.centers].to(self.dtype)
        inverse = None
        if self.unit_weight:
            inverse = reciprocal(torch.linalg.vector_norm(weight, dim=1))
        if self.products is None:
            return Block(start, stop, weight, inverse, weight)
        narrow = weight if inverse is None else weight * inverse[:, None]
        return Block(start, stop, weight, inverse, narrow.to(self.products))

    def left(self, x: Tensor) -> Tensor:
        """Embeddings in the dtype of the products."""
        return x if self.products is None else x.to(self.products)

    def multiply(self, left: Tensor, block: Block, out: Tensor) -> tuple[Tensor, Tensor | None]:
        """The cosines (n, k) to a chunk's classes, written to ``out`` where a class has one weight, and the nearest of
        its centers where it has several.
        """
        c = out[: len(left) * len(block.weight)].view(len(left), len(block.weight))
        if self.products is None:
            torch.mm(left, block.factor.T, out=c)
            if block.inverse is not None:
                c.mul_(block.inverse)
        else:
            c.copy_(product(left, block.factor.T))
        if self.centers == 1:
            return c, None
        nearest = c.unflatten(1, (-1, self.centers)).max(2)
        return nearest.values, nearest.indices

    def targets(self, block: Block) -> tuple[Tensor, Tensor]:
        """For each sample a column of the chunk, and whether it is that of its own class: (n, 1) each."""
        column = self.labels - block.start
        inside = (column >= 0) & (column < block.stop - block.start)
        return column.clamp_(0, block.stop - block.start - 1)[:, None], inside[:, None]

    def own(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each sample the row of the weight of its class, that weight, its length, and the cosine to it.

        From these rows alone: exact in float32 also where matrix products round their inputs.
        """
        rows = self.labels
        if self.centers > 1:
            rows = rows[:, None] * self.centers + torch.arange(self.centers, device=rows.device)
            own, _ = unit(self.weight[rows].to(self.dtype), 2)
            nearest = (x[:, None] * own).sum(2).argmax(1, keepdim=True)
            rows = rows.gather(1, nearest).squeeze(1)
        own = self.weight[rows].to(self.dtype)
        if not self.unit:
            return rows, own, own.new_empty(0), (x * own).sum(1)
        own, length = unit(own)
        return rows, own, length, (x * own).sum(1)

    @torch.no_grad()
    def over_others(self, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The sum of f(c) over the classes that are not a sample's own, (n,)."""
        left, buffer = self.left(x), self.buffer(len(x))
        total = x.new_zeros(len(x), dtype=self.dtype)
        for start, stop in self.spans():
            block = self.block(start, stop)
            values = f(self.multiply(left, block, buffer)[0])
            overwrite(values, self.targets(block), 0)
            total += values.sum(1)
        return total


def overwrite(values: Tensor, targets: tuple[Tensor, Tensor], value: float) -> None:
    """Put ``value`` where the targets are; without asking how many are in the chunk, which would stall a GPU."""
    column, inside = targets
    values.scatter_(1, column, values.gather(1, column).masked_fill_(inside, value))


def reciprocal(lengths: Tensor) -> Tensor:
    """1 over lengths; 0 where a vector is too short to have a direction."""
    return lengths.reciprocal().masked_fill_(lengths <= TINY, 0)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product of matrices in half precision, in float32 where the device can leave it so."""
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    return a @ b
