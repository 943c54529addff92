"""Island loss: Cai et al. 2017 (1710.03144)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import non_negative
from nearfar.nn.batch import Batch
from nearfar.nn.terms import MaterialTerms, Terms, element_terms
from nearfar.nn.vectors import scaled, through_unit, unit
from nearfar_proxy.center import Center
from nearfar_proxy.starts import CenterStart

__all__ = ["Island"]


class Island(Center):
    r"""Center loss, and the cosines of all pairs of centres, so that classes lie apart like islands.

    .. math::

        L = \sum_i \tfrac12 \lVert x_i - c_{y_i} \rVert^2
            + \lambda_1 \sum_j \sum_{k \ne j} (u_j \cdot u_k + 1), \qquad u_j = c_j / \lVert c_j \rVert

    and once a step in training the centres move by that of :class:`~nearfar_proxy.center.Center`, and away from
    each other:

    .. math::

        c_j \leftarrow c_j - \alpha \left( \Delta c_j + \frac{\lambda_1}{C - 1}
        \sum_{k \ne j} \frac{u_k - (u_j \cdot u_k) u_j}{\lVert c_j \rVert} \right)

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes, each with one centre.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    factor : float
        [0..inf] What the sum over pairs is multiplied with, λ₁; 10 as in the paper.
    alpha : float
        [0..1] How far centres move, α; 0.5 as in the paper. For ``update="paper"`` only.
    update : {"paper", "gradient"}
        How centres move. ``paper``: by the rule above; they are a buffer. ``gradient``: they are a parameter
        for the optimiser.
    init : {"zero", "normal", "orthogonal"}
        Where centres start, as in :class:`~nearfar_proxy.center.Center`.
    normalize : bool
        Whether embeddings are scaled to length one first, as in :class:`~nearfar_proxy.center.Center`.
    reducer : nn.Module, optional
        Reduction of the samples' losses, and of those of the centres, which are added; the mean of each unless
        given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``centers`` (num_classes, embedding_size) that start at
    zero have no direction: their cosines are taken for 0, and a centre at zero is not moved by others. The paper
    adds the loss to a softmax times 0.01. The sum over pairs is that of :math:`\lVert \sum_j u_j \rVert^2`: no
    C × C matrix is made. A miner weighs the samples; with none selected, the centres' losses are 0 too.

    Raises
    ------
    ArgumentError
        ``update`` is neither of the two, ``alpha`` is out of range, or ``factor`` is negative.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Cai, Meng, Khan, Li, O'Reilly, Tong (2017). Island Loss for Learning Discriminative Features in Facial
    Expression Recognition. arXiv:1710.03144, equations 6 and 7.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        factor: float = 10.0,
        alpha: float = 0.5,
        update: Literal["paper", "gradient"] = "paper",
        init: CenterStart = "zero",
        normalize: bool = False,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(
            num_classes, embedding_size, alpha=alpha, update=update, init=init, normalize=normalize, reducer=reducer
        )
        self.factor = non_negative("factor", factor)

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        labels, weights = self.checked(batch)
        # Before the losses, at the end of which the centres may move.
        (centers,) = self.common(self.centers)
        u, _ = unit(centers)
        cosines = (u * (u.sum(0) - u)).sum(1)
        apart = self.factor * (cosines + (self.num_classes - 1))
        near = element_terms(self.losses(batch.embeddings, labels), weights=weights, labels=labels)
        said = len(labels) > 0 if weights is None else (weights > 0).any()
        classes = torch.arange(self.num_classes, device=labels.device)
        islands = MaterialTerms("element", apart * said, (classes,), num_anchors=self.num_classes, labels=classes)
        return {"center": near, "island": islands}

    def _move(self, offsets: Tensor, labels: Tensor) -> None:
        u, lengths, have_direction = scaled(self.centers)
        others = u.sum(0) - u
        pull = through_unit(others, u, lengths, have_direction=have_direction)
        super()._move(offsets, labels)
        self.centers -= self.alpha * self.factor / max(self.num_classes - 1, 1) * pull

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, factor={self.factor}"
