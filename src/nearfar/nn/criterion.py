"""The criterion: named terms, weighted and added, called once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.element_miners import ElementMiner
from nearfar.nn.labels import Grades
from nearfar.nn.losses import EmbeddingLoss, Loss
from nearfar.nn.matching import Matched, Matcher, Matches
from nearfar.nn.miners import Miner
from nearfar.nn.precision import full_precision, raised
from nearfar.nn.schedules import Curve, Scheduled, Schedules
from nearfar.nn.selection import Selection
from nearfar.nn.steps import follow
from nearfar.nn.term_weights import TermWeights
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
        The recipe it is made from, if any, of as many terms.
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
        self._recipe = recipe
        self.losses = nn.ModuleDict({term.name: term.loss for term in terms})
        self.miners = nn.ModuleDict({term.name: miner for term in terms if (miner := _selecting(term)) is not None})
        #: What the value of each term is multiplied with; may be changed between calls.
        self.weights = TermWeights({term.name: term.weight for term in terms})
        #: How many times the network's learning rate what each term learns wants; training begins with it.
        self.learning_rates = {term.name: term.learning_rate for term in terms}
        self._calls = {
            term.name: (term.name in self.miners, _on_embeddings(term.inputs), term.inputs, term.optional_inputs)
            for term in terms
        }
        matchers = {name: miner for name, miner in self.miners.items() if isinstance(miner, Matcher)}
        self._inputs = _Inputs.of(
            [(*term.inputs, *_named(matchers.get(term.name), "inputs")) for term in terms],
            [(*term.optional_inputs, *_named(matchers.get(term.name), "optional_inputs")) for term in terms],
        )
        #: The value of each term in the last call: detached, before its weight.
        self.last: dict[str, Tensor] = {}
        weights = [Scheduled(self.weights, term.name, term.curve) for term in terms if term.curve is not None]
        #: What moves numbers with the steps; None where nothing does.
        self.schedules = Schedules([*scheduled, *weights]) if (scheduled := [*scheduled]) or weights else None

    @property
    def recipe(self) -> Any:
        """The recipe it was made from, with the weights of now; None without one. ``str`` writes it down."""
        if self._recipe is None:
            return None
        scheduled = () if self.schedules is None else self.schedules.scheduled
        moving = {each.name for each in scheduled if each.owner is self.weights}
        return self._recipe.with_weights([None if name in moving else self.weights[name] for name in self.losses])

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of all inputs, in the order in which the terms first name them."""
        return self._inputs.required

    @property
    def optional_inputs(self) -> tuple[str, ...]:
        """The names of what may be given besides, by keyword, and goes to each term that names it."""
        return self._inputs.optional

    @property
    def is_mixed(self) -> bool:
        """Whether the terms differ in their inputs, so that calls name them."""
        return self._inputs.mixed

    def collect_stats(self, collect: bool = True) -> None:
        """Have every loss of nearfar's leave the statistics of its terms in :meth:`statistics`."""
        for module in self.modules():
            if isinstance(module, Loss):
                module.collect_stats = collect
                module.statistics = {}

    def statistics(self) -> dict[str, Tensor]:
        """The statistics of the last call, by ``term/sub-loss/name``; empty unless they are collected.

        Of losses around others by ``term/place/sub-loss/name``, the place being left out where there is one loss
        inside; of a loss that is called more than once in a call, as by ``cross_batch_memory``, those of its last.
        """
        return {
            "/".join((name, *place, key)): value
            for name, loss in self.losses.items()
            for place, inner in _losses_in(loss)
            for key, value in inner.statistics.items()
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
        given = self._inputs.bind(args, kwargs)
        matches: dict[int, Matches] = {}
        values = {name: self._value(name, loss, given, matches) for name, loss in self.losses.items()}
        weights = self.weights.now()
        if self.schedules is not None:
            self.schedules.called()
        last = {name: value.detach() for name, value in values.items() if _is_scalar(value)}
        # A module looks through all it has before it takes an attribute: as long as several steps of a small loss.
        object.__setattr__(self, "last", last)
        if len(last) < len(values):
            name = next(name for name in values if name not in last)
            if len(values) == 1:
                return values[name] if weights[name] == 1 else _scaled(values[name], weights[name])
            raise InputError(f"the term {name!r} is not reduced, so it cannot be added to another; give it a reducer")
        weighted = [v if weights[name] == 1 else v * weights[name] for name, v in values.items()]
        return weighted[0] if len(weighted) == 1 else torch.stack(weighted).sum()

    def _value(self, name: str, loss: nn.Module, given: dict[str, Any], matches: dict[int, Matches]) -> Any:
        mined, on_embeddings, inputs, optional_inputs = self._calls[name]
        miner = self.miners[name] if mined else None
        if isinstance(miner, Matcher):
            if id(miner) not in matches:
                matches[id(miner)] = _match(miner, given)
            assert isinstance(loss, Matched)
            return loss(**loss.of_matches(matches[id(miner)], given))
        optional = {each: given[each] for each in optional_inputs if given.get(each) is not None}
        if not on_embeddings:
            return loss(*[given[each] for each in inputs], **optional)
        embeddings = given["embeddings"]
        labels = given.get("labels") if "labels" in inputs else None
        reference = {each: given[each] for each in ("ref_emb", "ref_labels") if given.get(each) is not None}
        selection = given.get("indices_tuple")
        if miner is not None:
            if selection is not None:
                raise InputError(f"the term {name!r} has its own miner, so it takes no indices_tuple")
            selection = _select(name, miner, loss, embeddings, labels, reference)
        if isinstance(loss, EmbeddingLoss):
            return loss(embeddings, labels, selection, **reference, **optional)
        # A loss around others hands labels on, and what is inside it says what it takes.
        if not (labels is None or isinstance(labels, Tensor) or getattr(loss, "hands_labels_on", False)):
            raise InputError(
                f"the term {name!r} takes tensors of labels, and none with a rule or grades; give it an indices_tuple"
            )
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


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a criterion is called with, settled before it is called.

    Attributes
    ----------
    required, optional
        The names of what its terms need, and of what goes to those that name it.
    mixed, on_embeddings
        Whether the terms differ in what they need; whether one is called as pytorch-metric-learning's are.
    order
        What arguments without a name are.
    known, needed
        The names that may be given, and those that have to be: all that are required, but for labels of embeddings
        that come with a selection.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    mixed: bool
    on_embeddings: bool
    order: tuple[str, ...]
    known: frozenset[str]
    needed: frozenset[str]

    @classmethod
    def of(cls, required: Iterable[tuple[str, ...]], optional: Iterable[tuple[str, ...]]) -> _Inputs:
        """From what each term needs, and what each takes besides."""
        by_term = [tuple(dict.fromkeys(names)) for names in required]
        needed = tuple(dict.fromkeys(name for names in by_term for name in names))
        besides = dict.fromkeys(name for names in optional for name in names if name not in needed)
        mixed, on_embeddings = len(set(by_term)) > 1, any(map(_on_embeddings, by_term))
        return cls(
            required=needed,
            optional=tuple(besides),
            mixed=mixed,
            on_embeddings=on_embeddings,
            order=EMBEDDING_INPUTS if on_embeddings and not mixed else needed,
            known=frozenset((*needed, *besides, *(EMBEDDING_INPUTS[2:] if on_embeddings else ()))),
            needed=frozenset(needed) - ({"labels"} if on_embeddings else set()),
        )

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """What is given, by name.

        Raises
        ------
        InputError
            Something is missing, unknown, given twice, or has to be named.
        """
        if args and self.mixed:
            raise InputError(
                f"this criterion mixes inputs, so call it by keyword: {', '.join(f'{n}=…' for n in self.required)}"
            )
        if len(args) > len(self.order):
            raise InputError(
                f"this criterion takes {len(self.order)} inputs ({', '.join(self.order)}); got {len(args)}"
            )
        given = dict(zip(self.order, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise InputError(f"the input {name!r} was given twice")
            if name not in self.known:
                known = ", ".join((*self.required, *self.optional))
                raise InputError(f"this criterion takes no input {name!r}; it takes {known}")
            given[name] = value
        if not given.keys() >= self.needed or (self.on_embeddings and "labels" not in given):
            self._refuse_missing(given)
        return given

    def _refuse_missing(self, given: dict[str, Any]) -> None:
        selected = self.on_embeddings and given.get("indices_tuple") is not None
        optional = {"labels"} if selected else set()
        if isinstance(given.get("labels"), Grades):  # which are of both sides
            optional.add("ref_labels")
        if missing := [name for name in self.required if name not in given and name not in optional]:
            raise InputError(f"this criterion needs {', '.join(missing)}")


def _select(
    name: str, miner: nn.Module, loss: nn.Module, embeddings: Tensor, labels: Any, reference: dict[str, Tensor]
) -> Any:
    if isinstance(miner, Miner):
        return miner.select(embeddings, labels, **reference, loss=loss)
    if not isinstance(labels, Tensor):
        raise InputError(
            f"the miner of {name!r} is none of nearfar's: it takes tensors, and no labels with a rule or grades"
        )
    with full_precision(embeddings):
        return miner(embeddings, labels, **reference)


def _losses_in(loss: nn.Module) -> list[tuple[tuple[str, ...], Loss]]:
    """The losses of nearfar's in a term, itself or those inside it, and where each is."""
    containers = {"loss", "losses"}  # which say that something is inside, not which
    return [
        (tuple(part for part in path.split(".") if part and part not in containers), module)
        for path, module in loss.named_modules()
        if isinstance(module, Loss)
    ]


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
