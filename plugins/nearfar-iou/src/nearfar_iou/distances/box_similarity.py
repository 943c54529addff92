"""The base of similarities of boxes: tables in pieces, and gradients in closed form."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.nn import Distance
from nearfar.nn.arguments import check_choice
from nearfar.nn.closed_form import refuse_second_derivative
from nearfar.nn.precision import full_precision
from nearfar_iou.box_loss import BoxLoss
from nearfar_iou.boxes import BOX_FORMATS, frame, to_coordinates
from nearfar_iou.compiled import tier
from nearfar_iou.corners import Corners, Formula
from nearfar_iou.geometry import Pairs
from nearfar_iou.pieces import pieces

__all__ = ["BoxSimilarity", "PairSimilarity", "check_finite_set", "check_set", "each_with_each", "tiles"]

#: Pairs a piece: fewer, and calling torch costs more than computing; more, and the cache overflows.
PIECE = 32768
#: Pairs a piece where each is laid out by itself, of which some tens of numbers are kept at once.
LAID_OUT = 8192
#: The most columns of a piece.
COLUMNS = 4096
#: How many times as many a GPU takes at once, for which a piece is a kernel's launch rather than a cache.
ON_A_GPU = 16


class PairSimilarity(Distance):
    """A similarity of rows, computed in pieces with its gradient; a subclass writes :meth:`table` and :meth:`slopes`.

    Larger is nearer. Called as ``similarity(boxes, others)`` it gives the table (n, m) of all pairs, of which no more
    than itself and some small pieces is ever in memory; ``similarity.pairwise_distance(boxes, others)`` compares row by
    row. Both have a gradient, which is computed when it is asked for, and cannot be differentiated again.
    """

    is_inverted = True
    #: How many numbers a row has.
    width: int = 4
    #: The least that a similarity can be; the greatest is 1.
    lowest: float = 0.0

    def __init__(self) -> None:
        super().__init__(normalize=False)

    @abstractmethod
    def table(self, query: Tensor, reference: Tensor, out: Tensor) -> None:
        """Write the similarities of every row of ``query`` (width, n) to every one of ``reference`` (width, m)."""

    @abstractmethod
    def slopes(self, query: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Similarities (k,) of rows (width, k), and their derivatives by both, (width, k) each."""

    def prepare(self, rows: Tensor) -> Tensor:
        """What :meth:`table` and :meth:`slopes` compare, from rows (n, width): (width, n)."""
        return rows.t().contiguous()

    def restore(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """Derivatives by rows (n, width), from those by what they were prepared as, (width, n)."""
        return gradient.t()

    def forward(self, query_emb: Tensor, ref_emb: Tensor | None = None) -> Tensor:
        reference = query_emb if ref_emb is None else ref_emb
        query, reference = check_set(query_emb, self.width), check_set(reference, self.width)
        dtype = torch.promote_types(query.dtype, reference.dtype)
        with full_precision(query):
            return self.matrix(query.to(dtype), reference.to(dtype))

    def matrix(self, query: Tensor, reference: Tensor) -> Tensor:
        matrix: Tensor = _Table.apply(query, reference, self)
        return matrix

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        query, reference = check_set(query_emb, self.width), check_set(ref_emb, self.width)
        if query.shape != reference.shape:
            raise InputError(
                f"row by row two sets of as many boxes are compared; got {tuple(query.shape)} and "
                f"{tuple(reference.shape)}"
            )
        dtype = torch.promote_types(query.dtype, reference.dtype)
        with full_precision(query):
            return self.pairwise(query.to(dtype), reference.to(dtype))

    def pairwise(self, query: Tensor, reference: Tensor) -> Tensor:
        aligned: Tensor = _Aligned.apply(query, reference, self)
        return aligned

    def extra_repr(self) -> str:
        return ""


class BoxSimilarity(PairSimilarity):
    """1 − a loss on boxes, (n, 4), for every pair; a subclass names both the loss and the :attr:`formula` of corners.

    An inverted side counts as one of length 0 at its midpoint. Boxes without extent along an axis are equal along it
    where they lie at the same place: a box that is a point is as near to itself as any.

    Parameters
    ----------
    box_format : str
        ``"xyxy"`` (two corners), ``"xywh"`` (lower corner and sides), ``"cxcywh"`` (centre and sides) or ``"ltrb"``
        (how far it reaches to the left, the top, the right and the bottom of a point that all boxes share).

    Raises
    ------
    ArgumentError
        ``box_format`` is unknown.
    """

    def __init__(self, *, box_format: Literal["xyxy", "xywh", "cxcywh", "ltrb"] = "xyxy") -> None:
        super().__init__()
        self.box_format = check_choice(self, "box_format", box_format, BOX_FORMATS)

    @abstractmethod
    def formula(self) -> Formula:
        """The similarity of plain boxes."""

    @abstractmethod
    def loss(self) -> BoxLoss:
        """The loss that the similarity is 1 less than, for proper boxes."""

    def inverted(self, rows: Tensor) -> Tensor:
        """(2, n) boolean: along which axis each of the boxes (n, 4) ends before it starts."""
        low, high = frame(rows, rows, self.box_format)[:, 1].chunk(2)
        return low + high < 0

    def prepare(self, rows: Tensor) -> Tensor:
        extents = frame(rows, rows, self.box_format)[:, 1].contiguous()
        low, high = extents[:2], extents[2:]
        middle = (high - low) / 2
        inverted = low + high < 0
        return torch.cat((torch.where(inverted, -middle, low), torch.where(inverted, middle, high)))

    def restore(self, gradient: Tensor, rows: Tensor) -> Tensor:
        turned = (gradient[2:] - gradient[:2]) / 2
        by_extents = torch.where(self.inverted(rows).repeat(2, 1), torch.cat((-turned, turned)), gradient)
        return to_coordinates(by_extents, self.box_format).t()

    def table(self, query: Tensor, reference: Tensor, out: Tensor) -> None:
        a, b = (Corners.of(torch.cat((-each[:2], each[2:]))) for each in (query, reference))
        # On a GPU to ask would be to wait.
        if out.device.type == "cpu" and a.are_plain() and b.are_plain():
            formula = self.formula()
            if _is_filled(formula, a, b, out):
                return
            for rows, columns in tiles(out, PIECE):
                out[rows, columns] = formula(a.rows(rows), b.columns(columns))
            return
        loss = self.loss()
        for rows, columns in tiles(out, LAID_OUT):
            value, _ = loss.measure(_pairs(*each_with_each(query[:, rows], reference[:, columns])), slopes=False)
            part = out[rows, columns]
            part.copy_(value.neg_().add_(1).view(part.shape))

    def slopes(self, query: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pairs = _pairs(query, reference)
        value, slopes = self.loss().measure(pairs, slopes=True)
        assert slopes is not None
        by_query, by_reference = pairs.gradients(slopes)
        return 1 - value, -by_query, -by_reference

    def extra_repr(self) -> str:
        return f"box_format={self.box_format!r}"


def check_set(boxes: Tensor, width: int = 4, name: str = "boxes") -> Tensor:
    """Boxes (n, width) in float32 or float64.

    Raises
    ------
    InputError
        They are none.
    """
    if not isinstance(boxes, Tensor):
        raise InputError(f"{name} must be a tensor of boxes (n, {width}); got {type(boxes).__name__}")
    if boxes.ndim != 2 or boxes.shape[1] != width:
        raise InputError(f"{name} must be of shape (n, {width}), one box a row; got {tuple(boxes.shape)}")
    if boxes.is_complex() or boxes.dtype == torch.bool:
        raise InputError(f"{name} must hold real numbers; got {boxes.dtype}")
    return boxes if boxes.dtype == torch.float64 else boxes.float()


def check_finite_set(boxes: Tensor, width: int = 4, name: str = "boxes") -> Tensor:
    """What :func:`check_set` gives, where each coordinate is finite: else a similarity to any other is no number.

    Raises
    ------
    InputError
        They are none, or a coordinate is not finite; for this a GPU is waited for.
    """
    boxes = check_set(boxes, width, name)
    if not bool(boxes.isfinite().all()):
        raise InputError(f"{name} hold what is no finite number, so there is no telling what they are near")
    return boxes


def tiles(table: Tensor, piece: int) -> Iterator[tuple[slice, slice]]:
    """Tiles of a table (n, m), of about so many pairs each; more on a GPU."""
    rows, columns = table.shape
    piece *= 1 if table.device.type == "cpu" else ON_A_GPU
    wide = max(1, min(columns, COLUMNS, piece))
    high = max(1, piece // wide)
    for top in range(0, rows, high):
        for left in range(0, columns, wide):
            yield slice(top, min(top + high, rows)), slice(left, min(left + wide, columns))


def _is_filled(formula: Formula, query: Corners, reference: Corners, out: Tensor) -> bool:
    """Whether a compiled kernel has written the table."""
    if not tier.fits(query.x1, reference.x1, out):
        return False
    from nearfar_iou.compiled.tables import table  # it needs numba

    fill = table(formula.__name__, out.dtype == torch.float64)
    if fill is None:
        return False
    one, other = (torch.stack((*each, each.angle)) for each in (query, reference))
    fill(one.data_ptr(), other.data_ptr(), out.data_ptr(), *out.shape)
    return True


def each_with_each(query: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Every column of (k, n) beside every one of (k, m): (k, n · m) each."""
    shape = (len(query), query.shape[1], reference.shape[1])
    return query[:, :, None].expand(shape).flatten(1), reference[:, None].expand(shape).flatten(1)


def _pairs(query: Tensor, reference: Tensor) -> Pairs:
    """Pairs of extents (4, k) none of which is inverted."""
    made = query.new_empty(4, 4, query.shape[1])
    made[:, 1], made[:, 2] = query, reference
    return Pairs(made, both=True, have_extent=False)


class _Table(torch.autograd.Function):
    """Similarities (n, m) of rows (n, width) and (m, width)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, reference: Tensor, similarity: PairSimilarity) -> Tensor:
        ctx.similarity = similarity
        ctx.save_for_backward(query, reference)
        out = query.new_empty(len(query), len(reference))
        with torch.inference_mode():
            similarity.table(similarity.prepare(query), similarity.prepare(reference), out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        refuse_second_derivative()
        similarity: PairSimilarity = ctx.similarity
        query, reference = ctx.saved_tensors
        first, second = similarity.prepare(query), similarity.prepare(reference)
        by_query, by_reference = torch.zeros_like(first), torch.zeros_like(second)
        for rows, columns in tiles(grad, LAID_OUT):
            weight = grad[rows, columns]
            _, one, other = similarity.slopes(*each_with_each(first[:, rows], second[:, columns]))
            shape = (len(one), *weight.shape)
            by_query[:, rows] += (one.view(shape) * weight).sum(2)
            by_reference[:, columns] += (other.view(shape) * weight).sum(1)
        return similarity.restore(by_query, query), similarity.restore(by_reference, reference), None


class _Aligned(torch.autograd.Function):
    """Similarities (n,) of rows (n, width), each with the same row of the other set."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, reference: Tensor, similarity: PairSimilarity) -> Tensor:
        ctx.similarity = similarity
        ctx.save_for_backward(query, reference)
        out = query.new_empty(len(query))
        first, second = similarity.prepare(query), similarity.prepare(reference)
        for part in pieces(len(query), query.device, LAID_OUT):
            out[part], _, _ = similarity.slopes(first[:, part], second[:, part])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        refuse_second_derivative()
        similarity: PairSimilarity = ctx.similarity
        query, reference = ctx.saved_tensors
        first, second = similarity.prepare(query), similarity.prepare(reference)
        by_query, by_reference = torch.empty_like(first), torch.empty_like(second)
        for part in pieces(len(query), query.device, LAID_OUT):
            _, one, other = similarity.slopes(first[:, part], second[:, part])
            by_query[:, part], by_reference[:, part] = one * grad[part], other * grad[part]
        return similarity.restore(by_query, query), similarity.restore(by_reference, reference), None
