"""The base of losses that call another loss on embeddings, once or several times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn import Criterion, Selection
from nearfar.nn.criterion import CriterionTerm
from nearfar.nn.labels import Labels

__all__ = ["Around", "criterion_of"]


class Around(nn.Module):
    """A loss around another; a subclass writes ``forward``.

    Parameters
    ----------
    loss : nn.Module
        A loss on embeddings, nearfar's or another's of the same contract, or a criterion on embeddings.
    miner : nn.Module, optional
        Selects for each call of ``loss``, from what it is called with.

    Raises
    ------
    ArgumentError
        ``loss`` is none, or brings a miner and another is given.
    """

    #: Labels with a rule or grades go on to the loss inside, which says whether it takes them.
    hands_labels_on = True

    def __init__(self, loss: nn.Module, *, miner: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = criterion_of(self, loss, miner)

    def value(
        self,
        criterion: nn.Module,
        embeddings: Tensor,
        labels: Labels | None,
        indices_tuple: Selection | Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        """What the loss gives, a 0-d tensor; what is None is left out of the call.

        Raises
        ------
        InputError
            The loss is not reduced, or what it says itself.
        """
        given = {"indices_tuple": indices_tuple, "ref_emb": ref_emb, "ref_labels": ref_labels}
        value: Any = criterion(embeddings, labels, **{name: each for name, each in given.items() if each is not None})
        if not isinstance(value, Tensor) or value.ndim:
            raise InputError(
                f"{type(self).__name__} adds values up, and the loss inside it is not reduced: give that a reducer"
            )
        return value


def criterion_of(part: nn.Module, loss: nn.Module, miner: nn.Module | None) -> Criterion:
    """A loss and its miner as a criterion of one term; a criterion as it is."""
    name = type(part).__name__
    if not isinstance(loss, nn.Module):
        raise ArgumentError(f"{name}: loss must be a torch module; got {loss!r}")
    if isinstance(loss, Criterion):
        if miner is not None:
            raise ArgumentError(f"{name}: the loss brings its own miner or is a sum; give a miner in one place only")
        if loss.inputs[:1] != ("embeddings",):
            raise ArgumentError(f"{name} is around losses on embeddings; this one takes {', '.join(loss.inputs)}")
        return loss
    inputs = tuple(getattr(loss, "inputs", ("embeddings", "labels")))
    return Criterion([CriterionTerm("loss", loss, inputs, 1.0, miner)])
