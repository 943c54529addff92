"""ProxyGML: Zhu et al., NeurIPS 2020 (2010.13636)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nearfar.errors import ArgumentError
from nearfar.nn import ClassLoss
from nearfar.nn.arguments import non_negative, positive, within
from nearfar.nn.batch import Batch
from nearfar.nn.class_losses import cross_entropy
from nearfar.nn.terms import MaterialTerms, Terms, element_terms
from nearfar.nn.vectors import unit
from nearfar_proxy.blocks import blocks

__all__ = ["ProxyGML"]


class ProxyGML(ClassLoss):
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
    reducer : nn.Module, optional
        Reduction of the samples' losses, and of the proxies', which are added; the mean of each unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). The proxies are ``weight`` (num_classes · K, embedding_size), those
    of a class one after the other, normal at first; their lengths do not enter the value. A sample keeps all
    proxies of its class, also where ``ratio`` gives fewer. A miner weighs the samples; with none selected the proxies'
    losses are 0 too.

    The cosines of the batch, (n, num_classes · K), are held: which to keep is decided among all of them.

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
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        if proxies_per_class < 1:
            raise ArgumentError(f"ProxyGML: proxies_per_class must be at least 1; got {proxies_per_class}")
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
        self.weight = nn.Parameter(torch.randn(num_classes * proxies_per_class, embedding_size))

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        labels, weights = self.checked(batch)
        samples = element_terms(self.losses(batch.embeddings, labels), weights=weights, labels=labels)
        said = len(labels) > 0 if weights is None else (weights > 0).any()
        _, proxies = self._units(batch.embeddings)
        which = torch.arange(len(proxies), device=labels.device)
        own = which // self.proxies_per_class
        costs = self.factor * self._regularizer(proxies, own) * said
        regularizer = MaterialTerms("element", costs, (which,), num_anchors=len(proxies), labels=own)
        return {"loss": samples, "regularizer": regularizer}

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, proxies = self._units(embeddings)
        cosines = x @ proxies.T
        n, k = len(x), max(math.ceil(self.ratio * len(proxies)), self.proxies_per_class)
        # A cosine is at most 2 more than another, so a sample's own proxies come first.
        ranked = cosines.detach().clone().view(n, self.num_classes, self.proxies_per_class)
        ranked[torch.arange(n, device=labels.device), labels] += 3
        kept = ranked.flatten(1).topk(k, dim=1).indices
        classes = kept // self.proxies_per_class
        sums = cosines.new_zeros(n, self.num_classes).scatter_add(1, classes, cosines.gather(1, kept))
        linked = torch.zeros_like(sums, dtype=torch.bool).scatter_(1, classes, True)
        return cross_entropy((self.scale * sums).masked_fill(~linked, -torch.inf), labels)

    def scores(self, embeddings: Tensor) -> Tensor:
        x, proxies = self._units(embeddings)
        found: Tensor = self.scale * x @ self._by_class(proxies).T
        return found

    def _units(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        x, proxies = self.common(embeddings, self.weight)
        return unit(x)[0], unit(proxies)[0]

    def _by_class(self, proxies: Tensor) -> Tensor:
        """(num_classes, d): the sums of the proxies of each class, whose products are sums of cosines."""
        return proxies.view(self.num_classes, self.proxies_per_class, -1).sum(1)

    def _regularizer(self, proxies: Tensor, own: Tensor) -> Tensor:
        """R, (num_classes · K,), in blocks of proxies that are computed again in the backward pass."""
        sums = self._by_class(proxies)

        def costs(some: Tensor, labels: Tensor, sums: Tensor) -> Tensor:
            return cross_entropy(some @ sums.T, labels)

        found = [
            checkpoint(costs, proxies[block], own[block], sums, use_reentrant=False, preserve_rng_state=False)
            for block in blocks(self.num_classes, proxies)
        ]
        return torch.cat(found)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, proxies_per_class={self.proxies_per_class}, ratio={self.ratio}, "
            f"factor={self.factor}, scale={self.scale}"
        )
