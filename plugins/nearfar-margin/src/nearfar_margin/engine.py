"""The plain engine: all logits at once, differentiated by autograd."""

from __future__ import annotations

from torch import Tensor

from nearfar.nn.class_losses import cross_entropy
from nearfar.nn.vectors import unit
from nearfar_margin.declaration import Declaration, Rows

__all__ = ["plain"]


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


def _straight_through(value: Tensor, argument: Tensor) -> Tensor:
    """``value``, with the gradient of ``argument``."""
    return value.detach() + (argument - argument.detach())
