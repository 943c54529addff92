"""Distances and similarities between embeddings.

A distance is a module that turns two sets of embeddings into the matrix of their distances. It answers
to the same calls as pytorch-metric-learning's distances, so either can stand in for the other.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.nn.precision import in_full_precision
from nearfar.nn.vectors import unit

__all__ = ["Cosine", "Distance", "Dot", "Euclidean", "SquaredEuclidean"]


class Distance(nn.Module):
    """The matrix of distances (or similarities) between two sets of embeddings.

    A subclass writes :meth:`matrix` and :meth:`pairwise`; both get embeddings that are normalised
    already where that was asked for.

    Parameters
    ----------
    normalize
        Whether embeddings are scaled to length one first.
    """

    #: Whether larger is nearer (a similarity); the name is pytorch-metric-learning's.
    is_inverted: bool = False
    # What pytorch-metric-learning's losses read of a distance: the order of its norm, and its power.
    p: int = 2
    power: int = 1

    def __init__(self, *, normalize: bool = True) -> None:
        super().__init__()
        self.normalize_embeddings = normalize

    @abstractmethod
    def matrix(self, query: Tensor, reference: Tensor) -> Tensor:
        """Distances of every row of ``query`` (n, d) to every row of ``reference`` (m, d): (n, m)."""

    @abstractmethod
    def pairwise(self, query: Tensor, reference: Tensor) -> Tensor:
        """Distances of each row of ``query`` (n, d) to the same row of ``reference`` (n, d): (n,)."""

    def forward(self, query_emb: Tensor, ref_emb: Tensor | None = None) -> Tensor:
        """Distances of every query to every reference, by default of the queries among themselves.

        Parameters
        ----------
        query_emb
            (n, d) embeddings.
        ref_emb
            (m, d) embeddings; ``query_emb`` when not given.

        Returns
        -------
        Tensor
            (n, m).

        Raises
        ------
        InputError
            An argument is not two-dimensional, or the embedding sizes differ.
        """
        reference = query_emb if ref_emb is None else ref_emb
        if query_emb.ndim != 2 or reference.ndim != 2 or query_emb.shape[1] != reference.shape[1]:
            raise InputError(
                f"a distance takes two sets of embeddings, (n, d) and (m, d); "
                f"got {tuple(query_emb.shape)} and {tuple(reference.shape)}"
            )
        query = self.maybe_normalize(query_emb)
        return self.matrix(query, query if reference is query_emb else self.maybe_normalize(reference))

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Distances row by row of two (n, d) sets, as they are: nothing is normalised."""
        return self.pairwise(query_emb, ref_emb)

    def margin(self, x: Tensor, y: Tensor) -> Tensor:
        """How much farther ``x`` is than ``y``: ``x − y``, and ``y − x`` for a similarity."""
        return y - x if self.is_inverted else x - y

    def smallest_dist(self, *args: Any, **kwargs: Any) -> Any:
        """``torch.min``, or ``torch.max`` for a similarity: what is nearest."""
        return torch.max(*args, **kwargs) if self.is_inverted else torch.min(*args, **kwargs)

    def largest_dist(self, *args: Any, **kwargs: Any) -> Any:
        """``torch.max``, or ``torch.min`` for a similarity: what is farthest."""
        return torch.min(*args, **kwargs) if self.is_inverted else torch.max(*args, **kwargs)

    def normalize(self, embeddings: Tensor, dim: int = 1) -> Tensor:
        """Embeddings scaled to length one; a zero vector stays zero and passes no gradient."""
        return unit(embeddings, dim)[0]

    def maybe_normalize(self, embeddings: Tensor, dim: int = 1) -> Tensor:
        """Embeddings scaled to length one where this distance normalises, as they are where not."""
        return self.normalize(embeddings, dim) if self.normalize_embeddings else embeddings

    def get_norm(self, embeddings: Tensor, dim: int = 1) -> Tensor:
        """Lengths of embeddings."""
        norms: Tensor = torch.linalg.vector_norm(embeddings, dim=dim)
        return norms

    def same_as(self, other: object) -> bool:
        """Whether ``other`` is known to give the same matrix for the same embeddings.

        Of a distance that is not nearfar's own nothing is known but that it is itself: it may have learned.
        """
        if self is other:
            return True
        return (
            type(self) in _OWN
            and type(self) is type(other)
            and self.normalize_embeddings == getattr(other, "normalize_embeddings", None)
        )

    def extra_repr(self) -> str:
        return f"normalize={self.normalize_embeddings}"


