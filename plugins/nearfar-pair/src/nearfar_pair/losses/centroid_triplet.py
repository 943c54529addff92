"""Centroid triplet loss.

Wieczorek, Rychalska, Dąbrowski (2021): On the Unreasonable Effectiveness of Centroids in Image Retrieval.
arXiv:2104.13643.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.distances import Distance, SquaredEuclidean
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.terms import MaterialTerms, Terms, element_terms
from nearfar_pair.sides import FAR

__all__ = ["CentroidTriplet"]


class CentroidTriplet(EmbeddingLoss):
    r"""The centroid of an embedding's class nearer than that of any other class, by a margin.

    .. math:: L_i = \left[d(x_i, c_i) - \min_{k \neq y_i} d(x_i, c_k) + m\right]_+

    where :math:`c_k` is the mean of class k, and :math:`c_i` that of the class of i without i itself.

    Parameters
    ----------
    margin : float
        [units of the distance, 0..inf] m; 0.3 as in the paper.
    distance : nn.Module, optional
        What d is, a similarity being negated; squared Euclidean distance, by default of normalised embeddings and
        centroids.
    reducer : nn.Module, optional
        By default the mean over the embeddings that have both centroids.

    Raises
    ------
    ArgumentError
        The margin is negative or not finite.
    InputError
        There are no class ids, or there is a selection.

    Notes
    -----
    Terms are ``element``, one for each embedding whose class has another sample and that has another class to stand
    against. Centroids are means of the embeddings as they are. With a reference set they are those of its classes, and
    nothing is left out of one. What is compared is (n, classes), no pair of samples.

    Deviations: the authors' code has the nearest centroid of another class for the negative, as here, but draws one
    sample of each class as a query and leaves the queries out of all centroids, the others' too; here every sample is a
    query and only its own centroid is without it.

    References
    ----------
    Wieczorek et al. (2021), arXiv:2104.13643, equation 3 and section 3.3.
    """

    def __init__(
        self, margin: float = 0.3, *, distance: nn.Module | None = None, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = non_negative("margin", margin)

    def default_distance(self) -> Distance:
        return SquaredEuclidean()

    def terms(self, batch: Batch) -> Terms:
        if batch.selection is not None:
            raise InputError("CentroidTriplet compares embeddings with classes, so it takes no indices_tuple")
        labels, reference_labels = batch.class_ids("CentroidTriplet")
        x = batch.embeddings
        classes, member, sizes = torch.unique(reference_labels, return_inverse=True, return_counts=True)
        sums = x.new_zeros(len(classes), x.shape[1]).index_add(0, member, batch.reference)
        own = labels.unsqueeze(1) == classes
        if not len(classes):
            own, sums, sizes = own.new_zeros(len(x), 1), x.new_zeros(1, x.shape[1]), member.new_ones(1)
        index = member if batch.is_self else own.long().argmax(1)
        mine, size = sums.index_select(0, index), sizes.index_select(0, index)
        if batch.is_self:
            mine, size = mine - x, size - 1
        d_an, d_ap = self._distances(x, sums / sizes.unsqueeze(1), mine / size.clamp_min(1).unsqueeze(1))
        costs = torch.relu(d_ap - d_an.masked_fill(own, FAR).amin(1) + self.margin)
        there = (size > 0) & (len(classes) > 1)
        (kept,) = torch.where(there if batch.is_self else there & own.any(1))
        if len(kept) == len(x):
            return element_terms(costs, labels=labels)
        return MaterialTerms("element", costs[kept], (kept,), num_anchors=len(x), labels=labels)

    def _distances(self, x: Tensor, centroids: Tensor, mine: Tensor) -> tuple[Tensor, Tensor]:
        """How far each embedding is from all centroids, (n, classes), and from its own, (n,), small for near."""
        distance = self.distance
        if isinstance(distance, Distance):
            x, centroids, mine = (distance.maybe_normalize(points) for points in (x, centroids, mine))
            found = distance.matrix(x, centroids), distance.pairwise(x, mine)
        else:
            found = distance(x, centroids), distance(x, mine).diagonal()
        return (-found[0], -found[1]) if distance.is_inverted else found

    def extra_repr(self) -> str:
        return f"margin={self.margin}"
