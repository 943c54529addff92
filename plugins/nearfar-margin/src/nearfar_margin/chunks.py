"""Classes in chunks: their weights, and the products of embeddings with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nearfar.nn.products import write_product
from nearfar.nn.vectors import TINY, unit
from nearfar_margin.declaration import Rows
from nearfar_margin.fused import FusedSGD, FusedStep
from nearfar_margin.sample import Sample
from nearfar_margin.shard import Shard

__all__ = ["NO_LOGIT", "Block", "Chunks", "overwrite", "reciprocal"]

#: Cosines in a chunk: about as many as stay in a cache, with the copies that products of matrices take.
CHUNK = 1 << 18
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
        The classes.
    weight
        (k, d) as they are; of a class with several vectors one after the other.
    inverse
        (k,) 1 over their length; None where lengths are left in.
    factor
        (k, d) the weights in the dtype of the products.
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
        (c, k, d), k vectors a class.
    labels
        (n,).
    dtype
        Of what is computed; float32 at least.
    products
        The dtype matrices are multiplied in, where it is another.
    width
        Classes a chunk.
    keep
        Whether cosines are kept for the backward pass.
    shard
        Where classes are spread over ranks, this rank's share; then ``weight`` holds that alone, and ``labels`` count
        from its first class.
    sample
        Where only some classes take part, these; then ``weight`` holds them alone, and ``labels`` are places in it.
    fused
        What steps the weight in the backward pass, in place of returning its gradient.
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
    times_weight_norm
        Whether N's values are multiplied with the length of the weight.
    steps
        How often what is fused had stepped the weight.
    gradient, step
        Of the weight, between the two backward passes: its gradient, or what steps it.
    """

    weight: Tensor
    labels: Tensor
    dtype: torch.dtype
    products: torch.dtype | None
    width: int
    keep: bool
    needs_weight: bool
    shard: Shard | None = None
    sample: Sample | None = None
    fused: FusedSGD | None = None
    unit: bool = True
    unit_weight: bool = True
    wants_lse: bool = True
    wants_total: bool = False
    others: Callable[[Tensor, Rows], Tensor] | None = None
    rows: Rows | None = None
    fields: list[str] = field(default_factory=list)
    learned: list[Tensor] = field(default_factory=list)
    detached: bool = False
    times_weight_norm: bool = False
    steps: int = 0
    gradient: Tensor | None = None
    step: FusedStep | None = None
    _rooms: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        embeddings: Tensor,
        weight: Tensor,
        labels: Tensor,
        budget: float,
        products: torch.dtype | None,
        shard: Shard | None = None,
        sample: Sample | None = None,
        fused: FusedSGD | None = None,
    ) -> Chunks:
        """The chunks of a call; cosines are kept where they take no more than ``budget`` bytes."""
        dtype = torch.promote_types(embeddings.dtype, weight.dtype)
        vectors = weight.detach() if weight.ndim == 3 else weight.detach()[:, None]
        n, (classes, k, _) = len(embeddings), vectors.shape
        narrow = products if dtype == torch.float32 and products != dtype else None
        differentiated = torch.is_grad_enabled() and (embeddings.requires_grad or weight.requires_grad)
        if sample is not None:
            labels = sample.places
        elif shard is not None:
            labels = labels - shard.start
        return cls(
            weight=vectors,
            labels=labels,
            shard=shard,
            sample=sample,
            fused=fused if differentiated and weight.requires_grad else None,
            steps=0 if fused is None else fused.steps,
            dtype=dtype,
            # Wider inputs were not meant to be multiplied in half precision.
            products=narrow,
            width=min(max(classes, 1), max(NARROWEST, CHUNK // max(n * k, 1))),
            needs_weight=weight.requires_grad,
            # Of several vectors a class the nearest would have to be kept as well.
            keep=differentiated and k == 1 and n * classes * dtype.itemsize <= budget,
        )

    def begin_step(self) -> None:
        """Start stepping the weight, where that is fused."""
        if self.fused is not None:
            self.fused.begin(self.steps)
            self.step = FusedStep(self.fused, self.labels, self.weight.shape)

    def num_classes(self) -> int:
        """How many classes take part, of all ranks."""
        if self.sample is not None:
            return self.sample.classes(self.shard)
        return len(self.weight) if self.shard is None else self.shard.num_classes

    def spans(self) -> Iterator[tuple[int, int]]:
        """The first class of each chunk, and that after its last."""
        for start in range(0, len(self.weight), self.width):
            yield start, min(start + self.width, len(self.weight))

    def room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        """Uninitialised room that serves every chunk: to touch new memory for the first time costs more than most of
        what is done with it.
        """
        room = self._rooms.get(name)
        if room is None:  # no chunk is wider than the first
            room = self._rooms[name] = self.weight.new_empty(math.prod(shape), dtype=dtype or self.dtype)
        return room[: math.prod(shape)].view(shape)

    def clear(self) -> None:
        """Give the rooms back, at the end of a loop over chunks."""
        self._rooms.clear()

    def block(self, start: int, stop: int) -> Block:
        """The weights of a chunk."""
        given = self.weight[start:stop].flatten(0, 1)
        weight = given.to(self.dtype)
        inverse = reciprocal(torch.linalg.vector_norm(weight, dim=1)) if self.unit_weight else None
        factor = weight
        if self.products is not None:
            factor = self.room("weight", weight.shape, self.products).copy_(given)
        return Block(start, stop, weight, inverse, factor)

    def left(self, x: Tensor) -> Tensor:
        """Embeddings in the dtype of the products."""
        return x if self.products is None else x.to(self.products)

    def multiply(self, left: Tensor, block: Block, out: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The cosines (n, k) to a chunk's classes, written to ``out`` or to a room; and where a class has several
        vectors, which of them a cosine is to, (n, k, vectors), as shares of 1.
        """
        c = self.room("cosines", (len(left), len(block.weight))) if out is None else out
        self.product(left, block.factor.T, "product", c)
        if block.inverse is not None:
            c.mul_(block.inverse)
        if self.weight.shape[1] == 1:
            return c, None
        return _nearest(c.view(len(left), block.stop - block.start, -1))

    def product(self, a: Tensor, b: Tensor, name: str, out: Tensor) -> Tensor:
        """The product of matrices in the dtype of the products, written to ``out``, by way of the room ``name``."""
        if self.products is None:
            return write_product(out, a, b)
        if a.device.type == "cuda":
            return out.copy_(torch.mm(a, b, out_dtype=torch.float32))
        return out.copy_(torch.mm(a, b, out=self.room(name, (len(a), b.shape[1]), self.products)))

    def targets(self, block: Block) -> tuple[Tensor, Tensor]:
        """For each sample a column of the chunk, and whether it is that of its own class: (n, 1) each."""
        column = self.labels - block.start
        inside = (column >= 0) & (column < block.stop - block.start)
        return column.clamp_(0, block.stop - block.start - 1)[:, None], inside[:, None]

    def own(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each sample the vectors of its class (n, k, d) and their lengths (n, k), the cosine to the nearest (n,),
        and which that is, (n, k) as shares of 1.

        From these rows alone: exact in float32 also where matrix products round their inputs. Of classes on other ranks
        vectors and shares are 0.
        """
        if self.shard is None:
            own = self.weight[self.labels].to(self.dtype)
        else:
            own = self.weight.new_zeros(len(x), *self.weight.shape[1:], dtype=self.dtype)
            if len(self.weight):
                theirs = ~self.mine()[:, None, None]
                own = self.weight[self.rows_of_mine()].to(self.dtype).masked_fill_(theirs, 0)
        if self.unit:
            own, length = unit(own, 2)
        else:
            length = own.new_ones(own.shape[:2])
        t, shares = _nearest((x[:, None] * own).sum(2)[:, None])
        t, shares = t.squeeze(1), shares.squeeze(1)
        if self.shard is not None:
            t, length = self.shard.sum(t.contiguous()), self.shard.sum(length)
            shares = shares * self.mine()[:, None]
        return own, length, t, shares

    def mine(self) -> Tensor:
        """Whether a sample's class is on this rank, (n,)."""
        return (self.labels >= 0) & (self.labels < len(self.weight))

    def rows_of_mine(self) -> Tensor:
        """The row of a sample's class, (n,); some other one where it is not on this rank."""
        return self.labels if self.shard is None else self.labels.clamp(0, len(self.weight) - 1)

    @torch.no_grad()
    def over_others(self, f: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> list[Tensor]:
        """The sums (n,) of functions of the cosines over the classes that are not a sample's own."""
        left = self.left(x)
        sums = [values.sum(1) for values in f(x.new_zeros(len(x), 0))]
        for start, stop in self.spans():
            block = self.block(start, stop)
            parts = f(self.multiply(left, block)[0])
            targets = self.targets(block)
            found = [self._summed(_without(values, targets), block) for values in parts]
            sums = [a + b for a, b in zip(sums, found, strict=True)]
        self.clear()
        return sums if self.shard is None else [self.shard.sum(each) for each in sums]

    def _summed(self, values: Tensor, block: Block) -> Tensor:
        """The sums over the classes of a chunk, or of what these stand for."""
        if self.sample is None:
            return values.sum(1)
        return values @ self.sample.stands_for[block.start : block.stop].to(values)


def overwrite(values: Tensor, targets: tuple[Tensor, Tensor], value: float) -> None:
    """Put ``value`` where the targets are; without asking how many are in the chunk, which would stall a GPU."""
    column, inside = targets
    values.scatter_(1, column, values.gather(1, column).masked_fill_(inside, value))


def _without(values: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
    """A copy, 0 where the targets are."""
    values = values.clone()
    overwrite(values, targets, 0)
    return values


def _nearest(c: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest of the cosines (n, k, vectors), and which it is; of several equal ones each has its share of 1."""
    if c.shape[2] == 1:
        return c[:, :, 0], torch.ones_like(c)
    nearest = c.amax(2)
    shares = (c == nearest[:, :, None]).to(c.dtype)
    return nearest, shares.div_(shares.sum(2, keepdim=True))


def reciprocal(lengths: Tensor) -> Tensor:
    """1 over lengths; 0 where a vector is too short to have a direction."""
    return lengths.reciprocal().masked_fill_(lengths <= TINY, 0)
