"""A threshold for a wanted false-accept rate, measured on labelled embeddings."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from nearfar.errors import DataError, InputError
from nearfar.evaluate import all_pairs, verification_metrics

#: Pairs that are looked at where there are more.
_PAIRS = 2**21


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold and what it rests on.

    Attributes
    ----------
    threshold : float
        Cosines at least as large are accepted.
    far, tar : float
        The false- and the true-accept rate it had on the pairs.
    wanted : float
        The false-accept rate asked for.
    genuine, impostors : int
        Pairs of each kind.
    interval : tuple of float or None
        The 95% interval of ``tar``, by identity.
    model : str
        The weights it is for, as embeddings tell it.
    flip : str
        What was done with mirror images.
    """

    threshold: float
    far: float
    tar: float
    wanted: float
    genuine: int
    impostors: int
    interval: tuple[float, float] | None
    model: str
    flip: str

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; a file that exists is not overwritten."""
        try:
            with Path(path).open("x", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self), indent=2) + "\n")
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what :meth:`write` wrote.

        Raises
        ------
        DataError
            It is missing or of another origin.
        """
        try:
            kept = json.loads(Path(path).read_text(encoding="utf-8"))
            kept["interval"] = None if kept["interval"] is None else tuple(map(float, kept["interval"]))
            for name in ("threshold", "far", "tar", "wanted"):
                kept[name] = float(kept[name])
            if not -1 <= kept["threshold"] <= 1:
                raise ValueError(f"its threshold is {kept['threshold']:g}, and cosines lie in [-1, 1]")
            return cls(**kept)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is no calibration that nearfar wrote: {error}") from error


def calibrate(
    embeddings: Tensor, labels: Tensor, far: float, *, model: str = "", flip: str = "none", seed: int = 0
) -> Calibration:
    """The threshold on cosines that accepts at most a share of impostor pairs, of all pairs of labelled embeddings.

    Of more than two million pairs, or a hundred for each that may be falsely accepted where that is more, so many are
    drawn, as :func:`~nearfar.evaluate.all_pairs` does.

    Parameters
    ----------
    embeddings : Tensor
        (n, d) finite.
    labels : Tensor
        (n,) integers: identities.
    far : float
        (0..1] The false-accept rate wanted.
    model, flip : str
        What the embeddings depend on, kept with the threshold.
    seed : int
        Of the interval's bootstrap.

    Returns
    -------
    Calibration

    Raises
    ------
    InputError
        The rate rests on fewer than ten impostor pairs, a kind of pair is missing, or no threshold has the rate.
    """
    _check_rate(far)
    most = max(_PAIRS, math.ceil(100 / far))
    similarities, same, identities = all_pairs(embeddings, labels, most=most, seed=seed)
    return calibrate_pairs(similarities, same, far, identities=identities, model=model, flip=flip, seed=seed)


def calibrate_pairs(
    similarities: Tensor,
    same: Tensor,
    far: float,
    *,
    identities: Tensor | None = None,
    model: str = "",
    flip: str = "none",
    seed: int = 0,
) -> Calibration:
    """The same of pairs that are there.

    Parameters
    ----------
    similarities : Tensor
        (n,) cosines.
    same : Tensor
        (n,) bool: genuine pairs.
    far, model, flip, seed
        As of :func:`calibrate`.
    identities : Tensor, optional
        (n, 2) integers, who each pair is of; without it there is no interval.

    Returns
    -------
    Calibration

    Raises
    ------
    InputError
        As of :func:`calibrate`.
    """
    _check_rate(far)
    found = verification_metrics(similarities, same, identities=identities, fars=(far,), resamples=200, seed=seed)
    if far in found.refused:
        raise InputError(found.refused[far])
    (point,) = found.points
    if math.isinf(point.threshold):
        raise InputError(
            f"more than {far:g} of the impostor pairs are as similar as the most similar one, so that every threshold "
            "accepts too many: look for images that are there twice, or for embeddings that are all alike"
        )
    return Calibration(
        threshold=point.threshold,
        far=point.far,
        tar=point.tar,
        wanted=far,
        genuine=found.genuine,
        impostors=found.impostors,
        interval=found.intervals.get(f"tar@{far:g}"),
        model=model,
        flip=flip,
    )


def _check_rate(far: float) -> None:
    if not 0 < far <= 1:
        raise InputError(f"a false-accept rate lies above 0 and is at most 1; got {far}")
