"""What passes that compute a loss together with its gradient have in common."""

from __future__ import annotations

from collections.abc import Iterator

import torch

__all__ = ["graph_is_kept", "pieces", "refuse_second_derivative"]

#: Elements a piece and thread: fewer, and calling torch costs more than computing; more, and the cache overflows.
PIECE = 32768


def pieces(n: int, device: torch.device, piece: int | None = None) -> Iterator[slice]:
    """Slices of n elements whose intermediates stay in the processor's cache; all at once on a GPU.

    Of ``piece`` elements for each thread, of :data:`PIECE` by default.
    """
    step = (piece or PIECE) * torch.get_num_threads() if device.type == "cpu" else max(n, 1)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def graph_is_kept() -> bool:
    """To be called in a backward: whether another may follow through the same graph, or nothing is known of it."""
    # torch's own: it is how compiled graphs decide what they may overwrite.
    known = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return known is None or known()


def refuse_second_derivative() -> None:
    """To be called in a backward: what was kept are numbers without a history, so a second would silently be 0.

    Raises
    ------
    RuntimeError
        A second derivative is being prepared.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "this loss has no second derivative, as its gradient is computed in closed form; "
            "take the gradient without create_graph=True"
        )
