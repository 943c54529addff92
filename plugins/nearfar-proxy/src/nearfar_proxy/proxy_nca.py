"""Proxy-NCA: Movshovitz-Attias et al. 2017 (1703.07464); over all proxies: Teh et al. 2020 (2004.01113)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import check_choice, positive
from nearfar.nn.batch import Batch
from nearfar.nn.class_losses import cross_entropy
from nearfar.nn.distances import SquaredEuclidean
from nearfar.nn.terms import Terms, element_terms
from nearfar.nn.vectors import unit
from nearfar_proxy.dynamic import DynamicProxies
from nearfar_proxy.proxy_loss import ProxyLoss
from nearfar_proxy.scaled_cosines import STEEPEST, cosine_cross_entropy
from nearfar_proxy.soft_cosines import SoftCosines, soft_cross_entropy
from nearfar_proxy.starts import Start

__all__ = ["ProxyNCA"]

#: From so many distances on they are computed in blocks.
MANY = 1 << 20


class ProxyNCA(ProxyLoss):
    r"""Neighbourhood components with a learned proxy for each class in place of its samples.

    .. math::

        L_i = -\log \frac{e^{-s\,d(x_i, p_{y_i})}}{\sum_{j \ne y_i} e^{-s\,d(x_i, p_j)}}
            = s\,d(x_i, p_{y_i}) + \log \sum_{j \ne y_i} e^{-s\,d(x_i, p_j)}

    with :math:`d` the squared Euclidean distance of unit vectors. With ``assignment="dynamic"`` proxies are not of
    classes: every sample has the nearest of a smaller set, :math:`p(x) = \arg\min_p d(x, p)`, and a sample x, a
    positive y of it in the batch and all its negatives Z make the paper's triplet of proxies,

    .. math::

        L(x, y, Z) = s\,d(x, p(y)) + \log \sum_{p \in p(Z)} e^{-s\,d(x, p)}, \qquad
        L_i = \frac{1}{|Y_i|} \sum_{y \in Y_i} L(x_i, y, Z_i)

    where :math:`p(Z)` has each proxy once.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes, each with one proxy unless they are assigned dynamically.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    scale : float
        (0..inf] What distances are multiplied with, s; 1 as in the paper. Values of 8 to 14 do better.
    denominator : {"others", "all"}
        Which proxies are summed over: ``others``, without the own one, as the paper defines it and hence the
        default; ``all``, with it, the softmax of ProxyNCA++, pytorch-metric-learning and most programs. Its
        values are never negative, and its gradient fades as a sample is settled.
    assignment : {"static", "dynamic"}
        ``static``: a proxy for each class. ``dynamic``: the nearest of ``num_proxies`` for each sample, whatever its
        class; labels, any integers, only say which samples of a batch belong together.
    num_proxies : int, optional
        [1..inf] Size of the set for ``dynamic``, at most the number of classes, where it must be given; ``static`` has
        one a class.
    init : {"normal", "uniform", "orthogonal"}
        How proxies start: normal with a standard deviation of 1/8, as those of ProxyNCA++'s code; uniform of the same;
        or at right angles, as far as there are dimensions, and as long. :func:`nearfar_proxy.starts.initialize` has
        them start at the means of a first pass.
    distance : nn.Module, optional
        Distance or similarity of embeddings and proxies; squared Euclidean of unit vectors unless given.
    reducer : nn.Module, optional
        Reduction of the elements' losses; the mean unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). The proxies are ``weight`` (num_classes, embedding_size), or
    (num_proxies, embedding_size). Their own learning rate is to be 10 to 100 times the network's. A reference set is
    not taken; what a miner selects weighs the elements. Every value is finite, however far a sample is from its proxy.

    Assigned dynamically a sample without a positive or without a negative in the batch costs 0 and does not count in
    the mean; which proxy is nearest has no gradient; and the logits are those of the proxies, not of classes.

    On the default distance a million distances or more are computed in blocks of proxies, and again for the gradient:
    nothing of size n × num_classes is held then, and there is no second derivative.

    Raises
    ------
    ArgumentError
        ``denominator`` or ``assignment`` is neither of its two, the denominator is ``others`` with a single class or
        ``all`` with dynamic assignment, ``num_proxies`` does not fit, or the scale is not positive.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Movshovitz-Attias, Toshev, Leung, Ioffe, Singh (2017). No Fuss Distance Metric Learning using Proxies.
    arXiv:1703.07464, equation 4.

    Teh, DeVries, Taylor (2020). ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component Analysis.
    arXiv:2004.01113.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        scale: float = 1.0,
        denominator: Literal["others", "all"] = "others",
        assignment: Literal["static", "dynamic"] = "static",
        num_proxies: int | None = None,
        init: Start = "normal",
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        check_choice(self, "denominator", denominator, ("others", "all"))
        check_choice(self, "assignment", assignment, ("static", "dynamic"))
        if denominator == "others" and num_classes == 1:
            raise ArgumentError("ProxyNCA: denominator='others' needs two classes at least, or it sums over none")
        _check_number(assignment, num_proxies, num_classes)
        if assignment == "dynamic" and denominator == "all":
            raise ArgumentError(
                "ProxyNCA: denominator='all' is over the proxies of classes: dynamic assignment has none"
            )
        # Before the base draws them.
        self._number = num_proxies if assignment == "dynamic" else None
        super().__init__(num_classes, embedding_size, init=init, std=1 / 8, distance=distance, reducer=reducer)
        self.denominator, self.assignment = denominator, assignment
        self.scale = positive("scale", scale)

    def default_distance(self) -> SquaredEuclidean:
        return SquaredEuclidean()

    def drawn(self, classes: int) -> Tensor:
        return super().drawn(classes if self._number is None else self._number)

    def cannot_shard(self) -> str:
        if self.assignment == "dynamic":
            return "has a small set of proxies, which every rank keeps: assignment='dynamic' is not sharded"
        return "" if self._on_cosines() else "is sharded on its default distance only"

    def terms(self, batch: Batch) -> Terms:
        if self.assignment == "dynamic":
            return self._dynamic(batch)
        whole = self.whole(batch)
        values = self._values(whole.embeddings, whole.weight, whole.labels)
        return element_terms(values, weights=whole.weights, labels=whole.labels)

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, weight = self.common(embeddings, self.weight)
        return self._values(x, weight, labels)

    def _values(self, x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        if self._on_cosines() and (self.shard is not None or len(x) * len(weight) >= MANY):
            # −s ‖x − p‖² of unit vectors is 2 s cos less a constant.
            scale, others = 2 * self.scale, self.denominator == "others"
            if scale <= STEEPEST:
                return cosine_cross_entropy(unit(x)[0], weight, labels, scale, others=others, share=self.shard)
            soft = SoftCosines(scale, others=others)
            return soft_cross_entropy(unit(x)[0], weight[:, None], labels, soft, share=self.shard)[0]
        z = self._scores(x, weight)
        if self.denominator == "all":
            return cross_entropy(z, labels)
        own = labels[:, None]
        return z.scatter(1, own, -torch.inf).logsumexp(1) - z.gather(1, own)[:, 0]

    def _dynamic(self, batch: Batch) -> Terms:
        labels, weights = self.checked(batch)
        x, weight = self.common(batch.embeddings, self.weight)
        found = DynamicProxies.of(x, weight, labels, self.distance)
        values, counted = found.losses(x, weight, self.distance, self.scale)
        return element_terms(values, weights=weights, labels=labels, normalizer=counted.sum().clamp_min(1))

    def _on_cosines(self) -> bool:
        return type(self.distance) is SquaredEuclidean and self.distance.normalize_embeddings

    def _check_range(self, labels: Tensor) -> None:
        if self.assignment == "static":
            super()._check_range(labels)

    def scores(self, embeddings: Tensor) -> Tensor:
        return self._scores(*self.common(embeddings, self.every_weight()))

    def _scores(self, x: Tensor, weight: Tensor) -> Tensor:
        nearness: Tensor = self.distance(x, weight)
        return nearness * (self.scale if self.distance.is_inverted else -self.scale)

    def extra_repr(self) -> str:
        assigned = "" if self._number is None else f", assignment='dynamic', num_proxies={self._number}"
        return f"{super().extra_repr()}, scale={self.scale}, denominator={self.denominator!r}{assigned}"


def _check_number(assignment: str, num_proxies: int | None, num_classes: int) -> None:
    if assignment == "static":
        if num_proxies not in (None, num_classes):
            raise ArgumentError(
                f"ProxyNCA: assignment='static' has one proxy a class, {num_classes}; got num_proxies={num_proxies!r}: "
                "say assignment='dynamic' for a smaller set"
            )
    elif not isinstance(num_proxies, int) or isinstance(num_proxies, bool) or not 1 <= num_proxies <= num_classes:
        raise ArgumentError(
            f"ProxyNCA: assignment='dynamic' needs num_proxies, 1 to {num_classes} as there are classes; "
            f"got {num_proxies!r}"
        )
