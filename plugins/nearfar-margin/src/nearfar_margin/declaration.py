"""What a margin-softmax loss declares, and nothing of how it is computed.

Every loss of the family is the cross entropy of the logits

.. math:: z_{ij} = s \\cdot \\begin{cases} \\psi(t_i) & j = y_i \\\\ N(c_{ij}) & j \\ne y_i \\end{cases}

where :math:`c_{ij} = \\cos\\theta_{ij}` is the cosine of sample i and class j and :math:`t_i = c_{i y_i}` that
of its own class. A loss says what ψ (:meth:`Declaration.target`) and N (:meth:`Declaration.others`) are; an
engine (:mod:`nearfar_margin.engine`) does the rest, so a loss written once runs on every engine.

Attributes change the rest of the formula where a loss is made otherwise: ``embedding_lengths`` and
``weight_lengths`` multiply z with the length of the embedding and of the class weight (SphereFace keeps the one,
L-Softmax both), ``pooling = "sum"`` adds the z of all classes up instead of taking their cross entropy (SphereFace2,
whose ψ and N are losses already), ``label_smoothing`` spreads some of the target's probability, and ``centers = k``
gives every class k weights, of which the nearest counts (sub-center ArcFace).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

__all__ = ["Declaration", "Pooling", "Rows"]

Pooling = Literal["cross_entropy", "sum"]


def _nothing_known(_: Callable[[Tensor], Tensor]) -> Tensor:
    raise RuntimeError("these rows were made by hand; take those that an engine makes, or extend them by Rows.of")


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of each sample of a batch before its logits are; a loss may extend it with fields of its own.

    A loss that does makes a dataclass of it and copies what is there: ``WithMargin.of(rows, margin=…)``. Whatever
    :meth:`Declaration.others` needs besides parameters of the loss belongs here: engines differentiate through the
    tensors among the fields, and through nothing else that was computed.

    Attributes
    ----------
    t
        (n,) cosine to the sample's own class, in float32 at least; to the nearest of its centers where it has
        several.
    norm
        (n,) length of the embedding; differentiable, so detach it where the paper does.
    labels
        (n,) class ids.
    weight_norm
        (n,) length of the weight of the sample's own class; differentiable.
    embeddings
        (n, d) embeddings of length one; differentiable.
    over_others
        Takes a function of the cosines (n, k) of some k classes, elementwise, and returns the sum of its values over
        all classes but the sample's own, (n,), held constant. It is a pass over all classes: what a loss needs not,
        it does not call.
    """

    t: Tensor
    norm: Tensor
    labels: Tensor
    weight_norm: Tensor = field(default_factory=lambda: torch.empty(0), kw_only=True)
    embeddings: Tensor = field(default_factory=lambda: torch.empty(0), kw_only=True)
    over_others: Callable[[Callable[[Tensor], Tensor]], Tensor] = field(default=_nothing_known, kw_only=True)

    @classmethod
    def of(cls, rows: Rows, **more: Any) -> Self:
        """These rows as the class it is called on, with its own fields in ``more``."""
        known = {f.name: getattr(rows, f.name) for f in dataclasses.fields(rows)}
        return cls(**known | more)


class Declaration(Protocol):
    """The interface between losses and engines.

    The functions are elementwise in their first argument and depend on other samples only through what
    :meth:`prepare` put into ``rows``. So an engine may call :meth:`others` on any block of columns, as often
    as it likes, and what it finds in a target's place there is overwritten. Both are differentiated by autograd.
    """

    @property
    def scale(self) -> Tensor | float:
        """What every logit is multiplied with, s: a number, or a 0-d tensor where it is learned or adapts."""

    @property
    def detached(self) -> bool:
        """Whether ψ and N shape the value only and pass the gradient as if they were the cosines themselves."""

    @property
    def embedding_lengths(self) -> bool:
        """Whether logits are multiplied with the length of the embedding."""

    @property
    def weight_lengths(self) -> bool:
        """Whether logits are multiplied with the length of the class weight."""

    @property
    def label_smoothing(self) -> float:
        """ε, the probability that is spread evenly over all classes, the own one too; for cross entropy only."""

    @property
    def pooling(self) -> Pooling:
        """What becomes of a sample's logits: their cross entropy, or their sum."""

    @property
    def centers(self) -> int:
        """How many weights a class has, k: rows k·j … k·j + k − 1 of the weight are those of class j."""

    def prepare(self, rows: Rows) -> Rows:
        """Called once a batch, before anything else: update running state, draw margins, add fields to ``rows``."""

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        """ψ: what takes the place of the cosine of a sample's own class, (n,)."""

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        """N: what takes the place of the cosines (n, k) of some k classes; ``c`` itself for no change."""
