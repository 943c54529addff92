"""Which tier computes a pass: kernels compiled by numba where that is installed and fits, torch everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nearfar.nn.batch import Batch
from nearfar.nn.compiled import is_plain, kernels_of
from nearfar_pair.row_distance import row_distance

__all__ = ["fits", "kernel"]


#: What every pass calls besides its own.
_SHARED = "units", "finish", "columns"


def kernel(name: str) -> Any:
    """A kernel of :mod:`nearfar_pair.compiled.kernels`, or None where it cannot be had."""
    module = kernels_of("nearfar_pair.compiled.kernels")
    return None if module is None else module.compiled(name)


def fits(batch: Batch, distance: Any, parameters: Sequence[Tensor], names: Sequence[str]) -> bool:
    """Whether kernels of these names can compute a pass: of float32 on the CPU, in which class ids tell the pairs."""
    x, y, own, classes = batch.embeddings, batch.reference, batch.labels, batch.reference_labels
    if own is None or classes is None or batch.selection is not None or batch.relation is not None:
        return False
    if x.dtype != torch.float32 or not x.numel() or not y.shape[0] or not row_distance(distance):
        return False
    if own.dtype != torch.int64 or classes.dtype != torch.int64 or (batch.is_self and own is not classes):
        return False
    if not (x.is_cpu and y.is_cpu and own.is_cpu and classes.is_cpu):
        return False
    if not is_plain(x, y, own, classes, *parameters) or any(p.ndim for p in parameters):
        return False
    return all(kernel(name) is not None for name in (*_SHARED, *names))
