"""Embeddings whose first dimensions are embeddings too.

Kusupati, Bhatt, Rege, Wallingford, Sinha, Ramanujan, Howard-Snyder, Chen, Kakade, Jain, Farhadi (2022): Matryoshka
Representation Learning. arXiv:2205.13147.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn import Selection
from nearfar.nn.arguments import non_negative
from nearfar.nn.labels import Labels
from nearfar_pair.combinators.around import Around

__all__ = ["Matryoshka"]


class Matryoshka(Around):
    r"""Another loss of the first dimensions of the embeddings, for several numbers of them, weighted and added.

    .. math:: L = \sum_{m \in \mathcal M} c_m\, \ell(z_{1:m})

    Parameters
    ----------
    loss : nn.Module
        A loss on embeddings.
    dims : list of int
        𝓜, each from 1 to the embedding size, which the paper has among them.
    weights : list of float, optional
        c, one for each of ``dims``; 1 each by default, as in the paper.
    miner : nn.Module, optional
        Selects for the loss, at each width anew.

    Raises
    ------
    ArgumentError
        ``dims`` is empty, has an entry twice or one out of range, or ``weights`` are not as many; both the loss and
        this have a miner.
    InputError
        When called: the embeddings are narrower than one of ``dims``.

    Notes
    -----
    Each width has a copy of the loss of its own. Class weights, proxies and centres start as the first dimensions of
    those of the loss that was given, and are learned apart: the paper's MRL. (Its MRL–E shares them.) The copies are
    taken where this is made.

    References
    ----------
    Kusupati et al. (2022), arXiv:2205.13147, equation 1.
    """

    def __init__(
        self,
        loss: nn.Module,
        dims: Sequence[int],
        weights: Sequence[float] | None = None,
        *,
        miner: nn.Module | None = None,
    ) -> None:
        super().__init__(loss, miner=miner)
        self.dims = _checked(dims)
        if weights is not None and len(weights) != len(self.dims):
            raise ArgumentError(f"Matryoshka: there are {len(self.dims)} dims and {len(weights)} weights")
        self.weights = [1.0] * len(self.dims) if weights is None else [non_negative("weights", w) for w in weights]
        given = self.loss
        del self.loss  # what is learned is learned by the copies
        self.losses = nn.ModuleList(_narrowed(given, width) for width in self.dims)

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels | None = None,
        indices_tuple: Selection | Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        """The weighted sum over the widths of the loss of embeddings (n, d)."""
        for name, given in (("embeddings", embeddings), ("ref_emb", ref_emb)):
            if isinstance(given, Tensor) and given.ndim == 2 and given.shape[1] < max(self.dims):
                raise InputError(f"Matryoshka looks at {max(self.dims)} dimensions; got {name} {tuple(given.shape)}")
        if (
            isinstance(ref_emb, Tensor)
            and isinstance(embeddings, Tensor)
            and ref_emb.shape[-1:] != embeddings.shape[-1:]
        ):
            sizes = f"{tuple(embeddings.shape)} and ref_emb {tuple(ref_emb.shape)}"
            raise InputError(f"embeddings {sizes} differ in embedding size")
        if isinstance(indices_tuple, Selection):
            indices_tuple = indices_tuple.indices()  # a rule is about distances of whole embeddings
        values = []
        for width, weight, loss in zip(self.dims, self.weights, self.losses, strict=True):
            cut = embeddings[..., :width]
            # The batch itself under another name still is the batch.
            reference = None if ref_emb is None else cut if ref_emb is embeddings else ref_emb[..., :width]
            value = self.value(loss, cut, labels, indices_tuple, reference, ref_labels)
            values.append(weight * value)
        return torch.stack(values).sum()

    def extra_repr(self) -> str:
        return f"dims={self.dims}, weights={self.weights}"


def _checked(dims: Sequence[int]) -> list[int]:
    if not isinstance(dims, list | tuple) or not dims:
        raise ArgumentError(f"Matryoshka: dims is a list of widths, such as [8, 16, 32]; got {dims!r}")
    for width in dims:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ArgumentError(f"Matryoshka: dims are whole numbers of at least 1; got {width!r}")
    if len(set(dims)) < len(dims):
        raise ArgumentError(f"Matryoshka: dims has a width twice: {list(dims)}")
    return list(dims)


def _narrowed(loss: nn.Module, width: int) -> nn.Module:
    """A copy of a loss, for embeddings cut to ``width``: what it keeps of every dimension, (…, embedding_size), too."""
    made = copy.deepcopy(loss)
    sized = [part for part in made.modules() if isinstance(getattr(part, "embedding_size", None), int)]
    for part in sized:
        size: int = part.embedding_size  # type: ignore[assignment]  # checked above
        if width > size:
            raise ArgumentError(f"Matryoshka: dims has {width}, and {type(part).__name__} has embedding_size={size}")
        part.embedding_size = width  # type: ignore[assignment]  # a plain attribute, and no module
        for kept in part.modules():
            for name, parameter in kept._parameters.items():
                if parameter is not None and parameter.ndim > 1 and parameter.shape[-1] == size != width:
                    cut = parameter.detach()[..., :width].clone()
                    kept._parameters[name] = nn.Parameter(cut, parameter.requires_grad)
            for name, buffer in kept._buffers.items():
                if buffer is not None and buffer.ndim > 1 and buffer.shape[-1] == size != width:
                    kept._buffers[name] = buffer[..., :width].clone()
    return made
