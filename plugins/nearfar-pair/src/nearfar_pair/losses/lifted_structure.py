"""Lifted structure loss.

Oh Song, Xiang, Jegelka, Savarese (2016): Deep Metric Learning via Lifted Structured Feature Embedding.
arXiv:1511.06452.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from nearfar.nn.arguments import check_choice, finite
from nearfar_pair.arithmetic import log_add_exp
from nearfar_pair.end_losses import BothEndsLoss, Cost, Costs, share_of_larger
from nearfar_pair.ends import BothEnds
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import Pull, nearest, soft_extreme

__all__ = ["LiftedStructure"]


class LiftedStructure(BothEndsLoss):
    r"""Each positive pair against the negatives of both its ends.

    .. math::
        L_{ij} = \tfrac{1}{2} [J_{ij}]_+^2, \qquad
        J_{ij} = d_{ij} + \log \left(\sum_{k \in N_i} e^{\alpha - d_{ik}} + \sum_{l \in N_j} e^{\alpha - d_{jl}}\right)

    with ``form="hard"`` the original, of which this is a smooth upper bound:
    :math:`J_{ij} = d_{ij} + \max(\max_k \alpha - d_{ik}, \max_l \alpha - d_{jl})`.

    Parameters
    ----------
    margin : float
        [units of the distance, -inf..inf] α; 1 as in the paper.
    form : {"smooth", "hard"}
        The upper bound that the paper trains with, or the loss that it bounds.
    distance : nn.Module, optional
        What d is, a similarity being negated; Euclidean distance of normalised embeddings by default.
    reducer : nn.Module, optional
        By default the mean over the positive pairs: the paper's 1 / (2 |P|).

    Raises
    ------
    ArgumentError
        The margin is not a finite number, or the form is unknown.

    Notes
    -----
    Terms are ``pos_pair``, one for each ordered positive pair of which an end has a negative. With a
    reference set the negatives of its end of the pair are the embeddings of other classes. Pairs from a miner count
    once each, however often they were selected; the negatives of an end are those selected for it as an anchor, or with
    it as the reference.

    Deviation: embeddings are normalised by the default distance; the paper's are not.

    References
    ----------
    Oh Song et al. (2016), arXiv:1511.06452, equations 3 and 4.
    """

    def __init__(
        self,
        margin: float = 1.0,
        form: Literal["smooth", "hard"] = "smooth",
        *,
        distance: nn.Module | None = None,
        reducer: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance, reducer=reducer)
        self.margin = finite("margin", margin)
        self.form = check_choice(self, "form", form, ("smooth", "hard"))

    def threat(self, rows: Rows) -> tuple[Tensor, Pull]:
        if self.form == "smooth":
            return soft_extreme(rows.d_an, -1, rows.scratch)
        return nearest(rows.d_an)

    def cost(self) -> Cost:
        return self._cost

    def _cost(self, ends: BothEnds) -> Costs:
        join, share = (log_add_exp, _share) if self.form == "smooth" else (torch.maximum, share_of_larger)
        # Where there is no pair, or no negative, it is far below zero.
        J = torch.relu(ends.d_ap + join(ends.anchor, ends.positive) + self.margin)

        def pull(by: Any) -> tuple[Tensor, Tensor, Tensor]:
            by_J = J * by
            by_anchor = share(ends.anchor, ends.positive) * by_J
            return by_J, by_anchor, by_J - by_anchor

        return Costs(J.square() / 2, pull)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, form={self.form!r}"


def _share(x: Tensor, y: Tensor) -> Tensor:
    """How much of a gradient by log(eˣ + eʸ) goes to x."""
    return torch.sigmoid(x - y)
