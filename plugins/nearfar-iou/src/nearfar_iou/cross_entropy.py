"""Cross-entropy with label smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture", 1512.00567."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import within
from nearfar.nn.matching import Matches
from nearfar_iou.logits import check_class_ids, check_ids
from nearfar_iou.score_loss import ScoreLoss, matched_ids

__all__ = ["CrossEntropy"]

#: What no class id is.
NO_ID = torch.iinfo(torch.int64).min
#: The class of what is no object.
BACKGROUND = 0


class CrossEntropy(ScoreLoss):
    r"""Cross-entropy of logits and class ids, with label smoothing.

    .. math::

        L = -\sum_c \left( (1 - \varepsilon)\, [c = y] + \varepsilon / C \right) \ln p_c, \qquad
        p = \text{softmax}(z)

    over the C classes.

    Parameters
    ----------
    label_smoothing : float
        [0..1] ε: what is taken from the target and spread evenly over all classes; 0 for none, 0.1 in the paper.
    ignore_index : int, optional
        The id of elements that cost nothing and that a mean does not count. None: there are none, and an id out of
        range is an error, −100 too, which torch ignores unasked.
    reducer : nn.Module, optional
        ``core.mean`` by default.

    Raises
    ------
    ArgumentError
        ``label_smoothing`` is outside of 0..1, or ``ignore_index`` no whole number.
    InputError
        The logits are not (n, classes), or the targets not class ids (n,) below the number of classes; on a GPU, where
        to look would be to wait, the program ends on an id out of range.

    Notes
    -----
    A detector's background is a class like any other; to matchers and to miners of elements it is class 0. With label
    smoothing the least is not 0 but the entropy of the smoothed target, at logits that differ by
    ln((C − ε (C − 1)) / ε).

    References
    ----------
    Szegedy et al. (2016), arXiv:1512.00567, section 7. Deviations: none.
    """

    def __init__(
        self, label_smoothing: float = 0.0, ignore_index: int | None = None, *, reducer: nn.Module | None = None
    ) -> None:
        super().__init__(reducer=reducer)
        self.label_smoothing = within("label_smoothing", label_smoothing, 0, 1)
        if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, int)):
            raise ArgumentError(f"ignore_index is a whole number, or None for none; got {ignore_index!r}")
        self.ignore_index = ignore_index

    def values(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, targets = check_class_ids(logits, targets)
        kept = None
        if self.ignore_index is not None:
            kept = targets != self.ignore_index
            check_ids(torch.where(kept, targets, 0), logits.shape[1])
            targets = torch.where(kept, targets, NO_ID)
        else:
            check_ids(targets, logits.shape[1])
        values = F.cross_entropy(
            logits, targets, ignore_index=NO_ID, label_smoothing=self.label_smoothing, reduction="none"
        )
        return values, None if kept is None else kept.sum()

    def is_positive(self, targets: Tensor) -> Tensor | None:
        return targets != BACKGROUND

    def matched_targets(self, matches: Matches, logits: Tensor, classes: Tensor | None) -> Tensor:
        return matched_ids(matches, logits, classes, BACKGROUND)

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}, ignore_index={self.ignore_index}"
