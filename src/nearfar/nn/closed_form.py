"""What backward passes written by hand have in common."""

from __future__ import annotations

import torch

__all__ = ["graph_is_kept", "refuse_second_derivative"]


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
