"""Proxy-NCA: Movshovitz-Attias et al. 2017 (1703.07464); over all proxies: Teh et al. 2020 (2004.01113)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn import ClassLoss
from nearfar.nn.arguments import check_choice, positive
from nearfar.nn.class_losses import cross_entropy
from nearfar.nn.distances import SquaredEuclidean
from nearfar.nn.vectors import unit
from nearfar_proxy.soft_cosines import SoftCosines, soft_cross_entropy

__all__ = ["ProxyNCA"]

#: From so many distances on they are computed in blocks.
MANY = 1 << 20


class ProxyNCA(ClassLoss):
    r"""Neighbourhood components with a learned proxy for each class in place of its samples.

    .. math::

        L_i = -\log \frac{e^{-s\,d(x_i, p_{y_i})}}{\sum_{j \ne y_i} e^{-s\,d(x_i, p_j)}}
            = s\,d(x_i, p_{y_i}) + \log \sum_{j \ne y_i} e^{-s\,d(x_i, p_j)}

    with :math:`d` the squared Euclidean distance of unit vectors.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes, each with one proxy.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    scale : float
        (0..inf] What distances are multiplied with, s; 1 as in the paper. Values of 8 to 14 do better.
    denominator : {"others", "all"}
        Which proxies are summed over: ``others``, without the own one, as the paper defines it and hence the
        default; ``all``, with it, the softmax of ProxyNCA++, pytorch-metric-learning and most programs. Its
        values are never negative, and its gradient fades as a sample is settled.
    distance : nn.Module, optional
        Distance or similarity of embeddings and proxies; squared Euclidean of unit vectors unless given.
    reducer : nn.Module, optional
        Reduction of the elements' losses; the mean unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). The proxies are ``weight`` (num_classes, embedding_size); they
    start normal with a standard deviation of 1/8, as those of ProxyNCA++'s code do. A reference set is not
    taken; what a miner selects weighs the elements. Every value is finite, however far a sample is from
    its proxy.

    On the default distance a million distances or more are computed in blocks of proxies, and again for the gradient:
    nothing of size n × num_classes is held then, and there is no second derivative.

    Raises
    ------
    ArgumentError
        ``denominator`` is neither of the two, is ``others`` with a single class, or the scale is not positive.
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
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, distance=distance, reducer=reducer)
        self.denominator = check_choice(self, "denominator", denominator, ("others", "all"))
        if denominator == "others" and num_classes < 2:
            raise ArgumentError("ProxyNCA: denominator='others' needs two classes at least, or it sums over none")
        self.scale = positive("scale", scale)
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.normal_(self.weight, std=1 / 8)

    def default_distance(self) -> SquaredEuclidean:
        return SquaredEuclidean()

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        is_default = type(self.distance) is SquaredEuclidean and self.distance.normalize_embeddings
        if is_default and len(embeddings) * self.num_classes >= MANY:
            x, w = self.common(embeddings, self.weight)
            # −s ‖x − p‖² of unit vectors is 2 s cos less a constant.
            soft = SoftCosines(2 * self.scale, others=self.denominator == "others")
            return soft_cross_entropy(unit(x)[0], w[:, None], labels, soft)[0]
        z = self.scores(embeddings)
        if self.denominator == "all":
            return cross_entropy(z, labels)
        own = labels[:, None]
        return z.scatter(1, own, -torch.inf).logsumexp(1) - z.gather(1, own)[:, 0]

    def scores(self, embeddings: Tensor) -> Tensor:
        nearness: Tensor = self.distance(*self.common(embeddings, self.weight))
        return nearness * (self.scale if self.distance.is_inverted else -self.scale)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale={self.scale}, denominator={self.denominator!r}"
