"""What a pass by kernels is of, and the calls of these: tensors by the addresses of their memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.products import add_product, minus_product
from nearfar_pair.again import again
from nearfar_pair.compiled.tier import kernel
from nearfar_pair.few_rows import slices_of
from nearfar_pair.points import Points
from nearfar_pair.row_distance import RowDistance
from nearfar_pair.row_plan import Plan
from nearfar_pair.sides import Sides

__all__ = ["ROOT", "SQUARED", "ByTorch", "Compared", "Gradients", "Work", "is_batched"]

#: How products become distances, as kernels have it.
SIMILARITY, SQUARED, ROOT = 0, 1, 2


class ByTorch(Protocol):
    """A pass by torch, for what kernels do not give."""

    def sides(self) -> Sides:
        """Who is a positive and who a negative."""

    def plan(self) -> Plan:
        """What it does, of embeddings as they were given: for second derivatives."""

    def outputs(self) -> tuple[Tensor, ...]:
        """All outputs."""


class Work:
    """A batch, what it is compared by, and how torch would compute the same.

    Parameters
    ----------
    batch, distance
        As :func:`~nearfar_pair.compiled.tier.fits` says.
    torch
        The same pass by torch; None where nobody asks it.
    """

    def __init__(self, batch: Batch, distance: Any, torch: ByTorch | None = None) -> None:
        assert batch.labels is not None
        assert batch.reference_labels is not None
        self.distance, self.torch, self.is_self = distance, torch, batch.is_self
        self.own = batch.labels.contiguous()
        self.classes = self.own if batch.is_self else batch.reference_labels.contiguous()
        #: The embeddings, and the reference where it is another.
        self.given = (batch.embeddings,) if batch.is_self else (batch.embeddings, _to_save(batch.reference))

    def keep_classes(self) -> None:
        """Have class ids of its own: nobody minds when theirs are written to before the backward pass."""
        same = self.own is self.classes
        self.own = self.own.clone()
        self.classes = self.own if same else self.classes.clone()

    def again(self, inputs: tuple[Tensor, ...], by: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        """The gradients by the embeddings, the reference where it is another, and parameters, of those by the sums, as
        torch differentiates once more."""
        assert self.torch is not None
        sums = self.torch.plan().differentiable_sums
        if not self.is_self:
            return again(sums, inputs, by)
        first, _, *others = again(sums, (inputs[0], None, *inputs[1:]), by)
        return first, *others


def _to_save(reference: Tensor) -> Tensor:
    """What a backward pass may be asked of: one that was made in inference mode, as a memory of embeddings, copied."""
    return reference.clone() if reference.is_inference() and not torch.is_inference_mode_enabled() else reference


def is_batched(tensor: Tensor | None) -> bool:
    """Whether it stands for several, as gradients do that are taken at once."""
    if tensor is None or torch.compiler.is_compiling():
        return False
    asked = (getattr(torch._C._functorch, name, None) for name in ("is_batchedtensor", "is_legacy_batchedtensor"))
    return any(ask is not None and ask(tensor) for ask in asked)


class Compared:
    """The points of a pass, and kernels over them."""

    def __init__(self, work: Work, given: tuple[Tensor, ...]) -> None:
        self.work = work
        self.ends = ends = [_End(x, normalize=work.distance.normalize_embeddings) for x in given]
        self.x, self.y = x, y = ends[0].points, ends[-1].points
        self._distance = distance = RowDistance(work.distance, x, y)
        (self.n, self.dim), self.m = x.shape, y.shape[0]
        self.kind = SIMILARITY if work.distance.is_inverted else ROOT if distance.has_root else SQUARED
        self._told = work.own, work.classes, ends[0].squares, ends[-1].squares, x, y

    def chunks(self) -> Iterator[slice]:
        """A few anchors after another."""
        return slices_of(self.n, self.m, self.x.device)

    def buffer(self) -> Tensor:
        """(r, m) for the rows of a few anchors."""
        first = next(self.chunks())
        room: Tensor = self.x.new_empty(first.stop - first.start, self.m)
        return room

    def products(self, anchors: slice, out: Tensor) -> Tensor:
        """(r, m) inner products of these anchors, in ``out``; with as many references, the first, as that is wide."""
        made: Tensor = self._distance.products(anchors, out)
        return made

    def call(self, name: str, p: Tensor, *arguments: Any) -> None:
        """Call a kernel with these products, all points, and what else it takes."""
        kernel(name)(p.data_ptr(), *[each.data_ptr() for each in self._told], *arguments)

    def each_row(self, name: str, p: Tensor, anchors: slice, outputs: tuple[Tensor, ...], *arguments: Any) -> None:
        """Call a kernel for each of these anchors.

        One thread does it: another of Python's would have to wait for those of OpenMP, which spin after a product.
        """
        pointers = (each.data_ptr() for each in outputs)
        size = anchors.start, anchors.stop, self.m, self.dim, self.work.is_self, self.kind
        self.call(name, p, *pointers, *size, *arguments)


class _End:
    """Points as they are compared: at length one where that is asked for, which torch sees to where some have none."""

    def __init__(self, given: Tensor, *, normalize: bool) -> None:
        given = given.contiguous()
        (n, dim), told = given.shape, ctypes.c_int64()
        self._normalize = normalize
        self._by_torch: Points | None = None
        self.points = torch.empty_like(given) if normalize else given
        self.lengths, self.squares = given.new_empty(2, n)
        written = given, self.points, self.lengths, self.squares
        kernel("units")(*(each.data_ptr() for each in written), ctypes.byref(told), n, dim, normalize)
        if not told.value:
            self._by_torch = Points(given, normalize=True)
            self.points = self._by_torch.points
            self.squares = self.points.square().sum(1)

    def back(self, by_points: Tensor, of_points: Tensor | None) -> Tensor:
        """The gradient by what was given, of that by the points and what these are to be multiplied with; in place."""
        by_points = by_points.contiguous()  # a product may lie in memory column by column
        adds, normalize = of_points is not None, self._normalize and self._by_torch is None
        told = by_points, self.squares if of_points is None else of_points, self.points, self.lengths
        kernel("finish")(*(each.data_ptr() for each in told), *by_points.shape, adds, normalize)
        return by_points if self._by_torch is None else self._by_torch.back(by_points)


class Gradients:
    """Gradients of the points as they are added up, of slopes by half the squared distance or the negated similarity.

    Attributes
    ----------
    of_x, of_y
        (n,) and (m,) the sums of the slopes of each, which kernels make; of a batch with itself they are one.
    """

    def __init__(self, compared: Compared) -> None:
        self._compared = compared
        self._by: list[Tensor] = []
        self._turned: list[Tensor] = []
        self.of_x = compared.x.new_zeros(compared.n)
        self.of_y = self.of_x if compared.work.is_self else compared.x.new_zeros(compared.m)

    def add(self, anchors: slice, slopes: Tensor) -> None:
        """Add what comes of the slopes (r, w) of these anchors by the first w references."""
        compared = self._compared
        # Of a small batch each view is a share of the whole.
        if slopes.shape[0] == compared.n and slopes.shape[1] == compared.m:
            self._by = [minus_product(None, slopes, compared.y)]
            if compared.work.is_self:
                add_product(self._by[0], slopes.T, compared.x, alpha=-1)
            else:
                self._by.append(minus_product(None, slopes.T, compared.x))
            return
        width = slopes.shape[1]
        x, y = compared.x[anchors], compared.y[:width]
        if not self._by:
            self._by = [torch.zeros_like(end.points) for end in compared.ends]
            self._turned = [compared.y.new_zeros(compared.dim, compared.m)]
        add_product(self._by[0][anchors], slopes, y, alpha=-1)
        # Turned round, as slopes that are read by columns would be copied as a whole.
        add_product(self._turned[0][:, :width], x.T, slopes, alpha=-1)

    def finished(self) -> list[Tensor]:
        """Those by the embeddings and by the reference where it is another, as they were given."""
        for turned in self._turned:
            self._by[-1] += turned.T
        of = (None, None) if self._compared.kind == SIMILARITY else (self.of_x, self.of_y)
        return [end.back(by, of_end) for end, by, of_end in zip(self._compared.ends, self._by, of, strict=False)]
