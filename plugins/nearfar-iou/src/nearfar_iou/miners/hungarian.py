"""Bipartite matching: Carion et al. 2020, "DETR", arXiv:2005.12872."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.arguments import check_choice, non_negative
from nearfar_iou.distances.giou import GIoUSimilarity
from nearfar_iou.logits import check_logits
from nearfar_iou.miners.box_matcher import BACKGROUND, Assigned, BoxMatcher, Image
from nearfar_iou.miners.class_logits import class_logits

__all__ = ["Hungarian"]


class Hungarian(BoxMatcher):
    r"""The pairs of predictions and targets that cost least altogether, one prediction for each target.

    .. math:: c_{ij} = -\lambda_c \, p_{i c_j} + \lambda_1 \lVert b_i - b_j \rVert_1 - \lambda_s \, s_{ij}

    where p are the scores of the class of target j, and s similarities. Without ``logits`` the first term is left out.
    Of more targets than predictions some have none. Ties are decided as scipy does. It runs on the CPU.

    Parameters
    ----------
    class_weight : float
        [0..inf] λ_c; 1 as in the paper's code.
    box_weight : float
        [0..inf] λ_1; 5 as in the paper, for boxes ``cxcywh`` in sizes of the image.
    overlap_weight : float
        [0..inf] λ_s; 2 as in the paper.
    activation : str
        What makes scores of logits: ``"softmax"`` as in the paper, or ``"sigmoid"``.
    distance : nn.Module, optional
        A similarity of boxes; ``giou`` by default.

    Raises
    ------
    ArgumentError
        A weight is negative, all are 0, or ``activation`` is unknown.
    InputError
        When called: a cost is not finite.

    References
    ----------
    Carion et al. (2020), arXiv:2005.12872, section 3.1. Deviations: none.
    """

    optional_inputs: ClassVar[tuple[str, ...]] = ("logits", "targets", "pred_groups", "target_groups")

    def __init__(
        self,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        overlap_weight: float = 2.0,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        *,
        distance: nn.Module | None = None,
    ) -> None:
        super().__init__(distance=distance)
        self.class_weight = non_negative("class_weight", class_weight)
        self.box_weight = non_negative("box_weight", box_weight)
        self.overlap_weight = non_negative("overlap_weight", overlap_weight)
        if not (self.class_weight or self.box_weight or self.overlap_weight):
            raise ArgumentError("Hungarian: all weights are 0, so nothing costs more than anything else")
        self.activation = check_choice(self, "activation", activation, ("softmax", "sigmoid"))

    def default_distance(self) -> nn.Module:
        return GIoUSimilarity()

    def assign(self, image: Image) -> Assigned:
        from scipy.optimize import linear_sum_assignment

        cost = self.costs(image)
        if not bool(cost.isfinite().all()):
            raise InputError("Hungarian: boxes or logits are not finite, so what a pair costs is not either")
        rows, columns = linear_sum_assignment(cost.double().cpu().numpy())
        found = torch.full((len(cost),), BACKGROUND, dtype=torch.int64)
        found[torch.from_numpy(rows)] = torch.from_numpy(columns)
        return Assigned(found.to(cost.device))

    def costs(self, image: Image) -> Tensor:
        """(n, m): what each pair costs."""
        cost = -self.overlap_weight * self.similarity(image.pred, image.target)
        if self.box_weight:
            cost += self.box_weight * torch.cdist(image.pred, image.target, p=1)
        if image.logits is not None and self.class_weight:
            # The logarithm of a softmax: its exponential at a class is the score of that class.
            logits = check_logits(image.logits if image.logits.ndim == 2 else image.logits[:, None])
            by_softmax = self.activation == "softmax"
            own = class_logits(logits.log_softmax(1) if by_softmax else logits, image.classes).to(cost.dtype)
            cost -= self.class_weight * (own.exp() if by_softmax else own.sigmoid())
        return cost

    def extra_repr(self) -> str:
        return (
            f"class_weight={self.class_weight}, box_weight={self.box_weight}, overlap_weight={self.overlap_weight}, "
            f"activation={self.activation!r}"
        )
