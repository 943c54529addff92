"""Relevance that comes in grades, in the costs of losses that know positives and negatives.

What is relevant at all stands in the table of positives of :class:`~nearfar_pair.sides.Rows`, with its grade beside it;
what is not stands among the negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.precision import in_full_precision
from nearfar.nn.terms import Terms
from nearfar_pair.once import once
from nearfar_pair.row_losses import PairLoss
from nearfar_pair.row_pass import RowPass
from nearfar_pair.row_terms import PairSide, RowTerms
from nearfar_pair.sides import Rows

__all__ = ["graded_costs", "graded_sides", "of_positives", "soft_excess"]


def of_positives(of_pairs: Callable[[slice], Tensor], rows: Rows) -> Tensor:
    """(r, k) of the positives, of what is known of all references, (r, m); 0 where there is no positive."""
    every = of_pairs(rows.anchors)
    if not every.shape[1]:
        return torch.zeros_like(rows.d_ap)
    return torch.where(rows.valid, every.gather(1, rows.positives), 0)


def graded_costs(
    batch: Batch, distance: Any, costs: Callable[[Rows, Tensor], tuple[Tensor, Tensor]], *, narrow: bool = False
) -> Terms:
    """Terms with one cost for each anchor, of its rows and the grades (r, k) of its positives."""

    def formula(rows: Rows) -> tuple[Tensor, Tensor]:
        return costs(rows, of_positives(batch.grades, rows))

    return RowTerms("element", RowPass(batch, distance, formula, narrow=narrow))


def graded_sides(loss: PairLoss, batch: Batch) -> Mapping[str, Terms]:
    """Of each pair its cost as a positive times its grade ψ, and its cost as a negative times 1 − ψ.

    A pair of grade 0 is no positive, and one of grade 1 no negative.
    """

    def sums(rows: Rows) -> tuple[Tensor, ...]:
        as_positive, as_negative, is_negative = _costs(loss, rows, of_positives(batch.grades, rows))
        far, active = loss.negative_sums(rows)
        return (
            as_positive.sum(1),
            as_negative.sum(1) + far,
            (as_positive > 0).sum(1),
            (as_negative > 0).sum(1) + active,
            rows.num_positives,
            is_negative.sum(1) + rows.num_negatives,
        )

    def every(rows: Rows) -> tuple[Tensor, ...]:
        return *_costs(loss, rows, of_positives(batch.grades, rows)), loss.negative_cost(rows.d_an)

    passed = RowPass(batch, loss.distance, sums, sums=2)
    return {name: _GradedSide(kind, passed, every) for name, kind in _SIDES.items()}


_SIDES = {"positive": "pos_pair", "negative": "neg_pair"}


def _costs(loss: PairLoss, rows: Rows, grades: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(r, k) of those that are relevant at all: their costs as positives and as negatives, and which are negatives."""
    return (
        grades * loss.positive_cost(rows.d_ap),
        torch.where(rows.valid, (1 - grades) * loss.negative_cost(rows.d_ap_or_far), 0),
        rows.valid & (grades < 1),
    )


class _GradedSide(PairSide):
    """One side of the costs of graded pairs; whoever wants the values gets those of the table before the others."""

    @once
    def _material(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        rows, (as_positive, as_negative, is_negative, far) = self._rows.whole(self._every)
        if self.kind == "pos_pair":
            anchors, places = torch.where(rows.valid)
            return as_positive[anchors, places], (anchors, rows.positives[anchors, places])
        near, place = torch.where(is_negative)
        anchors, others = torch.where(rows.is_negative)
        values = torch.cat((as_negative[near, place], far[anchors, others]))
        return values, (torch.cat((near, anchors)), torch.cat((rows.positives[near, place], others)))


def soft_excess(rows: Rows, grades: Tensor, temperature: float) -> Tensor:
    """How much more relevant each positive is than the positives that are softly nearer: (r, k).

    One that is nearer by δ and less relevant by γ counts :math:`\\gamma / (1 + e^{-\\delta / \\tau})`, one that is no
    less relevant nothing.
    """
    found: Tensor = _Excess.apply(rows.d_ap, rows.d_ap_or_far, grades, temperature)
    return found


class _Excess(torch.autograd.Function):
    """Σⱼ [gₚ − gⱼ]₊ σ((dₚ − dⱼ) / τ) for each p of (r, k) and all j of it, one column of p after another.

    Nothing larger than a row for each anchor is kept; the sigmoids are computed once more in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, d_ap: Tensor, d_aj: Tensor, grades: Tensor, temperature: float) -> Tensor:
        ctx.temperature = temperature
        ctx.save_for_backward(d_ap, d_aj, grades)
        columns = [(_more(grades, k) * _ahead(d_ap, d_aj, k, temperature)).sum(1) for k in range(d_ap.shape[1])]
        return torch.stack(columns, 1)

    @staticmethod
    @in_full_precision
    def backward(ctx: Any, by_found: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_ap, d_aj, grades = ctx.saved_tensors
        by_ap, by_aj = [], torch.zeros_like(d_aj)
        by_found = by_found / ctx.temperature
        for k in range(d_ap.shape[1]):
            sigmoid = _ahead(d_ap, d_aj, k, ctx.temperature)
            # Out of place, so that it can be differentiated once more.
            slope = _more(grades, k) * sigmoid * (1 - sigmoid) * by_found[:, k : k + 1]
            by_ap.append(slope.sum(1))
            by_aj = by_aj - slope
        return torch.stack(by_ap, 1), by_aj, None, None


def _more(grades: Tensor, k: int) -> Tensor:
    return (grades[:, k : k + 1] - grades).relu()


def _ahead(d_ap: Tensor, d_aj: Tensor, k: int, temperature: float) -> Tensor:
    return torch.sigmoid((d_ap[:, k : k + 1] - d_aj) / temperature)
