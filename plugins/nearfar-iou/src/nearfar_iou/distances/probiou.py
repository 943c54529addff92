"""ProbIoU as a similarity: Llerena et al. (2021), arXiv:2106.06072."""

from __future__ import annotations

from torch import Tensor

from nearfar_iou.distances.box_similarity import LAID_OUT, PairSimilarity, each_with_each, tiles
from nearfar_iou.gaussians import Gaussians
from nearfar_iou.probiou import ProbIoU

__all__ = ["ProbIoUSimilarity"]


class ProbIoUSimilarity(PairSimilarity):
    r"""ProbIoU of every pair of rotated boxes, in [0, 1]; larger is nearer.

    .. math:: s(a, b) = 1 - H, \qquad H = \sqrt{1 - e^{-B}}

    where B is the Bhattacharyya distance of two normal distributions, of the means and the variances of the boxes, and
    H that of Hellinger. Boxes are ``cxcywhr``, (n, 5): centre, sides, and the angle in radians by which the first side
    is turned from the x axis towards the y axis.

    A side less than 1e-4 of the longest of both boxes, or of the way from centre to centre, is read as so long, an
    inverted one too. The table is made in small pieces; the gradient cannot be differentiated again, and of two equal
    boxes, where H has the shape of a cone, it is 0.

    References
    ----------
    Llerena et al. (2021), arXiv:2106.06072.
    """

    width = 5

    def table(self, query: Tensor, reference: Tensor, out: Tensor) -> None:
        loss = ProbIoU()
        for rows, columns in tiles(out, LAID_OUT):
            pair = Gaussians(*each_with_each(query[:, rows], reference[:, columns]), charge=False)
            value, _ = loss.measure(pair, slopes=False)
            part = out[rows, columns]
            part.copy_(value.neg_().add_(1).view(part.shape))

    def slopes(self, query: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pair = Gaussians(query, reference, charge=False)
        value, slopes = ProbIoU().measure(pair, slopes=True)
        assert slopes is not None
        by_query, by_reference = pair.gradients(slopes, for_target=True)
        assert by_reference is not None
        return 1 - value, -by_query, -by_reference
