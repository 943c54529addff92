"""The chunked engine: a chunk of the classes at a time, with the gradient written out.

With cosines :math:`c_{ij}`, logits :math:`z_{ij} = f_i N(c_{ij})` and the target's :math:`z_{iy} = f_i \\psi(t_i)`,
f being the scale, the loss is :math:`\\mathrm{LSE}_i - z_{iy}`. One pass over the chunks finds the log-sum-exp, each
chunk correcting what the ones before it summed. A second one has

.. math::

    \\frac{\\partial L}{\\partial c_{ij}} = G_{ij} = g_i f_i e^{z_{ij} - \\mathrm{LSE}_i} N'(c_{ij}), \\quad
    \\frac{\\partial L}{\\partial \\hat x_i} = \\sum_j G_{ij} \\hat w_j, \\quad
    \\frac{\\partial L}{\\partial w_j} = \\frac{1}{\\lVert w_j \\rVert}
        \\Bigl( \\sum_i G_{ij} \\hat x_i - \\sum_i G_{ij} c_{ij} \\, \\hat w_j \\Bigr)

of each chunk, from cosines that were kept or are computed again. What has the size of the batch alone — ψ, the scale,
what a loss prepares — is left to autograd, between two functions: :class:`_Target` makes the embeddings of length one
and the target's cosine, :class:`_Others` sums over the other classes. The gradient of the weight is one buffer:
:class:`_Others` fills it, :class:`_Target`, whose backward pass comes after, adds the targets' share. Where N is the
identity the scale is multiplied into the embeddings, and nothing is done to a chunk but the softmax.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nearfar.errors import InputError
from nearfar.nn.vectors import unit
from nearfar_margin.chunk_gradients import Changed, Gradients
from nearfar_margin.chunks import NO_LOGIT, Block, Chunks, overwrite, reciprocal
from nearfar_margin.closure import differentiated_through, with_fields
from nearfar_margin.declaration import Declaration, Rows
from nearfar_margin.detaching import straight_through
from nearfar_margin.fused import FusedSGD
from nearfar_margin.sample import Sample
from nearfar_margin.shard import Shard

__all__ = ["chunked", "chunked_linear"]


def chunked(
    loss: Declaration,
    embeddings: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    budget: float,
    products: torch.dtype | None = None,
    shard: Shard | None = None,
    sample: Sample | None = None,
    fused: FusedSGD | None = None,
) -> Tensor:
    """The loss of each sample, (n,), of embeddings (n, d), class weights (c, d) or (c, k, d) and labels (n,).

    Cosines are kept for the backward pass where they take no more than ``budget`` bytes. ``products`` is the dtype
    matrices are multiplied in, unless that of the embeddings and weights. With a ``shard`` the weights are those of its
    classes alone, embeddings and labels those of all ranks, and so are the losses; what a rank's backward pass makes of
    the embeddings is whole, of anything else its share of a sum over the ranks. With a ``sample`` the weights are those
    of its classes. What is ``fused`` steps the weight in the backward pass, which then has no gradient.
    """
    chunks = Chunks.of(embeddings, weight, labels, budget, products, shard, sample, fused)
    x, norm, t, weight_norm = _Target.apply(embeddings, weight, chunks)
    rows = loss.prepare(Rows(t=t, norm=norm, labels=labels, embeddings=x))
    if loss.surveys:
        sums = chunks.over_others(lambda c: loss.survey(c, rows), x)
        with torch.no_grad():
            rows = loss.settle(rows, *sums)
    psi = loss.target(t, rows)
    if loss.separate:
        return psi + _sums(loss, chunks, x, torch.zeros_like(t), 1.0, rows)[1]
    if loss.detached:
        psi = straight_through(psi, t)
    # A copy, because the next call may change a scale that it keeps, and this one's backward pass needs it.
    factor = loss.scale.clone() if isinstance(loss.scale, Tensor) else loss.scale
    if loss.times_norm:
        factor = norm * factor
    z_own = psi * factor
    if loss.times_weight_norm:
        z_own = z_own * weight_norm
    lse, total = _sums(loss, chunks, x, z_own, factor, rows)
    return _smoothed(lse, z_own, total, loss.spread, chunks)


def chunked_linear(
    embeddings: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    smoothing: float,
    *,
    budget: float,
    products: torch.dtype | None = None,
    shard: Shard | None = None,
    sample: Sample | None = None,
    fused: FusedSGD | None = None,
    own_bias: Tensor | None = None,
) -> Tensor:
    """The cross entropy of each sample, (n,), of the logits ``embeddings @ weight.T + bias``.

    ``shard``, ``sample`` and ``fused`` are as in :func:`chunked`; the bias is of the classes that the weight is of, and
    where these are not all classes ``own_bias`` (n,) is that of each sample's own.
    """
    chunks = Chunks.of(embeddings, weight, labels, budget, products, shard, sample, fused)
    chunks.unit = chunks.unit_weight = False
    x, _, z_own, _ = _Target.apply(embeddings, weight, chunks)
    if bias is not None:
        bias = bias.to(chunks.dtype)
        z_own = z_own + (bias[labels] if own_bias is None else own_bias.to(chunks.dtype))
    chunks.wants_total = smoothing > 0
    lse, total = _Others.apply(chunks, x, z_own, None, bias)
    return _smoothed(lse, z_own, total, smoothing, chunks)


def _smoothed(lse: Tensor, z_own: Tensor, total: Tensor, epsilon: float, chunks: Chunks) -> Tensor:
    """Cross entropy with ε / c on every class, ``total`` being the sum of all logits but the own one."""
    if not epsilon:
        return lse - z_own
    share = epsilon / chunks.num_classes()
    return lse - (1 - epsilon + share) * z_own - share * total


def _sums(
    loss: Declaration, chunks: Chunks, x: Tensor, z_own: Tensor, factor: Tensor | float, rows: Rows
) -> tuple[Tensor, Tensor]:
    """The log-sum-exp of each sample's logits, and the sum of those of the other classes."""
    chunks.wants_lse = not loss.separate
    chunks.wants_total = loss.separate or loss.spread > 0
    each = factor[:, None] if isinstance(factor, Tensor) and factor.ndim else factor
    probe = x.new_zeros(len(x), 1)
    with torch.no_grad():
        unchanged = loss.others(probe, rows) is probe
    if unchanged:
        chunks.unit_weight = not loss.times_weight_norm
        lse, total = _Others.apply(chunks, x * each, z_own, None, None)
        return lse, total
    chunks.others, chunks.rows = loss.others, with_fields(rows, {})
    chunks.detached = loss.detached and not loss.separate
    chunks.times_weight_norm = loss.times_weight_norm
    if not chunks.detached:
        chunks.fields, chunks.learned = differentiated_through(loss.others, probe, rows)
    if isinstance(each, Tensor):
        each = each.expand(len(x), 1)
    given = [getattr(rows, name) for name in chunks.fields]
    lse, total = _Others.apply(chunks, x, z_own, each, None, *given, *chunks.learned)
    return lse, total


