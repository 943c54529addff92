"""Verification: are two images of one identity? Accuracy, ROC, EER and true accepts at given false accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar.errors import InputError
from nearfar.evaluate.folds import FoldAccuracy, ThresholdRule, fold_accuracy
from nearfar.evaluate.roc import SUPPORT, OperatingPoint, Ranked, Roc

#: The false-accept rates that are reported where nothing else is asked for, and that enough pairs support.
FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`verification_metrics` finds.

    Attributes
    ----------
    genuine, impostors : int
        Pairs of each kind.
    auc, eer : float
        Area below the ROC curve, equal error rate.
    accuracy : dict
        By the rule for its thresholds, :class:`~nearfar.evaluate.FoldAccuracy`.
    points : tuple of OperatingPoint
        True accepts at each false-accept rate.
    refused : dict
        Rates that too few pairs support, with the reason.
    intervals : dict
        ``auc``, ``eer``, ``tar@0.001`` …: the ends of the confidence interval; empty where identities are not known.
    protocol : str
        What the figures depend on besides the embeddings.
    """

    genuine: int
    impostors: int
    auc: float
    eer: float
    accuracy: Mapping[str, FoldAccuracy]
    points: tuple[OperatingPoint, ...]
    refused: Mapping[float, str]
    intervals: Mapping[str, tuple[float, float]]
    protocol: str

    def to_dict(self) -> dict[str, Any]:
        """The figures under flat names, for JSON and for tables."""
        flat: dict[str, Any] = {"auc": self.auc, "eer": self.eer}
        for rule, accuracy in self.accuracy.items():
            flat[f"accuracy/{rule}"] = accuracy.mean
            flat[f"accuracy/{rule}/std"] = accuracy.std
        for point in self.points:
            name = f"tar@{point.wanted:g}"
            flat |= {name: point.tar, f"{name}/threshold": point.threshold, f"{name}/impostors": point.false_accepts}
        flat |= {f"{name}/interval": list(ends) for name, ends in self.intervals.items()}
        flat |= {f"tar@{far:g}/refused": reason for far, reason in self.refused.items()}
        return flat | {"genuine": self.genuine, "impostors": self.impostors, "protocol": self.protocol}


