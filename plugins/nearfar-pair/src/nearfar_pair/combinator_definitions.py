"""What the losses around another compute, said slowly and plainly around the loss of their examples.

As in :mod:`nearfar_pair.loss_definitions`: embeddings are (n, d) and labels (n,); ``ref_emb`` and ``ref_labels`` are
None where the batch is compared with itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar_pair.loss_definitions import info_nce, triplet

__all__ = ["cross_batch_memory", "gather", "matryoshka", "symmetric", "two_towers"]


def gather(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any) -> float:
    """The loss itself, where there is one process."""
    return triplet(embeddings, labels, ref_emb, ref_labels, margin=0.2, swap=False, smooth=False)


def cross_batch_memory(embeddings: Any, labels: Any, memory: Any, memory_labels: Any, weight: float) -> float:
    """ℓ(X, X) + w ℓ(X, M)."""
    alone = gather(embeddings, labels, None, None)
    return alone + weight * gather(embeddings, labels, memory, memory_labels) if len(memory) else alone


def matryoshka(
    embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, dims: list[int], weights: list[float] | None
) -> float:
    """Σ c ℓ of the first m dimensions."""
    factors = [1.0] * len(dims) if weights is None else weights
    return sum(
        c * gather(embeddings[:, :m], labels, None if ref_emb is None else ref_emb[:, :m], ref_labels)
        for m, c in zip(dims, factors, strict=True)
    )


def symmetric(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any) -> float:
    """(ℓ(A, B) + ℓ(B, A)) / 2."""
    there = info_nce(embeddings, labels, ref_emb, ref_labels, temperature=0.07, positives="sum")
    back = info_nce(ref_emb, ref_labels, embeddings, labels, temperature=0.07, positives="sum")
    return (there + back) / 2


def two_towers(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch and a reference set of n rows, of the same few classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    first, second = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return first, labels, second, labels.flip(0)
