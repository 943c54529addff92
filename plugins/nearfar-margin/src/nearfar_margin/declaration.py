"""What a margin-softmax loss declares, and nothing of how it is computed.

Every loss of the family is the cross entropy of the logits

.. math:: z_{ij} = s \\cdot \\begin{cases} \\psi(t_i) & j = y_i \\\\ N(c_{ij}) & j \\ne y_i \\end{cases}

where :math:`c_{ij} = \\cos\\theta_{ij}` is the cosine of sample i and class j and :math:`t_i = c_{i y_i}` that
of its own class. A loss says what ψ (:meth:`Declaration.target`) and N (:meth:`Declaration.others`) are; an
engine (:mod:`nearfar_margin.engine`) does the rest, so a loss written once runs on every engine.

A few losses need more, and say so in an attribute that is off for the rest: the lengths of embeddings or of class
vectors as factors of the logits (``times_norm``, ``times_weight_norm``), sums over all other classes before any margin
is known (``surveys``), a loss for each class instead of one softmax (``separate``), or some of the own class's
probability spread over all (``spread``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Declaration", "Rows"]


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of each sample of a batch before its logits are; a loss may extend it with fields of its own.

    Attributes
    ----------
    t
        (n,) cosine to the sample's own class, in float32 at least.
    norm
        (n,) length of the embedding; differentiable, so detach it where the paper does.
    labels
        (n,) class ids.
    embeddings
        (n, d) embeddings of length one; empty where a loss made rows of its own without them.
    """

    t: Tensor
    norm: Tensor
    labels: Tensor
    embeddings: Tensor = field(default_factory=lambda: torch.empty(0), kw_only=True)


class Declaration(Protocol):
    """The interface between losses and engines.

    The functions are elementwise in their first argument and depend on other samples only through what
    :meth:`prepare` put into ``rows``. So an engine may call :meth:`others` on any block of columns, as often
    as it likes, and what it finds in a target's place there is overwritten; so with :meth:`survey`.

    Engines differentiate them by autograd, and through nothing but their first argument, the tensors among the fields
    of ``rows`` and the parameters they use: what is computed of these beforehand belongs into ``rows``. So does a copy
    of state that the next call changes, as an engine may call them in the backward pass again.
    """

    @property
    def scale(self) -> Tensor | float:
        """What every logit is multiplied with, s: a number, or a 0-d tensor where it is learned."""

    @property
    def detached(self) -> bool:
        """Whether ψ and N shape the value only and pass the gradient as if they were the cosines themselves."""

    @property
    def times_norm(self) -> bool:
        """Whether the logits of a sample are also multiplied with the length of its embedding."""

    @property
    def times_weight_norm(self) -> bool:
        """Whether the logits of a class are also multiplied with the length of its vector."""

    @property
    def separate(self) -> bool:
        """Whether ψ and N are losses themselves, whose sum over the classes is that of the sample.

        There is no softmax then, and the engine multiplies with nothing.
        """

    @property
    def spread(self) -> float:
        """ε, the probability that is spread evenly over all classes, the own one too; of a softmax only."""

    @property
    def surveys(self) -> bool:
        """Whether :meth:`settle` wants the sums of :meth:`survey`; they cost a pass over all cosines."""

    def prepare(self, rows: Rows) -> Rows:
        """Called once a batch, before anything else: update running state, draw margins, add fields to ``rows``."""

    def survey(self, c: Tensor, rows: Rows) -> tuple[Tensor, ...]:
        """Functions of the cosines (n, k) of some k classes, whose sums over the other classes :meth:`settle` gets."""

    def settle(self, rows: Rows, *sums: Tensor) -> Rows:
        """Called after :meth:`prepare` where the loss surveys, with each sum (n,); it has no gradient."""

    def target(self, t: Tensor, rows: Rows) -> Tensor:
        """ψ: what takes the place of the cosine of a sample's own class, (n,)."""

    def others(self, c: Tensor, rows: Rows) -> Tensor:
        """N: what takes the place of the cosines (n, k) of some k classes; ``c`` itself for no change."""
