"""Relevance in grades: what these losses compute, said slowly and plainly."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

from nearfar_pair.loss_definitions.floats import mean

__all__ = ["graded_log_ratio"]


def graded_log_ratio(embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any, epsilon: float) -> float:
    """The mean over pairs of an anchor's references of (log d/e − log y/z)², of labels 0 apart if equal, else 1."""
    rows, own = embeddings.tolist(), labels.tolist()
    others, classes = (rows, own) if ref_emb is None else (ref_emb.tolist(), ref_labels.tolist())
    costs = []
    for a, row in enumerate(rows):
        compared = [j for j in range(len(others)) if ref_emb is not None or j != a]
        d = {j: math.log(math.dist(row, others[j]) + epsilon) for j in compared}
        y = {j: math.log((own[a] != classes[j]) + epsilon) for j in compared}
        pairs = [((d[i] - d[j]) - (y[i] - y[j])) ** 2 for i, j in combinations(compared, 2)]
        costs += [mean(pairs)] if pairs else []
    return mean(costs)
