"""How far apart the embeddings of a batch are, and whether they are becoming one point."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from nearfar.errors import CollapseWarning

#: Below this spread the mean cosine of two embeddings is over 0.999.
COLLAPSED = 0.03


@torch.no_grad()
def spread(embeddings: Tensor) -> Tensor:
    r"""The root of the total variance of embeddings scaled to length 1; a 0-d tensor in [0, 1].

    .. math:: \sqrt{1 - \lVert \bar z \rVert^2}, \qquad z_i = x_i / \lVert x_i \rVert

    0 where all point the same way, 1 where they cancel; :math:`\lVert \bar z \rVert^2` is the mean cosine of all pairs.
    Zero vectors point nowhere and count as the same point.

    Parameters
    ----------
    embeddings : Tensor, shape (batch, dim)
        Of any length.
    """
    unit = F.normalize(embeddings.detach().double())
    # Around their mean, because 1 − |z̄|² loses what is left of a small spread.
    return (unit - unit.mean(0)).square().sum(1).mean().clamp(0, 1).sqrt()


class CollapseWatch:
    """Gives one :class:`~nearfar.errors.CollapseWarning` when the embeddings become a point.

    Parameters
    ----------
    from_step : int
        Untrained networks often map everything to nearly one point, so that nothing is said before this step.
    """

    def __init__(self, from_step: int) -> None:
        self.from_step = from_step
        self.warned = False

    def see(self, spread: float, step: int) -> None:
        """Look at the spread after a step."""
        if self.warned or step < self.from_step or not spread < COLLAPSED:
            return
        self.warned = True
        warnings.warn(
            f"the embeddings are collapsing to a point: after step {step} their spread is {spread:.2g} of 1; lower "
            "optimizer.lr, or choose a criterion whose negatives still push, such as sup_con or triplet with "
            "miner=semihard",
            CollapseWarning,
            stacklevel=2,
        )
