"""Variance-invariance-covariance regularisation.

Bardes, Ponce, LeCun (2022): VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning.
arXiv:2105.04906.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.nn.arguments import non_negative, positive
from nearfar.nn.batch import Batch, check_embeddings
from nearfar.nn.labels import Labels
from nearfar.nn.losses import EmbeddingLoss
from nearfar.nn.precision import full_precision
from nearfar.nn.selection import Selection
from nearfar.nn.terms import Terms, element_terms

__all__ = ["VICReg"]


class VICReg(EmbeddingLoss):
    r"""Two views of each sample in one place, and no dimension of either idle or a copy of another.

    .. math::
        L = \frac{\lambda}{n d} \sum_i \lVert z_i - z'_i \rVert^2
            + \frac{\mu}{d} \sum_j [\gamma - \sigma_j]_+ + [\gamma - \sigma'_j]_+
            + \frac{\nu}{d} \sum_{j \neq k} C_{jk}^2 + C'^2_{jk}

    C is the covariance of a view's dimensions, :math:`\sigma_j = \sqrt{C_{jj} + \epsilon}`. No pair of different
    samples is compared, and labels are not looked at.

    Parameters
    ----------
    invariance : float
        [0..inf] λ; 25 as in the paper.
    variance : float
        [0..inf] μ; 25 as in the paper.
    covariance : float
        [0..inf] ν; 1 as in the paper.
    deviation : float
        [units of the embeddings, 0..inf] γ, the standard deviation to keep; 1 as in the paper.
    epsilon : float
        (units of the embeddings squared, 0..inf] ε; 1e-4 as in the paper.
    reducer : nn.Module, optional
        Reduces the sub-losses ``invariance``, ``variance`` and ``covariance`` apart, and their values are added; by
        default the mean over samples of the first, and over dimensions of the other two.

    Raises
    ------
    ArgumentError
        A weight or γ is negative or not finite, or ε is not a finite number above 0.
    InputError
        There is no second view, one of another shape, or a selection.

    Notes
    -----
    Called with the second view as ``ref_emb``, row by row the same samples. Terms are ``element``: of ``invariance``
    the samples, of the others the dimensions. Embeddings are taken as they are. The covariance
    of d dimensions is never made where n samples are fewer: its rows come from the products of the samples then. A
    view of one sample has no variance.

    Deviation: the squared difference of two views is averaged over dimensions, as in the paper's algorithm 1, to which
    its weights belong; its equation 5 sums.

    References
    ----------
    Bardes, Ponce, LeCun (2022), arXiv:2105.04906, equations 1 to 6 and algorithm 1.
    """

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        deviation: float = 1.0,
        epsilon: float = 1e-4,
        *,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(reducer=reducer)
        self.invariance = non_negative("invariance", invariance)
        self.variance = non_negative("variance", variance)
        self.covariance = non_negative("covariance", covariance)
        self.deviation = non_negative("deviation", deviation)
        self.epsilon = positive("epsilon", epsilon)

    def default_distance(self) -> None:
        return None

    def forward(  # type: ignore[override]  # as of all losses on embeddings
        self,
        embeddings: Tensor,
        labels: Labels | None = None,
        indices_tuple: Selection | Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Any:
        """The reduced loss of two views.

        Parameters
        ----------
        embeddings, ref_emb
            (n, d) floating: the two views; half precision is raised to float32.
        labels, ref_labels
            Not looked at.
        indices_tuple
            None.

        Raises
        ------
        InputError
            There is no second view, one of another shape, or a selection.
        """
        if indices_tuple is not None:
            raise InputError("VICReg compares no pairs, so it takes no indices_tuple")
        with full_precision(embeddings):
            first = check_embeddings(embeddings, "embeddings")
            if ref_emb is None:
                raise InputError("VICReg compares two views of the same samples; give the second as ref_emb")
            second = check_embeddings(ref_emb, "ref_emb").to(first.dtype)
            if first.shape != second.shape:
                raise InputError(
                    f"embeddings {tuple(first.shape)} and ref_emb {tuple(second.shape)} differ; they are two views of "
                    "the same samples"
                )
            batch = Batch(first, None, second, None, None, False, (embeddings, ref_emb))
            return self.reduce(self.terms(batch), first, None)

    def terms(self, batch: Batch) -> Mapping[str, Terms]:
        views = batch.embeddings, batch.reference
        apart = (views[0] - views[1]).square().sum(1) / max(1, views[0].shape[1])
        spread = [self._spread(view) for view in views]
        idle, copied = (torch.stack(parts).sum(0) for parts in zip(*spread, strict=True))
        # Elements that are no samples have labels of their own: each dimension is one.
        dimensions = torch.arange(len(idle), device=idle.device)
        return {
            "invariance": element_terms(self.invariance * apart),
            "variance": element_terms(self.variance * idle, labels=dimensions),
            "covariance": element_terms(self.covariance * copied, labels=dimensions),
        }

    def _spread(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """Of each dimension what its deviation lacks, and the sum of its squared covariances with the others: (d,)."""
        n, d = view.shape
        centred = view - view.mean(0) if n else view
        degrees = max(1, n - 1)
        variance = centred.square().sum(0) / degrees
        idle = torch.relu(self.deviation - (variance + self.epsilon).sqrt())
        if d <= n:
            covariance = centred.T @ centred / degrees
            return idle, (covariance - torch.diag_embed(covariance.diagonal())).square().sum(0)
        # Row j of C² has the diagonal entry x_jᵀ (X Xᵀ) x_j / (n − 1)², x_j being a column of X. Dimensions as many as
        # this covary so much, having no more than n − 1 directions, that the difference loses nothing.
        squares = (centred * ((centred @ centred.T) @ centred)).sum(0) / degrees**2
        return idle, squares - variance.square()

    def extra_repr(self) -> str:
        return (
            f"invariance={self.invariance}, variance={self.variance}, covariance={self.covariance}, "
            f"deviation={self.deviation}, epsilon={self.epsilon}"
        )
