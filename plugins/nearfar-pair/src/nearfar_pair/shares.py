"""What share each positive has among all that an anchor is compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nearfar_pair.arithmetic import log_add_exp
from nearfar_pair.sides import Rows
from nearfar_pair.sloped import soft_extreme

__all__ = ["log_shares"]


def log_shares(rows: Rows, scale: float) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor | None, Tensor]]]:
    """(r, k) the logarithm of each positive's share in the sum of exp(scale · d) over positives and negatives.

    Where there is no positive it is any finite number. The second is how a gradient (r, k) by the logarithms, 0 where
    there is no positive, goes back to the distances, as a :class:`~nearfar_pair.sloped.Sloped` has it.
    """
    # Each is formed before it is summed, so that large logits cancel rather than their sums.
    d_any = None if torch.is_grad_enabled() else rows.d_any
    if d_any is not None:
        found = torch.log_softmax(d_any * scale, 1)
        return found, lambda by: (None, (by - found.exp().mul_(by.sum(1, keepdim=True))).mul_(scale))
    p, by_ap = soft_extreme(rows.d_ap_or_far, scale)
    n, by_an = soft_extreme(rows.d_an, scale, rows.scratch)
    log_total = log_add_exp(p, n)

    def pull(by: Tensor) -> tuple[Tensor, Tensor]:
        by_total = -by.sum(1)
        to_ap = by_ap(by_total * (p - log_total).exp()).add_(by, alpha=scale)
        return to_ap, by_an(by_total * (n - log_total).exp())

    return rows.d_ap * scale - log_total[:, None], pull
