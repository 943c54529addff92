"""Contrastive-center loss: Qi and Su 2017 (1707.07391)."""

from __future__ import annotations

from torch import Tensor, nn

from nearfar.nn import ClassLoss
from nearfar.nn.arguments import positive
from nearfar_proxy.starts import CentreStart, centres

__all__ = ["ContrastiveCenter"]


class ContrastiveCenter(ClassLoss):
    r"""The squared distance to the own centre, over the sum of those to all others.

    .. math::

        L_i = \tfrac12 \frac{\lVert x_i - c_{y_i} \rVert^2}{\delta + \sum_{j \ne y_i} \lVert x_i - c_j \rVert^2}

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes, each with one centre.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    delta : float
        (0..inf] What is added below, δ, so that nothing is divided by 0; 1 as in the paper.
    init : {"normal", "orthogonal", "zero"}
        Where centres start: normal of variance 1; at right angles, as far as there are dimensions, and as long; or at
        zero. :func:`nearfar_proxy.starts.initialize` has them start at the means of a first pass.
    reducer : nn.Module, optional
        Reduction of the elements' losses; the mean unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``centers`` (num_classes, embedding_size) are a parameter for the
    optimiser. The value depends on the length of the embeddings. A miner weighs the elements.

    The sum over all classes is :math:`C \lVert x - \bar c \rVert^2 + \sum_j \lVert c_j - \bar c \rVert^2` with
    :math:`\bar c` the mean of the C centres: nothing of size n × C is made.

    Raises
    ------
    ArgumentError
        ``delta`` is not positive.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Qi, Su (2017). Contrastive-center Loss for Deep Neural Networks. arXiv:1707.07391, equation 5.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        delta: float = 1.0,
        init: CentreStart = "normal",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        self.delta = positive("delta", delta)
        self.centers = nn.Parameter(centres(self, init, num_classes, embedding_size))

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, centers = self.common(embeddings, self.centers)
        middle = centers.mean(0)
        own = (x - centers[labels]).square().sum(1)
        spread = (centers - middle).square().sum()
        every = self.num_classes * (x - middle).square().sum(1) + spread
        # Below 0 only by rounding, where the own centre is almost all of the sum.
        others = (every - own).clamp_min(0)
        return own / (2 * (others + self.delta))

    def scores(self, embeddings: Tensor) -> Tensor:
        x, centers = self.common(embeddings, self.centers)
        return x @ centers.T - centers.square().sum(1) / 2

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, delta={self.delta}"
