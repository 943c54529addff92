"""The scale that a number of classes and a margin ask for: CosFace's bound (Wang et al. 2018, 1801.09414)."""

from __future__ import annotations

import math

from nearfar.errors import ArgumentError
from nearfar.nn.arguments import positive

__all__ = ["least_scale", "scale_of"]


def least_scale(num_classes: int, probability: float = 0.99, *, own: float = 1.0) -> float:
    """The least scale at which every sample can reach ``probability``: ln((C − 1)P/(1 − P)) / (ψ + 1/(C − 1)).

    It assumes class weights spread as far as a simplex allows, so that a sample on its class has a cosine of
    −1/(C − 1) to all others. Without a margin it is CosFace's (C − 1)/C · ln((C − 1)P/(1 − P)).

    Parameters
    ----------
    num_classes
        C, at least 2.
    probability
        P, the probability of the own class, above 1/C.
    own
        ψ, what the margin leaves of a sample's cosine of 1 to its class: 1 − m of an additive cosine margin, cos m of
        an additive angular one.

    Raises
    ------
    ArgumentError
        There is one class only, the probability is no more than chance, or the margin is so large that no scale is
        enough.
    """
    if num_classes < 2 or not 1 / num_classes < probability < 1:
        raise ArgumentError(
            f"the least scale needs two classes at least, and a probability between chance and 1; "
            f"got num_classes={num_classes}, probability={probability}"
        )
    gap = own + 1 / (num_classes - 1)
    if gap <= 0:
        raise ArgumentError(
            f"no scale is enough for a margin that leaves {own:.4g} of a cosine of 1 among {num_classes} classes, "
            f"which have cosines of {-1 / (num_classes - 1):.4g} at best: take a smaller margin, or give a scale"
        )
    return math.log((num_classes - 1) * probability / (1 - probability)) / gap


def scale_of(
    part: str, scale: float | str, num_classes: int, *, own: float = 1.0, words: tuple[str, ...] = ("auto",)
) -> float:
    """A scale that may be given as a word: ``"auto"`` is :func:`least_scale`; ``"norm"`` is 1, where lengths scale.

    Raises
    ------
    ArgumentError
        It is another word than one of ``words``, or no number above 0.
    """
    if isinstance(scale, str):
        if scale not in words:
            known = " or ".join(map(repr, words))
            raise ArgumentError(f"{part}: scale must be a number or {known}; got {scale!r}")
        return least_scale(num_classes, own=own) if scale == "auto" else 1.0
    return positive("scale", scale)
