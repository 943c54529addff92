"""Embedding heads: from a backbone's pooled features to an embedding."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from nearfar.errors import ArgumentError

Head = Literal["linear", "bn_neck", "none"]


def make_head(kind: Head, features: int, embedding_size: int | None) -> tuple[nn.Module, int]:
    """Build the head of the given kind and return it with the size of its embeddings.

    Parameters
    ----------
    kind : {"linear", "bn_neck", "none"}
        As in :func:`nearfar.models.create_model`.
    features : int
        Size of the backbone's pooled features.
    embedding_size : int or None
        None takes `features`.

    Raises
    ------
    ArgumentError
        An unknown kind, an embedding size that is not a positive integer, or, for ``none``, not `features`.
    """
    if kind not in get_args(Head):
        raise ArgumentError(f"head is {kind!r}, but must be one of {', '.join(get_args(Head))}")
    size = features if embedding_size is None else embedding_size
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ArgumentError(f"embedding_size is {size!r}, but must be a positive integer, or None for {features}")
    if kind == "none":
        if size != features:
            raise ArgumentError(
                f"without a head the embedding is the backbone's {features} features: pass embedding_size={features} "
                f"or None, not {size}, or a head"
            )
        return nn.Identity(), size
    if kind == "linear":
        return nn.Linear(features, size), size
    norm = nn.BatchNorm1d(size)
    # Luo et al. remove the shift, so that the embeddings are spread around the origin, as angles want them.
    norm.bias.requires_grad_(False)
    # A bias before the normalisation would be subtracted again.
    return nn.Sequential(nn.Linear(features, size, bias=False), norm), size
