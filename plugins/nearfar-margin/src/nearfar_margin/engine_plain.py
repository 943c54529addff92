"""The plain engine: all logits at once, differentiated by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.nn.class_losses import cross_entropy
from nearfar.nn.vectors import unit
from nearfar_margin.declaration import Declaration, Rows
from nearfar_margin.detaching import straight_through
from nearfar_margin.sample import Sample

__all__ = ["cosines", "plain"]


def plain(
    loss: Declaration, embeddings: Tensor, weight: Tensor, labels: Tensor, *, sample: Sample | None = None
) -> Tensor:
    """The loss of each sample, (n,), of embeddings (n, d), class weights and labels (n,).

    Weights are (c, d), or (c, k, d) where each class has k vectors and the nearest counts. Of size (n, c) it makes the
    cosines, the logits and what cross entropy makes of them: no one-hot, no mask. With a ``sample`` the weights are
    those of its classes.
    """
    places = labels if sample is None else sample.places
    dtype = torch.promote_types(embeddings.dtype, weight.dtype)
    x, norm = unit(embeddings.to(dtype))
    w, weight_norm = unit(weight.to(dtype), -1)
    # From its own rows: exact in float32 also where the matrix product rounds its inputs (TF32).
    own = w[places]
    t = (x * own).sum(1) if w.ndim == 2 else (x[:, None] * own).sum(2).amax(1)
    rows = loss.prepare(Rows(t=t, norm=norm, labels=labels, embeddings=x))
    c = cosines(x, w)
    if loss.surveys:
        rows = _surveyed(loss, c.detach(), rows, places, sample)
    psi, n = loss.target(t, rows), loss.others(c, rows)
    if loss.separate:
        return psi + n.scatter(1, places[:, None], 0).sum(1)
    if loss.detached:
        psi = straight_through(psi, t)
        n = n if n is c else straight_through(n, c)
    # A copy, because the next call may change a scale that it keeps, and this one's backward pass needs it.
    scale = loss.scale.clone() if isinstance(loss.scale, Tensor) else loss.scale
    z = n * scale
    # z is ours, and a product does not keep its result for the backward pass: it may be written to.
    z = z.scatter_(1, places[:, None], (psi * scale)[:, None])
    if loss.times_norm:
        z = z * norm[:, None]
    if loss.times_weight_norm:
        z = z * weight_norm
    return cross_entropy(z, places, loss.spread)


def cosines(x: Tensor, w: Tensor) -> Tensor:
    """The cosine (n, c) of unit embeddings (n, d) and each class, of unit weights (c, d) or (c, k, d)."""
    if w.ndim == 2:
        return x @ w.T
    # Of several that are equally near each gets its share of the gradient.
    return (x @ w.flatten(0, 1).T).view(len(x), *w.shape[:2]).amax(2)


@torch.no_grad()
def _surveyed(loss: Declaration, c: Tensor, rows: Rows, places: Tensor, sample: Sample | None) -> Rows:
    others = (each.scatter(1, places[:, None], 0) for each in loss.survey(c, rows))
    if sample is None:
        return loss.settle(rows, *(each.sum(1) for each in others))
    return loss.settle(rows, *(each @ sample.stands_for.to(each) for each in others))
