"""SoftTriple: Qian et al., ICCV 2019 (1909.05235)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import non_negative, positive, within
from nearfar.nn.batch import Batch
from nearfar.nn.terms import MaterialTerms, Terms, element_terms
from nearfar.nn.vectors import unit
from nearfar_proxy.proxy_loss import ProxyLoss
from nearfar_proxy.soft_cosines import SoftCosines, soft_cross_entropy
from nearfar_proxy.starts import Start

__all__ = ["SoftTriple"]


class SoftTriple(ProxyLoss):
    r"""A softmax over classes with several centres each, which merge where one is enough.

    .. math::

        L_i = -\log \frac{e^{\lambda (S_{i y_i} - \delta)}}
                         {e^{\lambda (S_{i y_i} - \delta)} + \sum_{j \ne y_i} e^{\lambda S_{ij}}}, \qquad
        S_{ij} = \sum_k \frac{e^{x_i \cdot w_{jk} / \gamma}}{\sum_l e^{x_i \cdot w_{jl} / \gamma}} \, x_i \cdot w_{jk}

    with unit vectors x and w, and beside it what keeps the K centres of a class together:

    .. math:: \frac{\tau}{C K (K - 1)} \sum_j \sum_{t < s} \sqrt{2 - 2\, w_{jt} \cdot w_{js}}

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    centers : int
        [1..inf] Centres of each class, K; 10 as in the paper.
    scale : float
        (0..inf] What similarities are multiplied with, λ; 20 as in the paper.
    gamma : float
        [0.001..inf] Temperature γ at which the nearest centre counts most; 0.1 as in the paper.
    margin : float
        [cosine, 0..2] The margin δ; 0.01 as in the paper.
    tau : float
        [0..inf] What the distances of centres are multiplied with, τ; 0.2 as in the paper.
    init : {"normal", "uniform", "orthogonal"}
        How centres start, with a variance of 1 / (3 embedding_size): uniform, as in the authors' code; normal; or at
        right angles, as far as there are dimensions, and as long. :func:`nearfar_proxy.starts.initialize` has them
        start at means of a first pass.
    reducer : nn.Module, optional
        Reduction of the samples' losses, and of the classes', which are added; the mean of each, as in the formula,
        unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` are the centres, (num_classes, centers,
    embedding_size), whose lengths do not enter the value. Between two centres that are the same there is no gradient. A
    miner weighs the samples; with none selected the centres cost nothing either.

    Nothing of size n × num_classes is held; cosines are computed a second time for the gradient. There is no second
    derivative.

    Raises
    ------
    ArgumentError
        ``centers`` is less than 1, or another argument is out of its range.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Qian, Shang, Sun, Hu, Li, Jin (2019). SoftTriple Loss: Deep Metric Learning Without Triplet Sampling. ICCV.
    arXiv:1909.05235, equations 7 to 9.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        centers: int = 10,
        scale: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        tau: float = 0.2,
        init: Start = "uniform",
        reducer: nn.Module | None = None,
    ) -> None:
        if not isinstance(centers, int) or isinstance(centers, bool) or centers < 1:
            raise ArgumentError(f"SoftTriple: centers must be a whole number of at least 1; got {centers!r}")
        std = (3 * max(embedding_size, 1)) ** -0.5
        super().__init__(num_classes, embedding_size, init=init, std=std, each=centers, reducer=reducer)
        self.centers = centers
        self.soft = SoftCosines(
            scale=positive("scale", scale),
            gamma=within("gamma", gamma, 0.001, float("inf")),
            margin=within("margin", margin, 0.0, 2.0),
        )
        self.tau = non_negative("tau", tau)

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        whole = self.whole(batch)
        x, labels = unit(whole.embeddings)[0], whole.labels
        values, apart = soft_cross_entropy(x, whole.weight, labels, self.soft, self.tau, self.shard)
        apart, classes = self.every_class(apart) * whole.said, self.classes(labels.device)
        return {
            "loss": element_terms(values, weights=whole.weights, labels=labels),
            "regularizer": MaterialTerms("element", apart, (classes,), num_anchors=self.num_classes, labels=classes),
        }

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, w = self.common(embeddings, self.weight)
        return soft_cross_entropy(unit(x)[0], w, labels, self.soft, self.tau)[0]

    def scores(self, embeddings: Tensor) -> Tensor:
        x, w = self.common(embeddings, self.every_weight())
        cosines = unit(x)[0] @ unit(w, -1)[0].flatten(0, 1).T
        return self.soft.logits(cosines.view(len(x), *w.shape[:2]))

    def extra_repr(self) -> str:
        soft = self.soft
        return (
            f"{super().extra_repr()}, centers={self.centers}, scale={soft.scale}, gamma={soft.gamma}, "
            f"margin={soft.margin}, tau={self.tau}"
        )