class SquaredEuclidean(Distance):
    r"""Squared Euclidean distance; FaceNet's margin of 0.2 is on it.

    .. math:: d(x, y) = \lVert x - y \rVert^2

    On normalised embeddings it is ``2 − 2 cos θ``, in [0, 4].

    Parameters
    ----------
    normalize : bool
        Whether embeddings are scaled to length one first.
    """

    # pytorch-metric-learning applies the power itself, in a forward we replace: here it is for reading only.
    power = 2

    def matrix(self, query: Tensor, reference: Tensor) -> Tensor:
        is_self = query is reference
        if is_self and torch.compiler.is_compiling():  # which cannot follow a function of one tensor given twice
            reference = query.view_as(query)
        if not torch.is_grad_enabled():
            return _euclidean_matrix(query, reference, self.power == 1, is_self)[0]
        matrix: Tensor = _EuclideanMatrix.apply(query, reference, self.power == 1, is_self)
        return matrix

    def pairwise(self, query: Tensor, reference: Tensor) -> Tensor:
        return (query - reference).square().sum(1)


class Euclidean(SquaredEuclidean):
    r"""Euclidean distance; on normalised embeddings in [0, 2].

    .. math:: d(x, y) = \lVert x - y \rVert

    Two equal embeddings have distance 0 and pass no gradient, the subgradient of smallest norm. (On a GPU, and
    compiled, cancellation leaves up to 1e-3 between duplicates in float32, for which no test is made there, and the
    gradient of a distance d between unit vectors is off by about 1e-7 / d of itself; on a CPU by 1e-4 at most.)

    Parameters
    ----------
    normalize : bool
        Whether embeddings are scaled to length one first.
    """

    power = 1

    def pairwise(self, query: Tensor, reference: Tensor) -> Tensor:
        return _safe_sqrt(super().pairwise(query, reference))


class Cosine(Distance):
    r"""Cosine similarity, in [−1, 1]; larger is nearer. It always normalises.

    .. math:: s(x, y) = \frac{x \cdot y}{\lVert x \rVert \lVert y \rVert}
    """

    is_inverted = True

    def __init__(self) -> None:
        super().__init__(normalize=True)

    def matrix(self, query: Tensor, reference: Tensor) -> Tensor:
        return query @ reference.T

    def pairwise(self, query: Tensor, reference: Tensor) -> Tensor:
        return (query * reference).sum(1)

    def extra_repr(self) -> str:
        return ""


class Dot(Distance):
    r"""Inner product of embeddings as they are; larger is nearer.

    .. math:: s(x, y) = x \cdot y
    """

    is_inverted = True

    def __init__(self) -> None:
        super().__init__(normalize=False)

    def matrix(self, query: Tensor, reference: Tensor) -> Tensor:
        return query @ reference.T

    def pairwise(self, query: Tensor, reference: Tensor) -> Tensor:
        return (query * reference).sum(1)

    def extra_repr(self) -> str:
        return ""


#: A squared distance below this share of the squared lengths has lost three digits and more.
NEAR = 1e-3
#: One below this share has a gradient, a difference of products as large as 1 / d, that has lost three.
STEEP = 1e-6
#: So many pairs are taken one by one at once.
_PAIRS = 2**14


