"""The criterion: named terms, weighted and added, called once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import InputError
from nearfar.nn.losses import EmbeddingLoss, Loss
from nearfar.nn.miners import Miner
from nearfar.nn.selection import Selection

__all__ = ["Criterion", "CriterionTerm"]

EMBEDDING_INPUTS = ("embeddings", "labels", "indices_tuple", "ref_emb", "ref_labels")


@dataclass(frozen=True, slots=True)
class CriterionTerm:
    """One term of a criterion, as it is put together.

    Attributes
    ----------
    name
        Under which its value is logged; distinct within a criterion.
    loss
        The loss, nearfar's or a foreign one with the same contract.
    inputs
        The names of what the loss is called with, in order.
    weight
        What its value is multiplied with.
    miner
        What selects for it; None: it looks at everything.
    """

    name: str
    loss: nn.Module
    inputs: tuple[str, ...]
    weight: float = 1.0
    miner: nn.Module | None = None


class Criterion(nn.Module):
    """A weighted sum of losses, each with its own miner, reducer and distance.

    What the losses learn is in ``parameters()``, what they keep in ``buffers()``, and the last value of each
    term, detached and unweighted, in :attr:`last`. A criterion on embeddings is called as
    pytorch-metric-learning's losses are::

        criterion(embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None)

    One whose losses all take the same other inputs is called with these in their order; one that mixes
    inputs is called by keyword, and each term gets what it names.

    Parameters
    ----------
    terms
        At least one.
    recipe
        The recipe it was made from, if any; ``str(criterion.recipe)`` writes it down.
    """

    def __init__(self, terms: Iterable[CriterionTerm], *, recipe: Any = None) -> None:
        super().__init__()
        self._terms = list(terms)
        self.recipe = recipe
        self.losses = nn.ModuleDict({term.name: term.loss for term in self._terms})
        self.miners = nn.ModuleDict({term.name: term.miner for term in self._terms if term.miner is not None})
        self.weights = {term.name: term.weight for term in self._terms}
        #: The value of each term in the last call: detached, before its weight.
        self.last: dict[str, Tensor] = {}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of all inputs, in the order in which the terms first name them."""
        return tuple(dict.fromkeys(name for term in self._terms for name in term.inputs))

    @property
    def is_mixed(self) -> bool:
        """Whether the terms differ in their inputs, so that calls name them."""
        return len({term.inputs for term in self._terms}) > 1

    def collect_stats(self, collect: bool = True) -> None:
        """Have every loss of nearfar's leave the statistics of its terms in :meth:`statistics`."""
        for module in self.modules():
            if isinstance(module, Loss):
                module.collect_stats = collect

    def statistics(self) -> dict[str, Tensor]:
        """The statistics of the last call, by ``term/sub-loss/name``; empty unless they are collected."""
        return {
            f"{name}/{key}": value
            for name, loss in self.losses.items()
            if isinstance(loss, Loss)
            for key, value in loss.statistics.items()
        }

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The weighted sum of the terms, a 0-d tensor; what its one loss returns where that is unreduced.

        Raises
        ------
        InputError
            An input is missing, unknown or given twice, or an unreduced loss stands beside another.
        """
        given = self._bind(args, kwargs)
        values = {term.name: self._value(term, given) for term in self._terms}
        if len(values) == 1 and not _is_scalar(value := values[self._terms[0].name]):
            return value if self._terms[0].weight == 1 else _scaled(value, self._terms[0].weight)
        for name, value in values.items():
            if not _is_scalar(value):
                raise InputError(
                    f"the term {name!r} is not reduced, so it cannot be added to another; give it a reducer"
                )
        self.last = {name: value.detach() for name, value in values.items()}
        weighted = [values[term.name] * term.weight if term.weight != 1 else values[term.name] for term in self._terms]
        return weighted[0] if len(weighted) == 1 else torch.stack([value.reshape(()) for value in weighted]).sum()

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        on_embeddings = any(term.inputs[0] == "embeddings" for term in self._terms)
        extra = EMBEDDING_INPUTS[2:] if on_embeddings else ()
        order = EMBEDDING_INPUTS if on_embeddings and not self.is_mixed else self.inputs
        if args and self.is_mixed:
            raise InputError(
                f"this criterion mixes inputs, so call it by keyword: {', '.join(f'{n}=…' for n in self.inputs)}"
            )
        if len(args) > len(order):
            raise InputError(f"this criterion takes {len(order)} inputs ({', '.join(order)}); got {len(args)}")
        given = dict(zip(order, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise InputError(f"the input {name!r} was given twice")
            if name not in self.inputs and name not in extra:
                raise InputError(f"this criterion takes no input {name!r}; it takes {', '.join(self.inputs)}")
            given[name] = value
        optional = {"labels"} if on_embeddings and given.get("indices_tuple") is not None else set()
        if missing := [name for name in self.inputs if name not in given and name not in optional]:
            raise InputError(f"this criterion needs {', '.join(missing)}")
        return given

    def _value(self, term: CriterionTerm, given: dict[str, Any]) -> Any:
        if term.inputs[0] != "embeddings":
            return term.loss(*(given[name] for name in term.inputs))
        embeddings = given["embeddings"]
        labels = given.get("labels") if "labels" in term.inputs else None
        reference = {name: given[name] for name in ("ref_emb", "ref_labels") if given.get(name) is not None}
        selection = given.get("indices_tuple")
        if term.miner is not None:
            if selection is not None:
                raise InputError(f"the term {term.name!r} has its own miner, so it takes no indices_tuple")
            selection = self._select(term, embeddings, labels, reference)
        if not isinstance(term.loss, EmbeddingLoss) and isinstance(selection, Selection):
            selection = selection.indices()
        if selection is None and not reference:
            return term.loss(embeddings, labels)
        return term.loss(embeddings, labels, indices_tuple=selection, **reference)

    def _select(self, term: CriterionTerm, embeddings: Tensor, labels: Any, reference: dict[str, Tensor]) -> Any:
        if isinstance(term.miner, Miner):
            return term.miner.select(embeddings, labels, **reference, loss=term.loss)
        assert term.miner is not None
        return term.miner(embeddings, labels, **reference)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and value.ndim <= 1


def _scaled(value: Any, weight: float) -> Any:
    if isinstance(value, Tensor):
        return value * weight
    if isinstance(value, dict) and all(isinstance(v, Tensor) for v in value.values()):
        return {name: v * weight for name, v in value.items()}
    raise InputError("a weight cannot be applied to what this reducer returns; leave the weight out")
