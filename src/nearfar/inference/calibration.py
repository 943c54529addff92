"""A threshold for a wanted false-accept rate, measured on labelled embeddings."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from nearfar.errors import DataError, InputError
from nearfar.evaluate import all_pairs, verification_metrics


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
            kept["interval"] = None if kept["interval"] is None else tuple(kept["interval"])
            return cls(**kept)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is no calibration that nearfar wrote: {error}") from error


def calibrate(
    embeddings: Tensor, labels: Tensor, far: float, *, model: str = "", flip: str = "none", seed: int = 0
) -> Calibration:
    """The threshold on cosines that accepts at most a share of impostor pairs, of all pairs of labelled embeddings.

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
        The rate rests on fewer than ten impostor pairs, or a kind of pair is missing.
    """
    similarities, same, identities = all_pairs(embeddings, labels)
    found = verification_metrics(similarities, same, identities=identities, fars=(far,), resamples=200, seed=seed)
    if far in found.refused:
        raise InputError(found.refused[far])
    (point,) = found.points
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
