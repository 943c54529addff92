"""The receiver operating characteristic of pairs: what is accepted at each threshold, rightly and falsely."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.errors import InputError

#: Impostor pairs that a false-accept rate has to rest on: with fewer, one pair more or less moves it by over a tenth.
SUPPORT = 10


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What holds at one threshold.

    Attributes
    ----------
    wanted : float
        The false-accept rate asked for.
    threshold : float
        Pairs at least as similar are accepted; infinity where none may be.
    far, tar : float
        The false-accept rate reached, at most ``wanted``, and the true-accept rate.
    false_accepts : int
        Impostor pairs accepted.
    impostors : int
        Impostor pairs in all.
    """

    wanted: float
    threshold: float
    far: float
    tar: float
    false_accepts: int
    impostors: int


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """The curve of false and true accepts as the threshold falls: one point for each distinct similarity.

    Attributes
    ----------
    thresholds : Tensor
        (points,) float64, falling; the first is infinity, at which nothing is accepted.
    far, tar : Tensor
        (points,) float64, the shares of impostor and of genuine pairs at least as similar; from 0 to 1.
    genuine, impostors : int
        Pairs of each kind.
    """

    thresholds: Tensor
    far: Tensor
    tar: Tensor
    genuine: int
    impostors: int

    @property
    def auc(self) -> float:
        """The area below the curve: how probably a genuine pair is more similar than an impostor, ties by half."""
        return float(torch.trapezoid(self.tar, self.far))

    @property
    def eer(self) -> float:
        """The equal error rate: where 1 − TAR = FAR on the curve, its points joined by straight lines."""
        gap = self.far + self.tar - 1  # rises from −1 to 1
        after = int(torch.searchsorted(gap, 0.0))
        if float(gap[after]) == 0:
            return float(self.far[after])
        before = after - 1
        part = -gap[before] / (gap[after] - gap[before])
        return float(torch.lerp(self.far[before], self.far[after], part))

    def at(self, far: float) -> OperatingPoint:
        """The most that is rightly accepted while at most this share of impostors is.

        Parameters
        ----------
        far : float
            (0..1] The false-accept rate.

        Raises
        ------
        InputError
            It is out of range, or rests on fewer than ten impostor pairs.
        """
        if not 0 < far <= 1:
            raise InputError(f"a false-accept rate lies above 0 and is at most 1; got {far}")
        if far * self.impostors < SUPPORT - 1e-9:
            raise InputError(
                f"a false-accept rate of {far:g} of {self.impostors} impostor pairs rests on "
                f"{far * self.impostors:.3g} of them: it takes {SUPPORT}, so give {SUPPORT / far:.0f} or ask for "
                f"{SUPPORT / self.impostors:.2g} at least"
            )
        # Counts divided by counts: a rate that is reached exactly must not be lost to rounding.
        place = int(torch.searchsorted(self.far, far * (1 + 1e-12), right=True)) - 1
        reached = float(self.far[place])
        return OperatingPoint(
            wanted=far,
            threshold=float(self.thresholds[place]),
            far=reached,
            tar=float(self.tar[place]),
            false_accepts=round(reached * self.impostors),
            impostors=self.impostors,
        )


class Ranked:
    """Pairs sorted by their similarity, once for all curves that are made of them.

    Parameters
    ----------
    similarities : Tensor
        (n,) finite, floating; the larger the more similar.
    same : Tensor
        (n,) bool: genuine pairs. There are some of each kind.

    Raises
    ------
    InputError
        A shape, dtype or value does not fit, or there are no genuine or no impostor pairs.
    """

    def __init__(self, similarities: Tensor, same: Tensor) -> None:
        check_pairs(similarities, same)
        values, self.order = similarities.detach().double().cpu().sort(descending=True, stable=True)
        self.same = same.cpu()[self.order]
        #: Of equally similar pairs, the last: only there a threshold can lie.
        self.ends = torch.cat([values[1:] != values[:-1], torch.tensor([True])]).nonzero()[:, 0]
        self.thresholds = torch.cat([torch.tensor([torch.inf], dtype=torch.float64), values[self.ends]])

    def roc(self) -> Roc:
        """The curve of all pairs."""
        genuine, impostors = (self._accepted(kind.double()) for kind in (self.same, ~self.same))
        counts = round(float(genuine[-1])), round(float(impostors[-1]))
        return Roc(self.thresholds, impostors / impostors[-1], genuine / genuine[-1], *counts)

    def weighted(self, weights: Tensor) -> Roc | None:
        """The curve of pairs that count several times or not at all; None where a kind is not left.

        Parameters
        ----------
        weights : Tensor
            (n,) float64, not negative, in the order of ``self.order``.
        """
        genuine, impostors = (self._accepted(weights * kind) for kind in (self.same, ~self.same))
        if not float(genuine[-1]) or not float(impostors[-1]):
            return None
        counts = round(float(genuine[-1])), round(float(impostors[-1]))
        return Roc(self.thresholds, impostors / impostors[-1], genuine / genuine[-1], *counts)

    def _accepted(self, weights: Tensor) -> Tensor:
        """(points,): the weight of all pairs at least as similar as each threshold."""
        return torch.cat([torch.zeros(1, dtype=torch.float64), weights.cumsum(0)[self.ends]])


def roc(similarities: Tensor, same: Tensor) -> Roc:
    """The receiver operating characteristic of pairs.

    Parameters
    ----------
    similarities : Tensor
        (n,) finite, floating; the larger the more similar. Give distances with their sign turned.
    same : Tensor
        (n,) bool: whether the two are of one identity.

    Raises
    ------
    InputError
        A shape, dtype or value does not fit, or there are no genuine or no impostor pairs.
    """
    return Ranked(similarities, same).roc()


def check_pairs(similarities: Tensor, same: Tensor) -> None:
    """Raise an InputError unless there are n finite similarities and n truth values, some of each kind."""
    for name, tensor in (("similarities", similarities), ("same", same)):
        if not isinstance(tensor, Tensor) or tensor.ndim != 1:
            found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(f"{name} must be a tensor of shape (pairs,), not {found}")
    if len(similarities) != len(same):
        raise InputError(f"there are {len(similarities)} similarities and {len(same)} truth values: give one a pair")
    if not similarities.is_floating_point() or not bool(similarities.isfinite().all()):
        raise InputError(f"similarities must be finite floating-point numbers; got {similarities.dtype}")
    if same.dtype != torch.bool:
        raise InputError(f"same must be of dtype torch.bool, not {same.dtype}")
    genuine = int(same.sum())
    if not 0 < genuine < len(same):
        kind = "genuine" if genuine == 0 else "impostor"
        raise InputError(f"none of the {len(same)} pairs is {kind}: verification needs both kinds")
