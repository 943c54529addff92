"""Long batches in pieces that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch

__all__ = ["pieces"]

#: Elements a piece and thread: fewer, and calling torch costs more than computing; more, and the cache overflows.
PIECE = 32768


def pieces(n: int, device: torch.device, piece: int | None = None) -> Iterator[slice]:
    """Slices of n elements whose intermediates stay in the processor's cache; all at once on a GPU.

    Of ``piece`` elements for each thread, of :data:`PIECE` by default.
    """
    step = (piece or PIECE) * torch.get_num_threads() if device.type == "cpu" else max(n, 1)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
