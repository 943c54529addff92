"""The criterion: named terms, weighted and added, called once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.element_miners import ElementMiner
from nearfar.nn.labels import RuledLabels
from nearfar.nn.losses import EmbeddingLoss, Loss
from nearfar.nn.matching import Matched, Matcher, Matches
from nearfar.nn.miners import Miner
from nearfar.nn.precision import full_precision, raised
from nearfar.nn.schedules import Curve, Scheduled, Schedules
from nearfar.nn.selection import Selection
from nearfar.nn.steps import follow
from nearfar.spec import EMBEDDING_INPUTS

__all__ = ["Criterion", "CriterionTerm"]


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
        What selects for it, matches for it, or chooses among its terms; None: it looks at everything.
    optional_inputs
        The names of what the loss is called with besides, by name, where it is given.
    learning_rate
        How many times the network's learning rate what it learns wants.
    curve
        What its weight is after so many steps, if it moves.
    """

    name: str
    loss: nn.Module
    inputs: tuple[str, ...]
    weight: float = 1.0
    miner: nn.Module | None = None
    optional_inputs: tuple[str, ...] = ()
    learning_rate: float = 1.0
    curve: Curve | None = None


class Criterion(nn.Module):
    """A weighted sum of losses, each with its own miner, reducer and distance.

    What the losses learn is in ``parameters()``, what they keep in ``buffers()``, and the last value of each
    term, detached and unweighted, in :attr:`last`. A criterion on embeddings is called as
    pytorch-metric-learning's losses are::

        criterion(embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None)

    One whose losses all take the same other inputs is called with these in their order; one that mixes
    inputs is called by keyword, and each term gets what it names. What a loss can do without, such as weights
    and a normaliser, is given by keyword always.

    A term with a matcher is called with what the matcher takes as well: predictions and targets that are yet to be
    matched. Terms whose matchers are one object are matched once a call.

    Parameters
    ----------
    terms
        At least one.
    recipe
        The recipe it was made from, if any; ``str(criterion.recipe)`` writes it down.
    scheduled
        Numbers of its parts that move with the steps.

    Raises
    ------
    ArgumentError
        A miner and its loss do not go together.
    """

    def __init__(
        self, terms: Iterable[CriterionTerm], *, recipe: Any = None, scheduled: Iterable[Scheduled] = ()
    ) -> None:
        super().__init__()
        terms = list(terms)
        self.recipe = recipe
        self.losses = nn.ModuleDict({term.name: term.loss for term in terms})
        self.miners = nn.ModuleDict({term.name: miner for term in terms if (miner := _selecting(term)) is not None})
        #: What the value of each term is multiplied with; may be changed between calls.
        self.weights = {term.name: term.weight for term in terms}
        #: How many times the network's learning rate what each term learns wants; training begins with it.
        self.learning_rates = {term.name: term.learning_rate for term in terms}
        self._calls = {term.name: (term.inputs, term.optional_inputs) for term in terms}
        matchers = {name: miner for name, miner in self.miners.items() if isinstance(miner, Matcher)}
        self._inputs = {
            term.name: tuple(dict.fromkeys((*term.inputs, *_named(matchers.get(term.name), "inputs"))))
            for term in terms
        }
        self._optional = {
            term.name: (*term.optional_inputs, *_named(matchers.get(term.name), "optional_inputs")) for term in terms
        }
        #: The value of each term in the last call: detached, before its weight.
        self.last: dict[str, Tensor] = {}
        weights = [Scheduled(self.weights, term.name, term.curve) for term in terms if term.curve is not None]
        #: What moves numbers with the steps; None where nothing does.
        self.schedules = Schedules([*scheduled, *weights]) if (scheduled := [*scheduled]) or weights else None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of all inputs, in the order in which the terms first name them."""
        return tuple(dict.fromkeys(name for inputs in self._inputs.values() for name in inputs))

    @property
    def optional_inputs(self) -> tuple[str, ...]:
        """The names of what may be given besides, by keyword, and goes to each term that names it."""
        named = dict.fromkeys(name for names in self._optional.values() for name in names)
        return tuple(name for name in named if name not in self.inputs)

    @property
    def is_mixed(self) -> bool:
        """Whether the terms differ in their inputs, so that calls name them."""
        return len(set(self._inputs.values())) > 1

    def collect_stats(self, collect: bool = True) -> None:
        """Have every loss of nearfar's leave the statistics of its terms in :meth:`statistics`."""
        for module in self.modules():
            if isinstance(module, Loss):
                module.collect_stats = collect
                module.statistics = {}

    def statistics(self) -> dict[str, Tensor]:
        """The statistics of the last call, by ``term/sub-loss/name``; empty unless they are collected."""
        return {
            f"{name}/{key}": value
            for name, loss in self.losses.items()
            if isinstance(loss, Loss)
            for key, value in loss.statistics.items()
        }

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Have what moves on once a step, such as class centres, do so with this optimiser's steps, not with calls."""
        follow(self, optimizer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The weighted sum of the terms, a 0-d tensor; what its one loss returns where that is unreduced.

        Raises
        ------
        InputError
            An input is missing, unknown or given twice, or an unreduced loss stands beside another.
        """
        given = self._bind(args, kwargs)
        self.last = {}
        matches: dict[int, Matches] = {}
        values = {name: self._value(name, given, matches) for name in self.losses}
        weights = dict(self.weights)
        if self.schedules is not None:
            self.schedules.called()
        if len(values) == 1:
            ((name, value),) = values.items()
            if not _is_scalar(value):
                return value if weights[name] == 1 else _scaled(value, weights[name])
        for name, value in values.items():
            if not _is_scalar(value):
                raise InputError(
                    f"the term {name!r} is not reduced, so it cannot be added to another; give it a reducer"
                )
        self.last = {name: value.detach() for name, value in values.items()}
        weighted = [v if weights[name] == 1 else v * weights[name] for name, v in values.items()]
        return weighted[0] if len(weighted) == 1 else torch.stack(weighted).sum()

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        on_embeddings = any(map(_on_embeddings, self._inputs.values()))
        extra = (*self.optional_inputs, *(EMBEDDING_INPUTS[2:] if on_embeddings else ()))
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
                known = ", ".join((*self.inputs, *self.optional_inputs))
                raise InputError(f"this criterion takes no input {name!r}; it takes {known}")
            given[name] = value
        optional = {"labels"} if on_embeddings and given.get("indices_tuple") is not None else set()
        if missing := [name for name in self.inputs if name not in given and name not in optional]:
            raise InputError(f"this criterion needs {', '.join(missing)}")
        return given

    def _value(self, name: str, given: dict[str, Any], matches: dict[int, Matches]) -> Any:
        loss, (inputs, optional_inputs) = self.losses[name], self._calls[name]
        if name in self.miners and isinstance(matcher := self.miners[name], Matcher):
            if id(matcher) not in matches:
                matches[id(matcher)] = _match(matcher, given)
            assert isinstance(loss, Matched)
            return loss(**loss.of_matches(matches[id(matcher)], given))
        optional = {each: given[each] for each in optional_inputs if given.get(each) is not None}
        if not _on_embeddings(inputs):
            return loss(*(given[each] for each in inputs), **optional)
        embeddings = given["embeddings"]
        labels = given.get("labels") if "labels" in inputs else None
        reference = {each: given[each] for each in ("ref_emb", "ref_labels") if given.get(each) is not None}
        selection = given.get("indices_tuple")
        if name in self.miners:
            if selection is not None:
                raise InputError(f"the term {name!r} has its own miner, so it takes no indices_tuple")
            selection = self._select(name, embeddings, labels, reference)
        if isinstance(loss, EmbeddingLoss):
            return loss(embeddings, labels, selection, **reference, **optional)
        if isinstance(labels, RuledLabels):
            raise InputError(f"the term {name!r} is no loss of nearfar's: it takes tensors, and no labels with a rule")
        if isinstance(selection, Selection):
            selection = selection.indices()
        arguments = reference | optional | ({} if selection is None else {"indices_tuple": selection})
        if "ref_emb" in arguments:
            arguments["ref_emb"] = raised(arguments["ref_emb"])
        # Given half precision, pytorch-metric-learning's cast their class weights to it, in place.
        with full_precision(embeddings):
            value = loss(raised(embeddings), labels, **arguments)
        # Some of pytorch-metric-learning's give their one number as (1,).
        return value.reshape(()) if isinstance(value, Tensor) and value.shape == (1,) else value

    def _select(self, name: str, embeddings: Tensor, labels: Any, reference: dict[str, Tensor]) -> Any:
        miner = self.miners[name]
        if isinstance(miner, Miner):
            return miner.select(embeddings, labels, **reference, loss=self.losses[name])
        if isinstance(labels, RuledLabels):
            raise InputError(f"the miner of {name!r} is none of nearfar's: it takes tensors, and no labels with a rule")
        with full_precision(embeddings):
            return miner(embeddings, labels, **reference)


def _selecting(term: CriterionTerm) -> nn.Module | None:
    """What selects, or matches, for a term; what chooses among its terms is left with the loss."""
    miner = term.miner
    if isinstance(miner, ElementMiner):
        if not isinstance(term.loss, Loss):
            theirs = type(term.loss).__name__
            raise ArgumentError(f"{type(miner).__name__} chooses among the terms of nearfar's losses; {theirs} is none")
        term.loss.element_miner, miner = miner, miner.miner
    if isinstance(miner, Matcher) and not isinstance(term.loss, Matched):
        raise ArgumentError(f"{type(miner).__name__} matches boxes, and {type(term.loss).__name__} takes no matches")
    return miner


def _named(matcher: Matcher | None, what: str) -> tuple[str, ...]:
    return () if matcher is None else tuple(getattr(matcher, what))


def _match(matcher: Matcher, given: dict[str, Any]) -> Matches:
    options = {name: given[name] for name in matcher.optional_inputs if given.get(name) is not None}
    with torch.no_grad():
        return matcher.match(*(given[name] for name in matcher.inputs), **options)


def _on_embeddings(inputs: tuple[str, ...]) -> bool:
    """Whether a loss is called as pytorch-metric-learning's are: it names nothing that this call does not have."""
    return inputs[0] == "embeddings" and {*inputs} <= {*EMBEDDING_INPUTS}


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0


def _scaled(value: Any, weight: float) -> Any:
    if isinstance(value, Tensor):
        return value * weight
    if isinstance(value, dict) and all(isinstance(v, Tensor) for v in value.values()):
        return {name: v * weight for name, v in value.items()}
    raise InputError("a weight cannot be applied to what this reducer returns; leave the weight out")
