"""The groups of terms, numbered."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.nn import Terms

__all__ = ["groups_of"]


def groups_of(terms: Terms) -> Tensor:
    """The number of each value's group, (k,) int64 from 0 to the number of anchors; all one where there are none."""
    anchors = terms.indices[0]
    if terms.groups is None:
        return torch.zeros_like(anchors)
    numbers: Tensor = torch.unique(terms.groups, return_inverse=True)[1]
    return numbers[anchors]