class _EuclideanMatrix(torch.autograd.Function):
    """‖xᵢ − yⱼ‖² or its root, in one product of matrices; the gradient, differentiable itself, takes two.

    Written out because autograd would keep, and go back through, eight tensors of the size of the result.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, reference: Tensor, root: bool, is_self: bool) -> Tensor:
        matrix, *steep = _euclidean_matrix(query, reference, root, is_self)
        ctx.root, ctx.is_self = root, is_self
        ctx.save_for_backward(query, reference, *((matrix, *steep) if root else ()))
        return matrix

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        query, reference, *saved = ctx.saved_tensors
        steep: list[Tensor] = []
        if ctx.root:
            d, *steep = saved
            # Equal points pass nothing; 1 stands in so that the second derivative stays finite too.
            zero = d == 0
            weight = (grad / d.masked_fill(zero, 1)).masked_fill(zero, 0)
        else:
            weight = 2 * grad
        to_query = to_reference = None
        if steep:
            i, j = steep
            pulls, weight = weight[i, j], weight.index_put((i, j), weight.new_zeros(()))
        if ctx.is_self and all(ctx.needs_input_grad[:2]):
            # Both ends of a pair are of one set, so that one product does.
            weight = weight + weight.T
            to_query = weight.sum(1)[:, None] * query - weight @ query
            if steep:
                to_query = _pulled(_pulled(to_query, i, j, pulls, query, query), j, i, pulls, query, query)
            return to_query, None, None, None
        if ctx.needs_input_grad[0]:
            to_query = weight.sum(1)[:, None] * query - weight @ reference
            to_query = _pulled(to_query, i, j, pulls, query, reference) if steep else to_query
        if ctx.needs_input_grad[1]:
            to_reference = weight.sum(0)[:, None] * reference - weight.T @ query
            to_reference = _pulled(to_reference, j, i, pulls, reference, query) if steep else to_reference
        return to_query, to_reference, None, None


def _euclidean_matrix(query: Tensor, reference: Tensor, root: bool, is_self: bool) -> tuple[Tensor, ...]:
    """The distances, and the rows and columns of those that are too small for a gradient of products, if there are."""
    squares = reference.square().sum(1)
    query_squares = squares if is_self else query.square().sum(1)
    matrix = torch.addmm(squares, query, reference.T, alpha=-2).add_(query_squares[:, None])
    if is_self:
        matrix.fill_diagonal_(torch.inf)  # for a while: no pair that is near
    steep: tuple[Tensor, ...] = ()
    if matrix.device.type == "cpu" and not torch.compiler.is_compiling():
        steep = _mend_near(matrix, query, reference, query_squares, squares)
    if is_self:
        matrix.fill_diagonal_(0)
    matrix.clamp_min_(0)
    return matrix.sqrt_() if root else matrix, *steep


def _pulled(gradient: Tensor, at: Tensor, by: Tensor, pulls: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    """A gradient (n, d) and what pairs add to it, each its pull times the difference of the row from the other."""
    for start in range(0, len(at), _PAIRS):
        i, j = at[start : start + _PAIRS], by[start : start + _PAIRS]
        difference = rows[i] - others[j]
        gradient = gradient.index_add(0, i, pulls[start : start + _PAIRS, None] * difference)
    return gradient


def _mend_near(
    matrix: Tensor, query: Tensor, reference: Tensor, query_squares: Tensor, reference_squares: Tensor
) -> tuple[Tensor, ...]:
    """Take squared distances that cancellation has spoiled from the differences themselves, in place.

    Returns the rows and columns of those below :data:`STEEP` that are not 0; nothing where there are none.

    ‖x‖² + ‖y‖² − 2 x·y is off by the rounding of its largest part: a float32 distance of 1e-3 between unit vectors by
    half of it. Not on a GPU, where asking how many there are would stall the stream, nor compiled, where it would break
    the graph.
    """
    if not matrix.numel():
        return ()
    # No sum of two squares is larger than that of the largest.
    largest = reference_squares.max().item()
    largest += largest if query_squares is reference_squares else query_squares.max().item()
    if matrix.amin().item() >= NEAR * largest:
        return ()
    sums = query_squares[:, None] + reference_squares
    rows, columns = (matrix < NEAR * sums).nonzero(as_tuple=True)
    for start in range(0, len(rows), _PAIRS):
        i, j = rows[start : start + _PAIRS], columns[start : start + _PAIRS]
        matrix[i, j] = (query[i] - reference[j]).square().sum(1)
    steep = ((matrix > 0) & (matrix < STEEP * sums)).nonzero(as_tuple=True) if len(rows) else ()
    return steep if steep and len(steep[0]) else ()


def _safe_sqrt(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 rather than infinite."""
    zero = square == 0
    return square.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


_OWN = frozenset({Euclidean, SquaredEuclidean, Cosine, Dot})