def verification_metrics(
    similarities: Tensor,
    same: Tensor,
    *,
    identities: Tensor | None = None,
    fars: Sequence[float] | None = None,
    folds: int | Tensor | None = None,
    rules: Sequence[ThresholdRule] = ("exact", "insightface"),
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Verification:
    r"""How well a threshold on similarities tells pairs of one identity from pairs of two.

    A pair is accepted where its similarity is at least the threshold. At a false-accept rate, the threshold is the
    one that accepts most of those that do not exceed it. Intervals are percentiles of a bootstrap by identity: what
    is drawn, with replacement, is identities; a genuine pair counts as often as its identity was drawn, an impostor
    pair as often as the product of its two. Pairs share images and people, so intervals from pairs as if they were
    independent would be too narrow (Fogliato, Patil, Perona 2023).

    Parameters
    ----------
    similarities : Tensor
        (n,) finite: cosines, or distances with their sign turned.
    same : Tensor
        (n,) bool: genuine pairs.
    identities : Tensor, optional
        (n, 2) integers, the identities of each pair; needed for intervals.
    fars : sequence of float, optional
        (0..1] False-accept rates. One that fewer than ten impostor pairs support is refused, with the reason in the
        result. Unless given, those of 0.1, 0.01 … 1e-6 that are supported.
    folds : int or Tensor, optional
        [2..n] Consecutive folds for the accuracy, LFW's 10; or (n,) the fold of each pair. Without it there is no
        accuracy.
    rules : sequence of {"exact", "insightface"}
        How folds choose thresholds, as in :func:`~nearfar.evaluate.fold_accuracy`.
    resamples : int
        [0..inf] Draws of the bootstrap.
    level : float
        (0..1) Of the intervals.
    seed : int
        Of the draws.

    Returns
    -------
    Verification

    Raises
    ------
    InputError
        A shape, dtype or range does not fit, a kind of pair is missing, or ``same`` contradicts ``identities``.

    References
    ----------
    Fogliato, Patil, Perona (2023). Confidence Intervals for Error Rates in 1:1 Matching Tasks. arXiv:2306.01198.
    """
    ranked = Ranked(similarities, same)
    if not 0 < level < 1:
        raise InputError(f"level lies between 0 and 1; got {level}")
    curve = ranked.roc()
    wanted = [far for far in FARS if far * curve.impostors >= SUPPORT] if fars is None else list(fars)
    points, refused = [], {}
    for far in wanted:
        try:
            points.append(curve.at(far))
        except InputError as error:
            refused[far] = str(error)
    accuracy: dict[str, FoldAccuracy] = {}
    if folds is not None:
        accuracy = {rule: fold_accuracy(similarities, same, folds=folds, rule=rule) for rule in rules}
    intervals: dict[str, tuple[float, float]] = {}
    if identities is not None and resamples:
        supported = [point.wanted for point in points]
        intervals = _intervals(ranked, _numbered(identities, same), supported, resamples, level, seed)
    protocol = ["TAR at the largest FAR not above the rate"]
    if folds is not None:
        listed = isinstance(folds, Tensor)
        protocol.append(f"{len(torch.unique(folds))} folds as listed" if listed else f"{folds} consecutive folds")
    if intervals:
        protocol.append(f"{100 * level:g}% intervals by identity, {resamples} draws, seed {seed}")
    return Verification(
        curve.genuine,
        curve.impostors,
        curve.auc,
        curve.eer,
        accuracy,
        tuple(points),
        refused,
        intervals,
        "; ".join(protocol),
    )


def _numbered(identities: Tensor, same: Tensor) -> Tensor:
    """(n, 2) int64: identities numbered from 0."""
    if not isinstance(identities, Tensor) or identities.shape != (len(same), 2) or identities.is_floating_point():
        found = tuple(identities.shape) if isinstance(identities, Tensor) else type(identities).__name__
        raise InputError(f"identities must be integers of shape ({len(same)}, 2), not {found}")
    wrong = ((identities[:, 0] == identities[:, 1]).cpu() != same.cpu()).nonzero()[:, 0]
    if len(wrong):
        raise InputError(
            f"same and identities contradict each other in {len(wrong)} pairs, first in pair {int(wrong[0])}"
        )
    _, numbered = torch.unique(identities.cpu(), return_inverse=True)
    return torch.as_tensor(numbered)


def _intervals(
    ranked: Ranked, identities: Tensor, fars: Sequence[float], resamples: int, level: float, seed: int
) -> dict[str, tuple[float, float]]:
    generator = torch.Generator().manual_seed(seed)
    count = int(identities.max()) + 1
    first, second = identities[ranked.order].T.contiguous()
    rows = []
    for _ in range(resamples):
        drawn = torch.randint(count, (count,), generator=generator).bincount(minlength=count).double()
        weights = drawn[first] * drawn[second].masked_fill_(ranked.same, 1.0)
        if (curve := ranked.weighted(weights)) is not None:
            rows.append([curve.auc, curve.eer, *(_tar(curve, far) for far in fars)])
    if not rows:
        return {}
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    found = torch.tensor(rows, dtype=torch.float64).quantile(ends, dim=0)
    names = ["auc", "eer", *(f"tar@{far:g}" for far in fars)]
    return {name: (float(low), float(high)) for name, low, high in zip(names, *found, strict=True)}


def _tar(curve: Roc, far: float) -> float:
    """The true accepts at a rate, however few pairs support it in this draw."""
    place = int(torch.searchsorted(curve.far, far * (1 + 1e-12), right=True)) - 1
    return float(curve.tar[place])
