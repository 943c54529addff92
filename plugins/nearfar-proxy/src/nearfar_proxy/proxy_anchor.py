"""Proxy-Anchor: Kim et al. 2020 (2003.13991)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import positive, within
from nearfar.nn.batch import Batch
from nearfar.nn.terms import MaterialTerms, Terms
from nearfar.nn.vectors import unit
from nearfar_proxy.proxy_loss import ProxyLoss
from nearfar_proxy.ranks import Total
from nearfar_proxy.repulsion import repulsion
from nearfar_proxy.starts import Start

__all__ = ["ProxyAnchor"]


class ProxyAnchor(ProxyLoss):
    r"""Proxies as anchors: each draws the samples of its class, the hardest most, and pushes all others away.

    .. math::

        L = \frac{1}{|P^+|} \sum_{p \in P^+} \log\left(1 + \sum_{x \in X_p^+} w_x e^{-\alpha (s(x, p) - \delta)}\right)
          + \frac{1}{|P|} \sum_{p \in P} \log\left(1 + \sum_{x \in X_p^-} w_x e^{\alpha (s(x, p) + \delta)}\right)

    with :math:`s` the cosine, P all proxies, :math:`P^+` those with a sample in the batch, and
    :math:`X_p^+`, :math:`X_p^-` the samples of p's class and of all others. The weights :math:`w_x` are 1 unless a
    miner gives them.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes, each with one proxy.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [cosine, 0..2] The margin δ; 0.1 as in the paper.
    scale : float
        (0..inf] What cosines are multiplied with, α; 32 as in the paper.
    init : {"normal", "uniform", "orthogonal"}
        How proxies start: normal with a variance of 2 / num_classes, as in the authors' code; uniform of the same; or
        at right angles, as far as there are dimensions, and as long. :func:`nearfar_proxy.starts.initialize` has them
        start at the means of a first pass.
    reducer : nn.Module, optional
        Reduction of the proxies' losses, first of those that draw and then of those that push, which are added; the
        mean of each, as in the formula, unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). The elements are proxies, not samples: their indices are
    class ids. The proxies are ``weight`` (num_classes, embedding_size); their lengths do not enter the value, and their
    own learning rate is the paper's 100 times the network's. A reference set is not taken. A sample that a miner did
    not select has no part in the sums, and no gradient; with none selected the loss is 0.

    Nothing of size n × num_classes is held. With a reducer that weighs all proxies alike, as ``mean`` and ``sum`` do,
    each cosine is computed once, otherwise twice. There is no second derivative.

    Raises
    ------
    ArgumentError
        The scale is not positive, or the margin is out of its range.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Kim, Kim, Cho, Kwak (2020). Proxy Anchor Loss for Deep Metric Learning. arXiv:2003.13991, equation 4.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 0.1,
        scale: float = 32.0,
        init: Start = "normal",
        reducer: nn.Module | None = None,
    ) -> None:
        std = (2 / max(num_classes, 1)) ** 0.5
        super().__init__(num_classes, embedding_size, init=init, std=std, reducer=reducer)
        self.margin = within("margin", margin, 0.0, 2.0)
        self.scale = positive("scale", scale)

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        whole = self.whole(batch)
        labels, log_weights = whole.labels, None if whole.weights is None else whole.weights.log()
        local = labels if self.shard is None else labels - self.shard.start
        pushed, cosines = repulsion(
            unit(whole.embeddings)[0], whole.weight, local, log_weights, scale=self.scale, margin=self.margin
        )
        pushed = self.every_class(pushed)
        if self.shard is not None:
            cosines = Total.apply(cosines, self.shard)
        proxies = self.classes(labels.device)
        present, drawn = self._attraction(cosines, labels, log_weights)
        return {
            name: MaterialTerms("element", values, (which,), num_anchors=self.num_classes, labels=proxies)
            for name, values, which in (("positive", drawn, present), ("negative", pushed, proxies))
        }

    def _attraction(self, cosines: Tensor, labels: Tensor, log_weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """The classes (k,) that have samples, and the first logarithm of each, (k,)."""
        selected = labels if log_weights is None else labels[log_weights > -torch.inf]
        present = torch.unique(selected)
        exponents = self.scale * (self.margin - cosines)
        if log_weights is not None:
            exponents = exponents + log_weights
        apart = present[:, None] != labels
        sums = exponents.expand(len(present), -1).masked_fill(apart, -torch.inf).logsumexp(1)
        return present, nn.functional.softplus(sums, threshold=50)

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError("its elements are proxies: see terms")

    def scores(self, embeddings: Tensor) -> Tensor:
        x, w = self.common(embeddings, self.every_weight())
        return unit(x)[0] @ unit(w)[0].T * self.scale

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, margin={self.margin}, scale={self.scale}"
