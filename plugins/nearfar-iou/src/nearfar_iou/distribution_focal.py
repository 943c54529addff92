"""Distribution focal loss: Li et al. 2020, "Generalized Focal Loss", arXiv:2006.04388."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.nn import Loss, Terms, element_terms
from nearfar.nn.arguments import check_choice
from nearfar_iou.boxes import check_groups, check_normalizer, check_weights

__all__ = ["DistributionFocal"]


class DistributionFocal(Loss):
    r"""Distribution focal loss: a distance as a distribution over whole numbers, raised at the two next to its target.

    .. math::

        L = -(i + 1 - y) \ln p_i - (y - i) \ln p_{i + 1}, \qquad p = \text{softmax}(z), \quad i \le y \le i + 1

    over a box's four distances, from a point to its sides.

    Parameters
    ----------
    coord : str
        What becomes of a box's four values: their ``"mean"`` as in the authors' code, or their ``"sum"``.
    reducer : nn.Module, optional
        ``core.mean`` by default, over boxes.

    Raises
    ------
    ArgumentError
        ``coord`` is unknown.
    InputError
        The logits are not (n, 4, bins) for distances (n, 4), or (n, bins) for (n,), of two bins or more; or (looked at
        on the CPU alone, where it stalls nothing) a distance is no number.

    Notes
    -----
    Called as ``loss(distance_logits, target_distances, box_weights=None, box_normalizer=None, box_groups=None)``.
    Distances are in strides, from 0 to bins − 1; the prediction is the mean of the distribution. One element term a
    box. The least is at p_i = i + 1 − y and is 0 for a whole y, the entropy of the two shares for any other.

    References
    ----------
    Li et al. (2020), arXiv:2006.04388. The mean over four, weighted by the quality of each box and over the sum of
    these weights: ``box_weights`` and ``box_normalizer``.

    Deviations: a distance beyond the last bin is read as the last. mmdet and ultralytics take 0.01 off that, as their
    upper neighbour would be beyond it; ultralytics does so in the caller's own tensor.
    """

    def __init__(self, coord: Literal["mean", "sum"] = "mean", *, reducer: nn.Module | None = None) -> None:
        super().__init__(reducer=reducer)
        self.coord = check_choice(self, "coord", coord, ("mean", "sum"))

    def forward(  # type: ignore[override]  # by name, as its inputs are not alike
        self,
        distance_logits: Tensor,
        target_distances: Tensor,
        box_weights: Tensor | None = None,
        box_normalizer: Tensor | float | None = None,
        box_groups: Tensor | None = None,
    ) -> Any:
        """The reduced loss of boxes.

        Parameters
        ----------
        distance_logits
            (n, 4, bins), or (n, bins).
        target_distances
            (n, 4), or (n,); in strides.
        box_weights
            (n,) What each box's loss is multiplied with.
        box_normalizer
            What ``core.mean`` divides the sum by instead of n.
        box_groups
            (n,) integers: the group of each box, such as its image.

        Raises
        ------
        InputError
            A shape or dtype does not fit, or a distance is no number.
        """
        # Autocast is left on: logits are in full precision from here on, and it takes nothing done to them to half.
        terms = self.terms(distance_logits, target_distances, box_weights, box_normalizer, box_groups)
        return self.reduce(terms, distance_logits, None)

    def terms(
        self,
        distance_logits: Tensor,
        target_distances: Tensor,
        box_weights: Tensor | None = None,
        box_normalizer: Tensor | float | None = None,
        box_groups: Tensor | None = None,
    ) -> Terms:
        logits, distances = _check(distance_logits, target_distances)
        last = logits.shape[-1] - 1
        distances = distances.clamp(0, last)
        lower = distances.detach().long().clamp(0, last - 1)  # of no number, which a GPU is not asked about, too
        neighbours = F.log_softmax(logits, -1).gather(-1, torch.stack((lower, lower + 1), -1))
        each = -torch.lerp(neighbours[..., 0], neighbours[..., 1], distances - lower)
        if each.ndim == 2:
            each = each.mean(1) if self.coord == "mean" else each.sum(1)
        weights = None if box_weights is None else check_weights(box_weights, each)
        normalizer = None if box_normalizer is None else check_normalizer(box_normalizer)
        groups = None if box_groups is None else check_groups(box_groups, each, "box_groups")
        return element_terms(each, weights=weights, normalizer=normalizer, groups=groups)

    def extra_repr(self) -> str:
        return f"coord={self.coord!r}"


def _check(logits: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    for name, given in (("distance_logits", logits), ("target_distances", distances)):
        if not isinstance(given, Tensor):
            raise InputError(f"{name} must be a tensor; got {type(given).__name__}")
    if not logits.is_floating_point() or distances.is_complex() or distances.dtype == torch.bool:
        raise InputError(
            f"distance_logits must be floating and target_distances real numbers; got {logits.dtype} and "
            f"{distances.dtype}"
        )
    if logits.ndim not in (2, 3) or logits.shape[-1] < 2 or logits.shape[:-1] != distances.shape:
        raise InputError(
            f"distance_logits must be (n, 4, bins) for target_distances (n, 4), or (n, bins) for (n,), of two bins or "
            f"more; got {tuple(logits.shape)} and {tuple(distances.shape)}"
        )
    if logits.device != distances.device:
        raise InputError(f"distance_logits are on {logits.device}, target_distances on {distances.device}")
    dtype = torch.promote_types(torch.promote_types(logits.dtype, distances.dtype), torch.float32)
    if distances.device.type == "cpu" and distances.isnan().any():
        raise InputError("target_distances hold what is no number")
    return logits.to(dtype), distances.to(dtype)