class _Target(torch.autograd.Function):
    """Embeddings of length one, their lengths, the cosine to the own class, the length of its (first) vector.

    Its backward pass comes after that of :class:`_Others`, and completes the gradient of the weight.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, weight: Tensor, chunks: Chunks) -> tuple[Tensor, ...]:
        ctx.dtype, embeddings = embeddings.dtype, embeddings.to(chunks.dtype)
        x, norm = unit(embeddings) if chunks.unit else (embeddings.clone(), embeddings.new_empty(0))
        own, lengths, t, shares = chunks.own(x)
        ctx.chunks = chunks
        ctx.save_for_backward(x, norm, own, lengths, t, shares, weight)
        ctx.set_materialize_grads(False)
        return x, norm, t, lengths[:, 0].clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, to_x: Tensor | None, to_norm: Tensor | None, to_t: Tensor | None, to_length: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None]:
        chunks: Chunks = ctx.chunks
        x, norm, own, lengths, t, shares, weight = ctx.saved_tensors
        gradient, chunks.gradient = chunks.gradient, None
        to_x = torch.zeros_like(x) if to_x is None else to_x
        to_t = torch.zeros_like(t) if to_t is None else to_t
        if chunks.shard is not None:
            # Each rank has a share of these, and one rank the class they are for.
            to_t = chunks.shard.sum(to_t.clone())
            to_length = None if to_length is None else chunks.shard.sum(to_length.clone())
        each = (shares * to_t[:, None])[:, :, None]
        to_x = to_x + (each * own).sum(1)
        along = each * x[:, None]
        if chunks.unit:
            to_x = (to_x - x * (to_x * x).sum(1, keepdim=True)) * reciprocal(norm)[:, None]
            if to_norm is not None:
                to_x = torch.addcmul(to_x, x, to_norm[:, None])
            along = (along - own * (each * t[:, None, None])) * reciprocal(lengths)[:, :, None]
            if to_length is not None:
                along[:, 0].addcmul_(own[:, 0], to_length[:, None])
        if chunks.shard is not None:
            to_x = chunks.shard.sum(to_x.contiguous())
        if chunks.step is not None:
            chunks.step.own(along)
            chunks.step = None
            return to_x.to(ctx.dtype), None, None
        if not ctx.needs_input_grad[1]:
            return to_x.to(ctx.dtype), None, None
        if gradient is None:
            gradient = torch.zeros_like(chunks.weight)
        if len(gradient):
            gradient.index_add_(0, chunks.rows_of_mine(), along.to(gradient.dtype))
        return to_x.to(ctx.dtype), gradient.view_as(weight), None


class _Others(torch.autograd.Function):
    """The log-sum-exp of each sample's logits, its own among them, and the sum of all but that.

    ``left`` are the embeddings of length one, multiplied with the scale where N is the identity; ``factor`` (n, 1) or
    a number is the scale where it is not; ``given`` what N is differentiated with.
    """

    @staticmethod
    def forward(
        ctx: Any,
        chunks: Chunks,
        left: Tensor,
        z_own: Tensor,
        factor: Tensor | float | None,
        bias: Tensor | None,
        *given: Tensor,
    ) -> tuple[Tensor, Tensor]:
        top, mass, total = z_own.clone(), torch.ones_like(z_own), torch.zeros_like(z_own)
        if chunks.shard is not None and chunks.shard.rank:
            mass.zero_()  # the own logit counts once
        narrow = chunks.left(left)
        changed = None if chunks.others is None else Changed(chunks, factor, None)
        kept = []
        for start, stop in chunks.spans():
            block, out = chunks.block(start, stop), None
            if chunks.keep:
                kept.append(out := left.new_empty(len(left), stop - start))
            c, _ = _cosines(chunks, narrow, block, bias, out)
            targets = chunks.targets(block)
            z = c
            if changed is not None:
                # A target's cosine is not among the others: N need not be sound there.
                overwrite(c, targets, 0)
                z = changed.forward(c, block)
            if chunks.wants_total:
                overwrite(z, targets, 0)
                total += z.sum(1)
            overwrite(z, targets, NO_LOGIT)
            if chunks.wants_lse:
                most = torch.maximum(top, z.amax(1))
                e = torch.sub(z, most[:, None], out=chunks.room("exponentials", z.shape)).exp_()
                mass = mass * (top - most).exp_() + e.sum(1)
                top = most
        chunks.clear()
        if chunks.shard is not None:
            most = chunks.shard.most(top.clone())
            mass = chunks.shard.sum(mass * (top - most).exp_())
            top, total = most, chunks.shard.sum(total)
        lse = top + mass.log()
        learned = factor if isinstance(factor, Tensor) else None
        ctx.chunks, ctx.factor, ctx.num_kept = chunks, None if learned is factor else factor, len(kept)
        ctx.save_for_backward(chunks.weight, left, z_own, lse, bias, learned, *kept, *given)
        ctx.set_materialize_grads(False)
        return lse, total

    @staticmethod
    def backward(ctx: Any, to_lse: Tensor | None, to_total: Tensor | None) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            # torch's once_differentiable would return a gradient that is silently constant.
            raise InputError(
                "the chunked engine cannot be differentiated twice (create_graph=True); use engine='plain'"
            )
        chunks: Chunks = ctx.chunks
        chunks.begin_step()
        _, left, z_own, lse, bias, factor, *rest = ctx.saved_tensors
        to_own = None if to_lse is None else to_lse * (z_own - lse).exp_()
        if chunks.shard is not None:
            # What came is the share of each rank alike; of its classes each sums up the whole.
            to_lse = None if to_lse is None else to_lse * chunks.shard.world
            to_total = None if to_total is None else to_total * chunks.shard.world
        kept, given = rest[: ctx.num_kept], rest[ctx.num_kept :]
        factor = ctx.factor if factor is None else factor
        narrow = chunks.left(left)
        gradients = Gradients(chunks, left, narrow, bias)
        changed = None if chunks.others is None else Changed(chunks, factor, given)
        for i, (start, stop) in enumerate(chunks.spans()):
            block, shares, to_lengths = chunks.block(start, stop), None, None
            if kept:
                c = kept[i]
            else:
                c, shares = _cosines(chunks, narrow, block, bias, None)
            targets = chunks.targets(block)
            if changed is not None and not kept:
                overwrite(c, targets, 0)
            z = c if changed is None else changed.forward(c, block)
            g = chunks.room("exponentials", z.shape)
            if to_lse is None:
                g.zero_()
            else:
                torch.sub(z, lse[:, None], out=g).exp_().mul_(to_lse[:, None])
            if to_total is not None:
                g += to_total[:, None]
            overwrite(g, targets, 0)
            if changed is not None:
                g, to_lengths = changed.backward(g)
            gradients.add(block, g, c, shares, to_lengths)
        chunks.clear()
        chunks.gradient = gradients.weight
        if chunks.step is not None:
            chunks.step.end_of_chunks()
        to_factor, to_given = (None, []) if changed is None else (changed.factor, changed.given)
        return None, gradients.left, to_own, to_factor, gradients.bias, *to_given


def _cosines(
    chunks: Chunks, left: Tensor, block: Block, bias: Tensor | None, out: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """What :meth:`Chunks.multiply` gives, and the bias of a linear classifier."""
    c, shares = chunks.multiply(left, block, out)
    if bias is not None:
        c += bias[block.start : block.stop]
    return c, shares
