"""What the backward pass over chunks of classes computes of each, and sums up."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn.memory import gradient_like
from nearfar.nn.products import add_product
from nearfar_margin.chunks import Block, Chunks
from nearfar_margin.closure import with_fields
from nearfar_margin.shard import chunk_gradients

__all__ = ["Changed", "Gradients"]


class Gradients:
    """The gradients of the embeddings, the weight and the bias, a chunk at a time.

    Parameters
    ----------
    chunks
        The call.
    left, narrow
        (n, d) the embeddings as they were given, and in the dtype of the products.
    bias
        (c,), or None.
    """

    def __init__(self, chunks: Chunks, left: Tensor, narrow: Tensor, bias: Tensor | None) -> None:
        self.left = torch.zeros_like(left)
        self.bias = None if bias is None else torch.empty_like(bias)
        kept = chunks.needs_weight and chunks.fused is None
        self.weight = gradient_like(chunks.weight) if kept else None
        self._chunks, self._narrow = chunks, narrow

    def add(self, block: Block, g: Tensor, c: Tensor, shares: Tensor | None, to_lengths: Tensor | None = None) -> None:
        """A chunk's share.

        ``g`` (n, k) is the gradient of its cosines ``c``, and is written to; ``to_lengths`` (k,) that of the lengths of
        its weights; ``shares`` (n, k, vectors) says which of a class's vectors a cosine is to.
        """
        chunks = self._chunks
        if self.bias is not None:
            self.bias[block.start : block.stop] = g.sum(0)
        radial = None
        if block.inverse is not None and chunks.needs_weight:
            radial = torch.mul(g, c, out=chunks.room("cosines", g.shape))
        if shares is not None:
            g = (g[:, :, None] * shares).flatten(1)
            radial = None if radial is None else (radial[:, :, None] * shares).flatten(1)
        along = None if radial is None else radial.sum(0)
        if block.inverse is not None:
            g = g.mul_(block.inverse)
        narrow = g
        if chunks.products is None:
            add_product(self.left, g, block.weight)
        else:
            narrow = chunks.room("product", g.shape, chunks.products).copy_(g)
            to_left = chunks.room("to embeddings", self.left.shape)
            self.left += chunks.product(narrow, block.factor, "to embeddings, narrow", to_left)
        if chunks.needs_weight:
            share = self._share(block)
            found = share if share.dtype == g.dtype else torch.empty_like(block.weight)
            chunks.product(narrow.T, self._narrow, "weight", found)
            if along is not None and block.inverse is not None:
                radius = -along * block.inverse if to_lengths is None else to_lengths - along * block.inverse
                found.addcmul_(block.weight, (radius * block.inverse)[:, None])
            if found is not share:
                share.copy_(found)
            if chunks.step is not None:
                chunks.step.chunk(block.start, block.stop, share)

    def _share(self, block: Block) -> Tensor:
        """Where the gradient of a chunk's weights is written to, (k, d)."""
        if self.weight is None:
            return self._chunks.room("gradient", block.weight.shape, self._chunks.weight.dtype)
        return self.weight[block.start : block.stop].flatten(0, 1)


class Changed:
    """The logits of a chunk whose cosines N changes, and the way back through it.

    Parameters
    ----------
    chunks
        The call; N is its ``others``.
    factor
        What the values of N are multiplied with, a number or (n, 1).
    given
        The tensors that N is differentiated with: the fields of the rows, then what is learned. None where there is no
        way back.
    """

    def __init__(self, chunks: Chunks, factor: Tensor | float | None, given: list[Tensor] | None) -> None:
        assert chunks.others is not None
        assert chunks.rows is not None
        assert factor is not None
        self._others, self._rows, self._factor = chunks.others, chunks.rows, factor
        self._times_weight_norm = chunks.times_weight_norm
        self._differentiated = given is not None and not chunks.detached
        self.factor = torch.zeros_like(factor) if isinstance(factor, Tensor) else None
        self.given = [torch.zeros_like(each) for each in given or ()]
        if given:
            leaves = (each.detach().requires_grad_() for each in given)
            fields = dict(zip(chunks.fields, leaves, strict=False))
            self._rows = with_fields(chunks.rows, fields)
            # What is learned is named by itself, not by what was saved of it: the graph of N knows no other.
            self._inputs = [*fields.values(), *chunks.learned]
        else:
            self._inputs = []

    def forward(self, c: Tensor, block: Block) -> Tensor:
        """The logits (n, k) of the cosines of a chunk."""
        self._lengths = torch.linalg.vector_norm(block.weight, dim=1) if self._times_weight_norm else None
        with torch.set_grad_enabled(self._differentiated):
            self._c = c.detach().requires_grad_(self._differentiated)
            self._n = self._others(self._c, self._rows)
        z = self._n.detach() * self._factor
        return z if self._lengths is None else z * self._lengths

    def backward(self, g: Tensor) -> tuple[Tensor, Tensor | None]:
        """From the gradient (n, k) of the logits to that of the cosines, and of the lengths (k,) if they are in it."""
        n, to_lengths = self._n.detach(), None
        if self.factor is not None:
            self.factor += (g * n if self._lengths is None else g * n * self._lengths).sum(1, keepdim=True)
        g = g * self._factor
        if self._lengths is not None:
            to_lengths = (g * n).sum(0)
            g = g * self._lengths
        if not self._differentiated:
            return g, to_lengths
        if not self._n.requires_grad:
            return torch.zeros_like(g), to_lengths
        with chunk_gradients():
            found, *others = torch.autograd.grad(self._n, [self._c, *self._inputs], g, allow_unused=True)
        for total, share in zip(self.given, others, strict=True):
            if share is None:
                raise InputError(
                    "the chunked engine differentiates others(c, rows) in the backward pass, and finds that it uses "
                    "other parameters than in the forward pass; leave them in place, or use engine='plain'"
                )
            total += share
        return torch.zeros_like(g) if found is None else found, to_lengths
