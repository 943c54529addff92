"""Quadruplet loss.

Chen, Chen, Zhang, Huang (2017): Beyond Triplet Loss: A Deep Quadruplet Network for Person Re-identification.
arXiv:1704.01719.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance, SquaredEuclidean
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.reducers import AvgNonZero
from nearfar.nn.selection import distance_matrix
from nearfar.nn.terms import MaterialTerms, Terms
from nearfar_pair.pair_distances import pair_distances
from nearfar_pair.quadruples import Quadruples
from nearfar_pair.row_distance import row_distance
from nearfar_pair.triplet_terms import TripletCost, triplet_terms

__all__ = ["Quadruplet"]

#: Up to so many distances sorting all of them takes less than summing between bounds.
WHOLE = 2**16


class Quadruplet(EmbeddingLoss):
    r"""A positive pair nearer than every negative of its anchor, and nearer than every negative pair of other classes.

    .. math::
        L_{apn} = [d(a, p) - d(a, n) + \alpha_1]_+, \qquad
        L_{ap} = \operatorname*{mean}_{(k, l)} \left\{d(a, p) - d(k, l) + \alpha_2 > 0\right\}

    where k and l are of different classes, neither of them that of a and p: the second term makes the distances within
    every class smaller than those between any two.

    Parameters
    ----------
    margin : float
        [units of the distance, 0..inf] α₁; 1 as in the paper.
    pair_margin : float
        [units of the distance, 0..inf] α₂, less than α₁; 0.5 as in the paper.
    distance : nn.Module, optional
        What d is, a similarity being negated; squared Euclidean distance of normalised embeddings by default.
    reducer : nn.Module, optional
        Reduces the sub-losses ``triplet`` and ``pair`` apart, and their values are added; by default each is
        averaged over its terms above zero.

    Raises
    ------
    ArgumentError
        A margin is negative or not finite.
    InputError
        There are no class ids.

    Notes
    -----
    Terms of ``triplet`` are ``triplet``; of ``pair`` ``pos_pair``, one for each ordered positive pair, over all its
    quadruplets: the mean of those that cost something. No quadruplet is made: the distances of negative pairs are
    counted and summed between the bounds that positive pairs set them, a few rows at a time, of small batches all in
    order. Of a reference set each pair of an embedding and a reference counts. A selection says which positive and
    which negative pairs there are, in ``pair`` each once; labels are needed with it too, to know which negative pairs
    are of other classes.

    Deviations: the paper's metric is learned, a network on two embeddings; it sums over all quadruplets, and adapts the
    margins to the distances of the batch where it mines.

    References
    ----------
    Chen et al. (2017), arXiv:1704.01719, equation 8.
    """

    def __init__(
        self,
        margin: float = 1.0,
        pair_margin: float = 0.5,
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = non_negative("margin", margin)
        self.pair_margin = non_negative("pair_margin", pair_margin)

    def default_distance(self) -> Distance:
        return SquaredEuclidean()

    def default_reducer(self) -> nn.Module:
        return AvgNonZero()

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        labels = batch.class_ids("Quadruplet")
        n, m = len(batch.embeddings), len(batch.reference)
        is_whole = n * m <= WHOLE or not row_distance(self.distance)
        a, p, values = (self._from_matrix if is_whole else self._from_rows)(batch, labels)
        pairs = MaterialTerms("pos_pair", values, (a, p), num_anchors=n, labels=labels[0])
        return {"triplet": triplet_terms(batch, self.distance, TripletCost(self.margin)), "pair": pairs}

    def _from_matrix(self, batch: Batch, labels: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The positive pairs and their costs, by sorting all negative pairs."""
        d = distance_matrix(self.distance, batch)
        a, p, *negative = _pairs(batch)
        return a, p, _costs(d[a, p] + self.pair_margin, labels[0][a], d, negative, labels)

    def _from_rows(self, batch: Batch, labels: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The same, by a few rows of distances at a time."""

        def whole(t: Tensor, own: Tensor, d: Tensor) -> Tensor:
            return _costs(t, own, d, _pairs(batch)[2:], labels)

        quadruples = Quadruples(batch, self.distance, whole)
        a, p = quadruples.positives()
        reference = None if batch.is_self else batch.reference
        bounds = pair_distances(self.distance, batch.embeddings, reference, a, p) + self.pair_margin
        return a, p, quadruples.costs(bounds, labels[0][a])

    def extra_repr(self) -> str:
        return f"margin={self.margin}, pair_margin={self.pair_margin}"


def _pairs(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The positive pairs, and the negative ones, each once, a pair of two of the batch once."""
    if batch.selection is not None:
        a1, p, a2, n = batch.selection.pairs()
        return *_each_once(a1, p), *_each_once(a2, n)
    negative = batch.negative_mask()
    a, p = torch.where(batch.positive_mask())
    rows, columns = torch.where(negative.triu() if batch.is_self else negative)
    return a, p, rows, columns


def _each_once(i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs in order, each once."""
    pairs = torch.unique(torch.stack([i, j]), dim=1)
    return pairs[0], pairs[1]


def _costs(t: Tensor, own: Tensor, d: Tensor, pairs: Sequence[Tensor], labels: tuple[Tensor, Tensor]) -> Tensor:
    """The mean of t − v over the negative pairs with distances v < t and neither end of one's own class, 0 of none.

    ``t`` and ``own`` are (P,); ``pairs`` index ``d`` and, its rows and columns, ``labels``.
    """
    row, column = pairs
    near = d.detach()[row, column] < (t.detach().max() if len(t) else 0.0)
    row, column = row[near], column[near]
    # Differences of sums over all pairs are taken, which float32 has no room for.
    v = d[row, column].double()
    order = v.detach().argsort(stable=True)
    v, ends = v[order], (row[order], column[order])
    nearer = torch.searchsorted(v.detach(), t.detach().double())
    # Each pair stands in the lists of both its classes; all lists behind one another, each in the order of distances.
    classes = torch.unique(torch.cat(labels))
    of_pair = torch.cat([torch.searchsorted(classes, side[end]) for side, end in zip(labels, ends, strict=True)])
    size = len(v) + 1
    place = torch.arange(len(v), device=v.device)
    keys, listed = (of_pair * size + torch.cat([place, place])).sort()
    first = torch.searchsorted(classes, own) * size
    start, stop = torch.searchsorted(keys, first), torch.searchsorted(keys, first + nearer)
    every, of_class = _running(v), _running(v[listed % max(1, len(v))])
    count = nearer - (stop - start)
    total = every[nearer] - (of_class[stop] - of_class[start])
    return torch.where(count > 0, t - (total / count.clamp_min(1)).to(t.dtype), 0)


def _running(v: Tensor) -> Tensor:
    """The sums of the first 0, 1, … of v."""
    return torch.cat([v.new_zeros(1), v.cumsum(0)])
