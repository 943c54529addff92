"""The plain engine: all logits at once, differentiated by autograd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nearfar.nn.vectors import unit
from nearfar_margin.declaration import Declaration, Rows

__all__ = ["cross_entropy", "plain"]

#: No label is this one: torch's own default of −100 would silence a wrong label of −100 on a GPU.
NO_LABEL = torch.iinfo(torch.int64).min


def plain(loss: Declaration, embeddings: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The cross entropy of each sample, (n,), of embeddings (n, d), class weights (c, d) and labels (n,).

    Of size (n, c) it makes the cosines, the logits and what cross entropy makes of them: no one-hot, no mask.
    """
    x, norm = unit(embeddings)
    w, _ = unit(weight)
    # From its own rows: exact in float32 also where the matrix product rounds its inputs (TF32).
    t = (x * w[labels]).sum(1)
    rows = loss.prepare(Rows(t=t, norm=norm, labels=labels))
    c = x @ w.T
    psi, n = loss.target(t, rows), loss.others(c, rows)
    if loss.detached:
        psi = _straight_through(psi, t)
        n = n if n is c else _straight_through(n, c)
    z = n * loss.scale
    # z is ours, and a product does not keep its result for the backward pass: it may be written to.
    return cross_entropy(z.scatter_(1, labels[:, None], (psi * loss.scale)[:, None]), labels)


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The cross entropy of each row of ``logits``, ``smoothing`` / c on every class."""
    return F.cross_entropy(logits, labels, ignore_index=NO_LABEL, label_smoothing=smoothing, reduction="none")


def _straight_through(value: Tensor, argument: Tensor) -> Tensor:
    """``value``, with the gradient of ``argument``."""
    return value.detach() + (argument - argument.detach())
