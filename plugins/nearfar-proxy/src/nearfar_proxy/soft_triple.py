"""SoftTriple: Qian et al., ICCV 2019 (1909.05235)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn import ClassLoss
from nearfar.nn.arguments import non_negative, positive, within
from nearfar.nn.batch import Batch
from nearfar.nn.terms import MaterialTerms, Terms, element_terms
from nearfar.nn.vectors import unit
from nearfar_proxy.soft_cosines import SoftCosines, soft_cross_entropy

__all__ = ["SoftTriple"]


class SoftTriple(ClassLoss):
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
    reducer : nn.Module, optional
        Reduction of the samples' losses, and of the classes', which are added; the mean of each, as in the formula,
        unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, centers, embedding_size) starts uniform; the
    lengths of the centres do not enter the value. Between two centres that are the same there is no gradient. A miner
    weighs the samples; with none selected the centres cost nothing either.

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
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        if not isinstance(centers, int) or isinstance(centers, bool) or centers < 1:
            raise ArgumentError(f"SoftTriple: centers must be a whole number of at least 1; got {centers!r}")
        self.centers = centers
        self.soft = SoftCosines(
            scale=positive("scale", scale),
            gamma=within("gamma", gamma, 0.001, float("inf")),
            margin=within("margin", margin, 0.0, 2.0),
        )
        self.tau = non_negative("tau", tau)
        self.weight = nn.Parameter(torch.empty(num_classes, centers, embedding_size))
        nn.init.kaiming_uniform_(self.weight.view(-1, embedding_size), a=5**0.5)

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        labels, weights = self.checked(batch)
        x, w = self.common(batch.embeddings, self.weight)
        values, apart = soft_cross_entropy(unit(x)[0], w, labels, self.soft, self.tau)
        said = len(labels) > 0 if weights is None else (weights > 0).any()
        classes = torch.arange(self.num_classes, device=labels.device)
        return {
            "loss": element_terms(values, weights=weights, labels=labels),
            "regularizer": MaterialTerms(
                "element", apart * said, (classes,), num_anchors=self.num_classes, labels=classes
            ),
        }

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, w = self.common(embeddings, self.weight)
        return soft_cross_entropy(unit(x)[0], w, labels, self.soft, self.tau)[0]

    def scores(self, embeddings: Tensor) -> Tensor:
        x, w = self.common(embeddings, self.weight)
        return self.soft.logits(unit(x)[0] @ unit(w, -1)[0].permute(1, 2, 0))

    def extra_repr(self) -> str:
        soft = self.soft
        return (
            f"{super().extra_repr()}, centers={self.centers}, scale={soft.scale}, gamma={soft.gamma}, "
            f"margin={soft.margin}, tau={self.tau}"
        )
