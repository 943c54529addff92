"""ProxyGML: Zhu et al., NeurIPS 2020 (2010.13636)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import non_negative, positive, within
from nearfar.nn.batch import Batch
from nearfar.nn.terms import MaterialTerms, Terms, element_terms
from nearfar.nn.vectors import unit
from nearfar_proxy.log_sums import log_sum_exp
from nearfar_proxy.nearest import nearest_cross_entropy
from nearfar_proxy.proxy_loss import ProxyLoss
from nearfar_proxy.ranks import AllClasses
from nearfar_proxy.starts import Start

__all__ = ["ProxyGML"]


class ProxyGML(ProxyLoss):
    r"""Graph metric learning with proxies: a sample is classified by the few proxies nearest to it.

    Of all cosines :math:`S_{ip}` to the proxies, K for each class, those to the own class's proxies and the largest
    others are kept, :math:`k = \lceil r C K \rceil` in all; they are summed by class, and

    .. math::

        L_i = -\log \frac{e^{s Z_{i y_i}}}{\sum_{j \in J_i} e^{s Z_{ij}}}
        \qquad Z_{ij} = \sum_{p \in N_i,\, y_p = j} S_{ip}

    with :math:`N_i` the proxies kept and :math:`J_i` their classes. The proxies themselves are classified by all
    others, which is added λ times:

    .. math:: R_p = -\log \frac{e^{\sum_{q: y_q = y_p} S_{pq}}}{\sum_j e^{\sum_{q: y_q = j} S_{pq}}}

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    proxies_per_class : int
        [1..inf] K; 12 as in the paper for data with many samples a class, which has 1 for few.
    ratio : float
        (0..1] The share of all proxies that a sample keeps, r; 0.05 as in the paper.
    factor : float
        [0..inf] What the proxies' own losses are multiplied with, λ; 0.3 as in the paper.
    scale : float
        (0..inf] What summed cosines are multiplied with, s; 1 as in the paper.
    init : {"normal", "uniform", "orthogonal"}
        How proxies start, with a variance of 1: normal; uniform; or at right angles, as far as there are dimensions,
        and as long. :func:`nearfar_proxy.starts.initialize` has them start at means of a first pass.
    reducer : nn.Module, optional
        Reduction of the samples' losses, and of the proxies', which are added; the mean of each unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). The proxies are ``weight`` (num_classes, proxies_per_class,
    embedding_size); their lengths do not enter the value. A sample keeps all proxies of its class, also where ``ratio``
    gives fewer, and of others equally near at the limit all. A miner weighs the samples; with none selected the
    proxies' losses are 0 too.

    Cosines are computed in blocks of classes: to find what is kept, for the value, and for the gradient. Nothing of the
    size of batch × proxies is held: where the proxies kept are more than a block, the last of them is found by its bits
    in three passes, six in float64. The proxies' own losses compare each of them with every
    class: where there are more classes than samples in a batch, they take most of the time, and ``factor=0`` saves it.
    There is no second derivative.

    Raises
    ------
    ArgumentError
        ``proxies_per_class`` is less than 1, ``ratio`` is out of its range or leaves no room for a proxy of another
        class, ``scale`` is not positive, or ``factor``
        is negative.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Zhu, Yang, Deng, Liu (2020). Fewer is More: A Deep Graph Metric Learning Perspective Using Fewer Proxies.
    NeurIPS. arXiv:2010.13636, equations 3 to 9.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        proxies_per_class: int = 12,
        ratio: float = 0.05,
        factor: float = 0.3,
        scale: float = 1.0,
        init: Start = "normal",
        reducer: nn.Module | None = None,
    ) -> None:
        if proxies_per_class < 1:
            raise ArgumentError(f"ProxyGML: proxies_per_class must be at least 1; got {proxies_per_class}")
        super().__init__(num_classes, embedding_size, init=init, std=1.0, each=proxies_per_class, reducer=reducer)
        within("ratio", positive("ratio", ratio), 0.0, 1.0)
        kept = math.ceil(ratio * num_classes * proxies_per_class)
        if num_classes > 1 and kept <= proxies_per_class:
            raise ArgumentError(
                f"ProxyGML: a ratio of {ratio} keeps {kept} of {num_classes * proxies_per_class} proxies, and a class "
                f"has {proxies_per_class}: none of another class; give more than {1 / num_classes:.3g}"
            )
        self.proxies_per_class = proxies_per_class
        self.ratio = ratio
        self.factor = non_negative("factor", factor)
        self.scale = positive("scale", scale)

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        whole = self.whole(batch)
        values = self._values(whole.embeddings, whole.weight, whole.labels)
        # All of a class's proxies as rows, so that ranks have whole classes of them.
        # Of many classes they cost far more time than the samples.
        costs = self._regularizer(unit(whole.weight, -1)[0]) if self.factor else whole.weight.new_zeros(())
        costs = self.every_class(costs.expand(whole.weight.shape[:2])).flatten()
        which = torch.arange(len(costs), device=whole.labels.device)
        own = which // self.proxies_per_class
        regularizer = MaterialTerms(
            "element", self.factor * costs * whole.said, (which,), num_anchors=len(costs), labels=own
        )
        return {
            "loss": element_terms(values, weights=whole.weights, labels=whole.labels),
            "regularizer": regularizer,
        }

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, weight = self.common(embeddings, self.weight)
        return self._values(x, weight, labels)

    def _values(self, x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        of_others = math.ceil(self.ratio * self.num_classes * self.proxies_per_class) - self.proxies_per_class
        return nearest_cross_entropy(unit(x)[0], weight, labels, self.scale, max(of_others, 0), self.shard)

    def scores(self, embeddings: Tensor) -> Tensor:
        x, weight = self.common(embeddings, self.every_weight())
        found: Tensor = self.scale * unit(x)[0] @ unit(weight, -1)[0].sum(1).T
        return found

    def _regularizer(self, proxies: Tensor) -> Tensor:
        """R, (c, K) of unit vectors (c, K, d)."""
        # Products with the sum of a class's proxies are sums of cosines.
        sums = proxies.sum(1)
        every = sums if self.shard is None else AllClasses.apply(sums, self.shard, True)
        own = (proxies @ sums[..., None])[..., 0]
        return log_sum_exp(proxies.flatten(0, 1), every).view_as(own) - own

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, proxies_per_class={self.proxies_per_class}, ratio={self.ratio}, "
            f"factor={self.factor}, scale={self.scale}"
        )
