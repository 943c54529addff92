"""Distances of a few anchors to every reference, and the gradient of the embeddings from that of the distances.

The distances are those of :mod:`nearfar.nn.distances`, a similarity negated, of embeddings that are normalised already
where that was asked for. Only two buffers of the size of the rows are written.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.nn.distances import Cosine, Distance, Dot, Euclidean, SquaredEuclidean
from nearfar.nn.products import add_product, minus_product, write_product
from nearfar_pair.few_rows import parts
from nearfar_pair.once import once
from nearfar_pair.sides import FAR, Rows

__all__ = ["RowDistance", "row_distance"]

#: A squared distance below this share of the squared lengths has lost three digits and more; as the distances have it.
NEAR = 1e-3
#: How many rows of products are newly made at a time: memory that is asked for costs more than what is done with it.
PART = 128


class RowDistance:
    """A distance, by rows.

    Parameters
    ----------
    distance
        One of nearfar's own.
    query, reference
        (n, d) and (m, d), which nothing here is differentiated by; the same tensor where a batch is compared with
        itself.
    """

    def __init__(self, distance: Distance, query: Tensor, reference: Tensor) -> None:
        self._query, self._reference = query, reference
        #: How many references there are.
        self.width = reference.shape[0]
        self._is_self = query is reference
        self._is_similarity = distance.is_inverted
        #: Whether distances are roots, so that their gradient has them.
        self.has_root = isinstance(distance, Euclidean)
        #: Whether two points may be one of the distances that were made last.
        self._has_near = True
        self._is_normalized = distance.normalize_embeddings

    @once
    def _squares(self) -> Tensor:
        return self._reference.square().sum(1)

    @once
    def _query_squares(self) -> Tensor:
        return self._squares if self._is_self else self._query.square().sum(1)

    @once
    def _near(self) -> float | Tensor:
        """Above this no squared distance has lost digits: of what is normalised no sum of two squares is larger."""
        return 3 * NEAR if self._is_normalized else NEAR * (self._squares.max() + self._query_squares.max())

    def rows(self, anchors: slice, out: Tensor) -> Tensor:
        """(r, m) distances of these anchors, in ``out``; that of an anchor to itself may be anything finite."""
        # Of a small batch a view of all is a share of the whole.
        query = self._query if out.shape[0] == self._query.shape[0] else self._query[anchors]
        if self._is_similarity:
            return self._write(out, query, -1)
        self._write(out, query, -2, plus=self._squares)
        out += self._query_squares[anchors, None]
        if self._is_self:
            out.diagonal(anchors.start).fill_(FAR)
        # On a GPU asking whether there are any would stall the stream.
        self._has_near = out.device.type != "cpu" or not out.amin().item() > self._near
        if self._has_near:
            if out.device.type == "cpu":
                self._mend_near(out, anchors)
            out.clamp_min_(0)
        return out.sqrt_() if self.has_root else out

    def products(self, anchors: slice, out: Tensor) -> Tensor:
        """(r, m) inner products of these anchors, in ``out``; with as many references, the first, as that is wide."""
        reference = self._reference if out.shape[1] == self.width else self._reference[: out.shape[1]]
        query = self._query if out.shape[0] == self._query.shape[0] else self._query[anchors]
        return self._write(out, query, 1, reference=reference)

    def whole(self) -> Tensor:
        """(n, m) distances of all, as :meth:`rows` gives them."""
        n = self._query.shape[0]
        return self.rows(slice(0, n), self._query.new_empty(n, self.width))

    def _write(
        self, out: Tensor, query: Tensor, alpha: float, plus: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor:
        """Write so many times the products to ``out``, and what is added to each row."""
        reference = self._reference if reference is None else reference
        if len(query) <= PART:
            return write_product(out, query, reference.T, alpha=alpha, plus=plus)
        for part in parts(len(query), PART):
            write_product(out[part], query[part], reference.T, alpha=alpha, plus=plus)
        return out

    def _mend_near(self, square: Tensor, anchors: slice) -> None:
        """Take squared distances that cancellation has spoiled from the differences themselves."""
        near = square < NEAR * (self._query_squares[anchors, None] + self._squares)
        rows, columns = near.nonzero(as_tuple=True)
        query = self._query[anchors]
        for start in range(0, len(rows), 2**14):
            i, j = rows[start : start + 2**14], columns[start : start + 2**14]
            square[i, j] = (query[i] - self._reference[j]).square().sum(1)

    def pull(self, rows: Rows, by_ap: Tensor | None, by_an: Tensor | None, gradients: Gradients) -> None:
        """Add to the gradients of the embeddings what comes of those of the distances that were made last.

        Parameters
        ----------
        rows
            Of the distances.
        by_ap, by_an
            (r, k) and (r, m) gradients of :attr:`Rows.d_ap` and :attr:`Rows.d_an`, zero where these are far; written
            to. None for zeros.
        gradients
            What is added to.
        """
        query, to_query = self._query[rows.anchors], gradients.query[rows.anchors]
        factor = 1 if self._is_similarity or self.has_root else 2
        if by_ap is not None:
            by_ap = by_ap.masked_fill(~rows.valid, 0)
            if self.has_root:
                by_ap = self._over(by_ap, rows.d_ap)
            # Few positives are gathered; many are as cheap as all references.
            if by_an is None and by_ap.shape[1] * query.shape[1] <= len(self._reference):
                self._pull_few(rows.positives, by_ap, query, to_query, gradients, factor)
                return
        if by_an is None:
            weight = torch.zeros_like(rows.d_an)
        else:
            weight = by_an.contiguous()
            if self.has_root:
                weight = self._over(weight, rows.d_an)
        if by_ap is not None:
            weight.scatter_add_(1, rows.positives, by_ap)
        self.pull_weight(rows.anchors, weight, gradients, factor)

    def _over(self, gradient: Tensor, distance: Tensor) -> Tensor:
        """``gradient / distance`` in place, and 0 where two points are one: the subgradient of smallest norm.

        That none are one is known of the distances that were made last.
        """
        gradient.div_(distance)
        return gradient.masked_fill_(distance == 0, 0) if self._has_near else gradient

    def pull_weight(self, anchors: slice, weight: Tensor, gradients: Gradients, factor: int = 1) -> None:
        """Add to the gradients what comes of those by half the squared distances, or by the negated similarities.

        Parameters
        ----------
        anchors
            Whose rows they are.
        weight
            (r, m).
        gradients
            What is added to.
        factor
            What the weights are to be multiplied with.
        """
        query, to_query = self._query[anchors], gradients.query[anchors]
        # No tie depends on these, so that they may be of another library than the distances.
        add_product(to_query, weight, self._reference, alpha=-factor)
        add_product(gradients.turned, query.T, weight, alpha=-factor)
        if not self._is_similarity:
            to_query.addcmul_(weight.sum(1, keepdim=True), query, value=factor)
            gradients.columns.add_(weight.sum(0), alpha=factor)

    def pulled(self, weight: Tensor, root: Tensor | None) -> tuple[Tensor, ...]:
        """The gradients of the query and, where it is another, of the reference, of a whole matrix of distances.

        Parameters
        ----------
        weight
            (n, m) the gradient by the distances; written to.
        root
            (n, m) these, where they are roots.
        """
        if root is not None:
            weight = self._over(weight, root)
        return self.pulled_weight(weight, 1 if self._is_similarity or self.has_root else 2)

    def pulled_weight(self, weight: Tensor, factor: int = 1) -> tuple[Tensor, ...]:
        """The same of the gradient (n, m) by half the squared distances, or by the negated similarities."""
        if self._is_self:
            # Both ends of a pair are of the batch, so that one product does.
            return (self._pulled(weight + weight.T, self._query, self._query, factor),)
        to_query = self._pulled(weight, self._query, self._reference, factor)
        return to_query, self._pulled(weight.T, self._reference, self._query, factor)

    def _pulled(self, weight: Tensor, points: Tensor, others: Tensor, factor: int) -> Tensor:
        plus = None if self._is_similarity else points * weight.sum(1, keepdim=True)
        return minus_product(plus, weight, others, factor=factor)

    def _pull_few(
        self, positives: Tensor, weight: Tensor, query: Tensor, to_query: Tensor, gradients: Gradients, factor: int
    ) -> None:
        index, weight = positives.reshape(-1), weight * factor
        # Not indexing by a tensor, which takes six times as long as this.
        points = self._reference.index_select(0, index).view(*positives.shape, -1)
        to_query.sub_(points.mul_(weight[:, :, None]).sum(1))
        gradients.reference.index_add_(0, index, (weight[:, :, None] * query[:, None]).flatten(0, 1), alpha=-1)
        if not self._is_similarity:
            to_query.addcmul_(weight.sum(1, keepdim=True), query)
            gradients.columns.index_add_(0, index, weight.reshape(-1))

    def gradients(self) -> Gradients:
        """Zeros to begin with."""
        return Gradients(self._query, self._reference)


class Gradients:
    """Gradients of the embeddings and of the references as they are added up; of a batch with itself they are one."""

    def __init__(self, query: Tensor, reference: Tensor) -> None:
        self._points = reference
        self.query = torch.zeros_like(query)
        self.reference = self.query if query is reference else torch.zeros_like(reference)
        #: (m,) what each reference is multiplied with in the end.
        self.columns = reference.new_zeros(len(reference))

    @once
    def turned(self) -> Tensor:
        """(d, m) a part of the gradient of the references: products with rows of weights are had so most cheaply."""
        return torch.zeros_like(self._points.T, memory_format=torch.contiguous_format)

    def finished(self) -> tuple[Tensor, Tensor | None]:
        """Those of the embeddings and of the references; None where both are one."""
        self.reference.addcmul_(self.columns[:, None], self._points)
        if "turned" in self.__dict__:
            self.reference.add_(self.turned.T)
        return self.query, None if self.reference is self.query else self.reference


def row_distance(distance: Any) -> bool:
    """Whether a distance can be had by rows: whether it is one of nearfar's own."""
    return type(distance) in (Cosine, Dot, Euclidean, SquaredEuclidean)
