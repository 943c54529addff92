"""The figures of a run on the classes it is judged on, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.data import ImageSource
from nearfar.evaluate import Roc, Verification, all_pairs, roc, verification_metrics
from nearfar.evaluate.roc import SUPPORT
from nearfar.train.table import METRICS, scores_of_queries

#: Pairs that are verified where there are more: their number grows with the square of the images'.
MOST_PAIRS = 2**19
#: Draws of a bootstrap.
RESAMPLES = 200
_LEVEL = 0.95
_BINS = 50
_RATES = 100

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number between 0 and 1, and the ends of its interval where there is one."""

    name: str
    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Pairs:
    """What pairs of images show.

    Attributes
    ----------
    figures
        AUC, EER and the true accepts at each false-accept rate that enough pairs support.
    curve
        (false accepts, true accepts), the rates logarithmic and supported by enough pairs.
    genuine, impostors
        (cosine distance, share of the pairs in that bin).
    there
        Pairs of the images in all.
    pairs
        (genuine, impostor) counts of those that were looked at.
    protocol
        What the figures depend on.
    """

    figures: tuple[Figure, ...]
    curve: Points
    genuine: Points
    impostors: Points
    there: int
    pairs: tuple[int, int]
    protocol: str


def retrieval_figures(embeddings: Tensor, source: ImageSource) -> tuple[Figure, ...]:
    """Recall, R-precision and MAP@R as in the table a run ends with, with intervals by class.

    What is drawn, with replacement, is the classes that ask; what is searched stays as it is.

    Parameters
    ----------
    embeddings : Tensor
        (n, d) finite.
    source : ImageSource
        n images.

    Raises
    ------
    InputError
        No class has two images.
    """
    queries, scores = scores_of_queries(embeddings, source)
    values, classes = torch.unique(source.labels[queries], return_inverse=True)
    sums = torch.zeros(len(values), scores.shape[1], dtype=torch.float64).index_add_(0, classes, scores)
    sizes = classes.bincount(minlength=len(values)).double()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)
    means = torch.stack([sums[row].sum(0) / sizes[row].sum() for row in drawn])
    ends = torch.tensor([(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], dtype=torch.float64)
    low, high = means.quantile(ends, dim=0)
    return tuple(
        Figure(name, float(mean), (float(one), float(other)))
        for name, mean, one, other in zip(METRICS, scores.mean(0), low, high, strict=True)
    )


def pair_figures(embeddings: Tensor, labels: Tensor) -> Pairs:
    """Verify pairs of images: all, or :data:`MOST_PAIRS` that :func:`nearfar.evaluate.all_pairs` draws by a fixed seed.

    Parameters
    ----------
    embeddings : Tensor
        (n, d) finite.
    labels : Tensor
        (n,) integers.

    Raises
    ------
    InputError
        A kind of pair is missing.
    """
    similarities, same, identities = all_pairs(embeddings, labels, most=MOST_PAIRS)
    found = verification_metrics(similarities, same, identities=identities, resamples=RESAMPLES)
    return Pairs(
        _verified(found),
        _drawn_curve(roc(similarities, same)),
        _histogram(1 - similarities[same]),
        _histogram(1 - similarities[~same]),
        len(labels) * (len(labels) - 1) // 2,
        (found.genuine, found.impostors),
        found.protocol,
    )


def _verified(found: Verification) -> tuple[Figure, ...]:
    values = {"auc": found.auc, "eer": found.eer, **{f"tar@{point.wanted:g}": point.tar for point in found.points}}
    return tuple(Figure(name, value, found.intervals.get(name)) for name, value in values.items())


def _drawn_curve(curve: Roc) -> Points:
    """The most true accepts at each of some rates, evenly spaced on a logarithmic axis."""
    lowest = min(SUPPORT / curve.impostors, 1.0)
    rates = torch.logspace(float(torch.tensor(lowest).log10()), 0, _RATES, dtype=torch.float64)
    places = torch.searchsorted(curve.far, rates * (1 + 1e-12), right=True) - 1
    return tuple((float(rate), float(tar)) for rate, tar in zip(rates, curve.tar[places], strict=True))


def _histogram(distances: Tensor) -> Points:
    """The share of the distances in each of equal bins from 0 to 2, at their middles."""
    # Sums of integers: torch.histc counts in float32, which stops at 2^24.
    bins = (distances.double() * _BINS / 2).long().clamp(0, _BINS - 1).bincount(minlength=_BINS)
    shares = bins.double() / len(distances)
    return tuple(((place + 0.5) * 2 / _BINS, float(share)) for place, share in enumerate(shares))
