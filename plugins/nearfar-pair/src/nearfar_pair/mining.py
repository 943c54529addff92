"""What miners have in common that look at one anchor's row of distances after another."""

from __future__ import annotations

import dataclasses
from typing import Any

from nearfar.nn.batch import Batch
from nearfar_pair.row_pass import Formula, RowPass

__all__ = ["choices"]


def choices(batch: Batch, distance: Any, formula: Formula, *, is_ragged: bool = False) -> RowPass:
    """A formula of an anchor's row that chooses, applied to every anchor of a batch; nothing is differentiated.

    The table of positives is by anchor, and each anchor's are in the order of the references.
    """
    embeddings, reference = batch.embeddings.detach(), batch.reference.detach()
    batch = dataclasses.replace(batch, embeddings=embeddings, reference=reference)
    return RowPass(batch, distance, formula, narrow=True, is_ragged=is_ragged)
