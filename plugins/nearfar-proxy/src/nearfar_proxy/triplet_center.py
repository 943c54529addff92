"""Triplet-center loss: He et al., CVPR 2018 (1803.06189)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn import ClassLoss
from nearfar.nn.arguments import non_negative
from nearfar_proxy.blocks import blocks
from nearfar_proxy.starts import CentreStart, centres

__all__ = ["TripletCenter"]


class TripletCenter(ClassLoss):
    r"""The own centre must be nearer than the nearest other one, by a margin.

    .. math::

        L_i = \left[ \tfrac12 \lVert x_i - c_{y_i} \rVert^2 + m
              - \min_{j \ne y_i} \tfrac12 \lVert x_i - c_j \rVert^2 \right]_+

    Parameters
    ----------
    num_classes : int
        [2..inf] Number of classes, each with one centre.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    margin : float
        [half a squared distance, 0..inf] The margin m; 5 as in the paper, for embeddings of its size.
    init : {"normal", "orthogonal", "zero"}
        Where centres start: normal of variance 1; at right angles, as far as there are dimensions, and as long; or at
        zero. :func:`nearfar_proxy.starts.initialize` has them start at the means of a first pass.
    reducer : nn.Module, optional
        Reduction of the elements' losses; the mean unless given.

    Notes
    -----
    Embeddings (n, embedding_size), labels (n,). ``centers`` (num_classes, embedding_size) are a parameter for the
    optimiser. The value depends on the length of the embeddings. A miner weighs the elements. The
    nearest centre is looked for in blocks of classes, so nothing of size n × num_classes is held; of several that
    are equally near the one of the lowest class is taken.

    Raises
    ------
    ArgumentError
        The margin is negative, or there is a single class.
    InputError
        A label is outside [0, num_classes) (checked on the CPU), or a shape does not fit.

    References
    ----------
    He, Zhou, Zhou, Bai, Bai (2018). Triplet-Center Loss for Multi-View 3D Object Retrieval. CVPR.
    arXiv:1803.06189, equations 3 and 4.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        margin: float = 5.0,
        init: CentreStart = "normal",
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        if num_classes < 2:
            raise ArgumentError("TripletCenter: num_classes must be at least 2, or there is no other centre")
        self.margin = non_negative("margin", margin)
        self.centers = nn.Parameter(centres(self, init, num_classes, embedding_size))

    def losses(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x, centers = self.common(embeddings, self.centers)
        other = _nearest_other(x, centers, labels)
        near, far = ((x - centers[which]).square().sum(1) / 2 for which in (labels, other))
        return (near - far + self.margin).relu()

    def scores(self, embeddings: Tensor) -> Tensor:
        x, centers = self.common(embeddings, self.centers)
        return x @ centers.T - centers.square().sum(1) / 2

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, margin={self.margin}"


@torch.no_grad()
def _nearest_other(x: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """(n,) the class, not a sample's own, whose centre is nearest to it."""
    best = x.new_full((len(x),), torch.inf)
    found = (labels == 0).long()
    # From the middle of the centres, so that their distances are no small differences of large products.
    middle = centers.mean(0)
    x, centers = x - middle, centers - middle
    for block in blocks(len(x), centers):
        some = centers[block]
        # ‖x − c‖² less ‖x‖², which all centres share
        distances = some.square().sum(1) - 2 * (x @ some.T)
        own = labels[:, None] == torch.arange(block.start, block.stop, device=labels.device)
        least, at = distances.masked_fill_(own, torch.inf).min(1)
        nearer = least < best
        best, found = torch.where(nearer, least, best), torch.where(nearer, at + block.start, found)
    return found
