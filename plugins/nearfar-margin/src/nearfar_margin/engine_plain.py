"""The plain engine: all logits at once, differentiated by autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nearfar.nn.class_losses import cross_entropy
from nearfar.nn.vectors import unit
from nearfar_margin.declaration import Declaration, Rows

__all__ = ["plain", "straight_through"]


def plain(loss: Declaration, embeddings: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The loss of each sample, (n,), of embeddings (n, d), class weights (c · centers, d) and labels (n,).

    Of size (n, c) it makes the cosines, the logits and what cross entropy makes of them: no one-hot, no mask.
    """
    dtype = torch.promote_types(embeddings.dtype, weight.dtype)
    x, norm = unit(embeddings.to(dtype))
    w, lengths = unit(weight.to(dtype))
    own, own_length = w[labels], lengths[labels]
    c = x @ w.T
    if (k := loss.centers) > 1:
        centers = labels[:, None] * k + torch.arange(k, device=labels.device)
        nearest = centers.gather(1, c.detach().gather(1, centers).argmax(1, keepdim=True)).squeeze(1)
        own, own_length = w[nearest], lengths[nearest]
        c = c.unflatten(1, (-1, k)).max(2).values
    # From its own rows: exact in float32 also where the matrix product rounds its inputs (TF32).
    t = (x * own).sum(1)

    def over_others(f: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad():
            return f(c.detach().clone()).scatter(1, labels[:, None], 0).sum(1)

    rows = loss.prepare(Rows(t, norm, labels, weight_norm=own_length, embeddings=x, over_others=over_others))
    psi, n = loss.target(t, rows), loss.others(c, rows)
    if loss.detached:
        psi = straight_through(psi, t)
        n = n if n is c else straight_through(n, c)
    factor: Tensor | float = loss.scale
    if loss.embedding_lengths:
        factor = factor * norm
    z_own = psi * factor
    z = n * (factor[:, None] if isinstance(factor, Tensor) and factor.ndim else factor)
    if loss.weight_lengths:
        z_own, z = z_own * own_length, z * lengths
    # z is ours, and a product does not keep its result for the backward pass: it may be written to.
    z = z.scatter_(1, labels[:, None], z_own[:, None])
    return z.sum(1) if loss.pooling == "sum" else cross_entropy(z, labels, loss.label_smoothing)


def straight_through(value: Tensor, argument: Tensor) -> Tensor:
    """``value``, with the gradient of ``argument``."""
    return value.detach() + (argument - argument.detach())
