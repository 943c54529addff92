"""Gradients of what a pass over the rows depends on, added up a few rows at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from nearfar_pair.row_distance import Gradients, RowDistance
from nearfar_pair.row_plan import Plan
from nearfar_pair.sides import Rows

__all__ = ["Pull"]


class Pull:
    """Gradients of the embeddings and the parameters, added up a few rows at a time."""

    def __init__(self, plan: Plan, distance: RowDistance, parameters: Sequence[Tensor], needs: Sequence[bool]) -> None:
        self._plan, self._distance = plan, distance
        self._embeddings: Gradients = distance.gradients()
        self.leaves = [p.detach().requires_grad_(need) for p, need in zip(parameters, needs, strict=True)]
        self._parameters = [torch.zeros_like(p) if need else None for p, need in zip(parameters, needs, strict=True)]

    @torch.enable_grad()
    def outputs(self, rows: Rows) -> tuple[Rows, tuple[Tensor, ...]]:
        d_ap, d_an = rows.d_ap.detach().requires_grad_(), rows.d_an.detach().requires_grad_()
        rows = dataclasses.replace(rows, d_ap=d_ap, d_an=d_an)
        return rows, self._plan.formula(rows, *self.leaves)

    def add(
        self,
        rows: Rows,
        leaves: Sequence[Tensor],
        outputs: Sequence[Tensor],
        by: Sequence[Tensor | None],
        *,
        is_last: bool = True,
    ) -> None:
        """Add what comes of the gradients ``by`` the outputs, made of ``rows`` and ``leaves``."""
        used = [(o, g) for o, g in zip(outputs, by, strict=True) if g is not None and o.requires_grad]
        if not used:
            return
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        roots, by_root = zip(*used, strict=True)
        by_ap, by_an, *by_wanted = torch.autograd.grad(
            roots, [rows.d_ap, rows.d_an, *wanted], by_root, allow_unused=True, retain_graph=not is_last
        )
        rest = iter(by_wanted)
        self.take(rows, by_ap, by_an, *(next(rest) if leaf.requires_grad else None for leaf in leaves))

    @torch.no_grad()
    def take(self, rows: Rows, by_ap: Tensor | None, by_an: Tensor | None, *by_parameters: Tensor | None) -> None:
        """Add gradients by the distances of ``rows`` and by the parameters."""
        self._distance.pull(rows, by_ap, by_an, self._embeddings)
        for total, part in zip(self._parameters, by_parameters, strict=True):
            if total is not None and part is not None:
                total += part

    def finished(self) -> tuple[Tensor | None, ...]:
        return (*self._embeddings.finished(), *self._parameters)
