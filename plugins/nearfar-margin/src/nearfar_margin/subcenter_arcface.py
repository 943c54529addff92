"""Sub-center ArcFace: Deng et al. 2020 (ECCV)."""

from __future__ import annotations

import math
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import within
from nearfar.nn.batch import check_embeddings, check_labels
from nearfar.nn.vectors import unit
from nearfar_margin.angles import angle, widened
from nearfar_margin.declaration import Rows
from nearfar_margin.margin_softmax import CommonArguments, MarginSoftmax
from nearfar_margin.scales import scale_of

__all__ = ["SubcenterArcFace"]


class SubcenterArcFace(MarginSoftmax):
    r"""ArcFace with several vectors a class, of which the nearest counts; the noise of a class gathers at the others.

    .. math::

        L_i = -\log \frac{e^{s \psi(\theta_{i y_i})}}
                         {e^{s \psi(\theta_{i y_i})} + \sum_{j \ne y_i} e^{s \cos\theta_{ij}}},
        \qquad \cos\theta_{ij} = \max_{k \le K} \frac{x_i \cdot w_{jk}}{\|x_i\| \|w_{jk}\|}

    with ArcFace's ψ(θ) = cos(θ + m), and cos θ − m sin m beyond θ + m = π. Once it is trained, :meth:`outliers` says
    which samples are far from the center that most of their class are nearest to, its dominant one; the paper leaves
    those out and trains again with one center, which :meth:`dominant` gives a start.

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    centers : int
        [1..inf] Vectors of each class, K; 3 as in the paper.
    margin : float
        [radians, 0..pi] Additive angular margin m; 0.5 as in the paper.
    scale : float or "auto"
        (0..inf] What the logits are multiplied with, s; 64 as in the paper. "auto": the least with which a probability
        of 0.99 can be reached in spite of the margin, :func:`~nearfar_margin.scales.least_scale`.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``weight`` (num_classes, centers, embedding_size), without the middle
    one for one center, starts normal with a standard deviation of 0.01. A reference set is not taken; what a miner
    selects weighs the elements.

    Raises
    ------
    ArgumentError
        ``centers`` is no whole number of at least 1, the margin is out of its range, or so large that no scale is
        enough, or the scale is neither a number above 0 nor "auto".
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    Deng, Guo, Liu, Gong, Zafeiriou (2020). Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web
    Faces. ECCV.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        centers: int = 3,
        margin: float = 0.5,
        scale: float | Literal["auto"] = 64.0,
        **kwargs: Unpack[CommonArguments],
    ) -> None:
        if not isinstance(centers, int) or isinstance(centers, bool) or centers < 1:
            raise ArgumentError(f"SubcenterArcFace: centers must be a whole number of at least 1; got {centers!r}")
        own = math.cos(within("margin", margin, 0.0, math.pi, "radians"))
        number = scale_of("SubcenterArcFace", scale, num_classes, own=own)
        super().__init__(num_classes, embedding_size, scale=number, **kwargs)
        if centers > 1:
            self.weight = nn.Parameter(torch.empty(num_classes, centers, embedding_size))
            self.draw(self.weight)
        self.centers = centers
        self.margin = margin

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        return widened(t, self.margin)

    @torch.no_grad()
    def dominant(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The center of each class that most of its samples are nearest to.

        Parameters
        ----------
        embeddings
            (n, embedding_size) of the whole data set.
        labels
            (n,) class ids.

        Returns
        -------
        Tensor
            (num_classes, embedding_size): the ``weight`` of a loss with one center. Of a class without samples, and of
            centers with equally many, the first.
        """
        x, labels = self._checked(embeddings, labels)
        w, _ = unit(self._centers(), -1)
        nearest = (x[:, None] * w[labels]).sum(2).argmax(1)
        counts = self.weight.new_zeros(self.num_classes * self.centers)
        counts.index_add_(0, labels * self.centers + nearest, counts.new_ones(len(labels)))
        chosen = counts.view(self.num_classes, self.centers).argmax(1)
        return self._centers()[torch.arange(self.num_classes, device=chosen.device), chosen].clone()

    @torch.no_grad()
    def outliers(self, embeddings: Tensor, labels: Tensor, *, angle_above: float = math.radians(75)) -> Tensor:
        """Which samples are far from the dominant center of their class.

        Parameters
        ----------
        embeddings
            (n, embedding_size) of the whole data set.
        labels
            (n,) class ids.
        angle_above
            [radians, 0..pi] Angle beyond which a sample is an outlier; 75 degrees as in the paper.

        Returns
        -------
        Tensor
            (n,) of bool.
        """
        within("angle_above", angle_above, 0.0, math.pi, "radians")
        x, labels = self._checked(embeddings, labels)
        center, _ = unit(self.dominant(embeddings, labels))
        return angle((x * center[labels]).sum(1)) > angle_above

    def _centers(self) -> Tensor:
        return self.weight.detach().view(self.num_classes, self.centers, self.embedding_size)

    def _checked(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings in the dtype of the centers, and their labels."""
        embeddings = check_embeddings(embeddings, "embeddings")
        self._check_size(embeddings)
        labels = check_labels(labels, embeddings, "labels")
        self._check_range(labels)
        return unit(embeddings.to(self.weight.dtype))[0], labels

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, centers={self.centers}, margin={self.margin}"
