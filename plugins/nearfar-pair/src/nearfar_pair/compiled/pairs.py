"""Costs of pairs by kernels: their sums first, their slopes when these are asked for."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nearfar.nn.precision import in_full_precision
from nearfar_pair.compiled.work import Compared, Gradients, Work, is_batched
from nearfar_pair.sloped import Found, Sloped, is_not_asked

__all__ = ["PairLoop"]

#: Flags of the kernel of slopes: the distances are made, and lines have something to learn.
MADE, LEARNS = 1, 2
#: Up to so many distances they are kept for the backward pass.
KEPT = 2**20


class PairLoop(NamedTuple):
    """Kernels for costs that are a function of a line of the distance, the same line for all pairs of a side.

    Attributes
    ----------
    link
        Which function, as kernels have it.
    lines
        Of what is learned, the slope and offset of the lines of the positives and of the negatives.
    by_learned
        Of the gradients by these, those by what is learned.
    learned
        () each.
    """

    link: int
    lines: Callable[..., tuple[tuple[Any, Any], tuple[Any, Any]]]
    by_learned: Callable[..., tuple[Any, ...]]
    learned: tuple[Tensor, ...]

    @property
    def kernels(self) -> tuple[str, ...]:
        return "pairs", "pair_slopes"

    def run(self, work: Work) -> tuple[tuple[Tensor, ...], Sequence[Tensor]]:
        counts: list[int] = []
        work.keep_classes()
        sums: tuple[Tensor, ...] = _Sums.apply(self, work, counts, len(work.given), *work.given, *self.learned)
        torch_ = work.torch
        assert torch_ is not None
        others = (
            lambda: torch.tensor(counts[0]),
            lambda: torch.tensor(counts[1]),
            lambda: torch_.sides().num_positives,
            lambda: torch_.sides().num_negatives,
        )
        return sums, Found(Sloped(sums, others, is_not_asked))


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loop: PairLoop, work: Work, counts: list[int], ends: int, *inputs: Tensor) -> Any:
        compared = Compared(work, inputs[:ends])
        ctx.lines = lines = [float(number) for line in loop.lines(*inputs[ends:]) for number in line]
        found = (ctypes.c_double * 4)()
        # What is not too much is kept: a second product costs more than its memory.
        keeps = compared.n * compared.m <= KEPT and any(ctx.needs_input_grad)
        made: list[Tensor] = []
        for anchors, p in _rows(compared, None if keeps else compared.buffer()):
            compared.products(anchors, p)
            compared.call("pairs", p, found, *lines, *_size(compared, anchors, p), loop.link)
            if keeps:
                made.append(p)
        # Of a batch with itself each pair was looked at once, and is two.
        near, far, *costly = (2 * each if work.is_self else each for each in found)
        counts[:] = map(int, costly)
        ctx.loop, ctx.compared, ctx.ends, ctx.made = loop, compared, ends, made
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        return inputs[0].new_tensor(near), inputs[0].new_tensor(far)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, *by: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if all(g is None for g in by):
            return (None,) * (4 + len(inputs))
        if torch.is_grad_enabled():
            return None, None, None, None, *ctx.compared.work.again(inputs, by)
        return None, None, None, None, *_gradients(ctx, inputs, by)


def _gradients(ctx: Any, inputs: tuple[Tensor, ...], by: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """The gradients by the inputs."""
    if not any(is_batched(g) for g in by):
        return _pulled(ctx, inputs, *(0.0 if g is None else g.item() for g in by))
    # Several at once, of which none is a number.
    near, far = (0.0 if g is None else g for g in by)
    sides = (_pulled(ctx, inputs, *numbers) for numbers in ((1.0, 0.0), (0.0, 1.0)))
    return [x if x is None or y is None else x * near + y * far for x, y in zip(*sides, strict=True)]


def _pulled(ctx: Any, inputs: tuple[Tensor, ...], by_near: float, by_far: float) -> list[Tensor | None]:
    """The gradients by the inputs, of those by the sums of the positives' costs and of the negatives'."""
    loop, compared, ends = ctx.loop, ctx.compared, ctx.ends
    twice = 2 if compared.work.is_self else 1
    gradients, found = Gradients(compared), (ctypes.c_double * 4)()
    learns = any(ctx.needs_input_grad[4 + ends :])
    more = (MADE if ctx.made else 0) | (LEARNS if learns else 0)
    of = gradients.of_x.data_ptr(), gradients.of_y.data_ptr(), more
    for turn, (anchors, p) in enumerate(_rows(compared, compared.buffer())):
        d = ctx.made[turn] if ctx.made else compared.products(anchors, p)
        by = twice * by_near, twice * by_far, p.data_ptr()
        compared.call("pair_slopes", d, found, *ctx.lines, *_size(compared, anchors, p), loop.link, *by, *of)
        gradients.add(anchors, p)
    learned: list[Tensor | None] = [None] * len(inputs[ends:])
    if learns:
        by_learned = loop.by_learned((found[0], found[1]), (found[2], found[3]))
        learned = [inputs[0].new_tensor(float(g)) for g in by_learned]
    return [*gradients.finished(), *learned]


def _rows(compared: Compared, buffer: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """A few anchors after another, and room for their distances, in a buffer or new.

    Of a batch with itself these are distances to what is up to the last of the anchors.
    """
    for anchors in compared.chunks():
        width = anchors.stop if compared.work.is_self else compared.m
        count = anchors.stop - anchors.start
        if buffer is None:
            yield anchors, compared.x.new_empty(count, width)
        else:
            yield anchors, buffer.view(-1)[: count * width].view(count, width) if width < compared.m else buffer[:count]


def _size(compared: Compared, anchors: slice, p: Tensor) -> tuple[int, ...]:
    """What kernels are told of rows."""
    return anchors.start, *p.shape, compared.dim, compared.work.is_self, compared.kind
