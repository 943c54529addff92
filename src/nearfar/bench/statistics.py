"""What repeats tell: means with intervals, and whether one criterion differs from another.

Repeats of two criteria with the same seed had the same folds and drew the same batches, so they are compared in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

#: Of the intervals.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over repeats.

    Attributes
    ----------
    mean
    half
        Half the width of the interval of Student's t, mean ± half; None of a single repeat.
    count
        How many repeats.
    """

    mean: float
    half: float | None
    count: int


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    r"""The mean with its interval, :math:`\bar x \pm t_{n-1} s / \sqrt n`.

    Parameters
    ----------
    values : sequence of float
        One a repeat, at least one.
    confidence : float
        (0..1) How often such an interval holds the mean of infinitely many repeats, were they normally distributed.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Estimate(mean, None, n)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return Estimate(mean, float(stats.t.ppf((1 + confidence) / 2, n - 1)) * deviation / math.sqrt(n), n)


def paired(first: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    r"""How likely a difference as large as this one is where there is none: the two-sided paired t-test.

    :math:`t = \bar d \sqrt n / s_d` of the differences :math:`d` with :math:`n - 1` degrees of freedom.

    Parameters
    ----------
    first, other : mapping of int to float
        Seed → value; seeds that only one has are left out.

    Returns
    -------
    float or None
        [0..1]; None where they have less than two seeds in common.
    """
    differences = [other[seed] - first[seed] for seed in sorted(first.keys() & other.keys())]
    n = len(differences)
    if n < 2:
        return None
    mean = math.fsum(differences) / n
    deviation = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1))
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) * math.sqrt(n) / deviation, n - 1))


def holm(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Adjust p-values for their number by Holm's method.

    The k-th smallest of m is multiplied with m − k + 1, is no smaller than those before it, and no larger than 1. Below
    0.05 then, the chance of any false find among all of them is below 0.05, however they depend on each other.

    Parameters
    ----------
    values : mapping of str to float or None
        None stays None and does not count.
    """
    known = sorted((p, name) for name, p in values.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(values)
    largest = 0.0
    for place, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - place)))
        adjusted[name] = largest
    return adjusted
