"""The base classes of losses: an author writes :meth:`terms`, the rest is here."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.batch import Batch, check_embeddings
from nearfar.nn.distances import Distance, Euclidean
from nearfar.nn.labels import Labels
from nearfar.nn.precision import full_precision, raised
from nearfar.nn.reducers import Mean, Reducer
from nearfar.nn.selection import Selection, as_selection
from nearfar.nn.terms import Terms

__all__ = ["EmbeddingLoss", "Loss"]


class Loss(nn.Module):
    """A loss on any inputs: :meth:`terms` computes what is reduced, ``reducer`` reduces it.

    Parameters
    ----------
    reducer
        A reducer of nearfar's or of pytorch-metric-learning's; by default what :meth:`default_reducer` makes.
    """

    def __init__(self, *, reducer: nn.Module | None = None) -> None:
        super().__init__()
        self.reducer: nn.Module = self.default_reducer() if reducer is None else reducer
        #: What chooses among the terms before they are reduced; None: all count.
        self.element_miner: nn.Module | None = None
        #: Whether calls leave statistics of their terms in :attr:`statistics`.
        self.collect_stats = False
        #: Of the last call, detached: ``<sub-loss>/terms`` and ``<sub-loss>/active``, the share above zero.
        self.statistics: dict[str, Tensor] = {}
        #: Whether each rank of a process group calls it with the batch of all of them, rather than with its own part,
        #: so that what a loss would tell other ranks of the batch they know.
        self.whole_batch = False

    def default_reducer(self) -> nn.Module:
        """The reducer it has unless told otherwise."""
        return Mean()

    @abstractmethod
    def terms(self, *inputs: Any) -> Terms | Mapping[str, Terms]:
        """What is reduced: the terms of the loss, or those of each of its sub-losses by name."""

    def forward(self, *inputs: Tensor) -> Any:
        """The reduced loss of inputs in the order the loss's spec names them.

        Raises
        ------
        InputError
            An input is not a tensor, or what the loss itself finds wrong with it.
        """
        if not inputs:
            raise InputError(f"{type(self).__name__} was called without inputs")
        for position, given in enumerate(inputs):
            if not isinstance(given, Tensor):
                raise InputError(f"{type(self).__name__}: input {position} is no tensor but a {type(given).__name__}")
        with full_precision(inputs[0]):
            full = [raised(given) for given in inputs]
            return self.reduce(self.terms(*full), full[0], None)

    def reduce(self, terms: Terms | Mapping[str, Terms], inputs: Tensor, labels: Tensor | None) -> Any:
        """Reduce each sub-loss and add them up; an unreduced loss of several comes back by name."""
        named: Mapping[str, Terms]
        if isinstance(terms, Terms):
            # Most losses; of few elements each question that is not asked is a share of the whole.
            if self.element_miner is None and not self.collect_stats and isinstance(self.reducer, Reducer):
                return self.reducer.reduce(terms)
            named = {"loss": terms}
        else:
            named = terms
        if not isinstance(named, Mapping) or not all(isinstance(part, Terms) for part in named.values()):
            if getattr(type(self).terms, "__isabstractmethod__", False):
                raise ArgumentError(f"{type(self).__name__} has no method terms, which says what it reduces")
            raise ArgumentError(
                f"{type(self).__name__}.terms returned {type(terms).__name__}; it must return Terms, or a mapping of "
                "names to Terms"
            )
        if self.element_miner is not None:
            named = self.element_miner(named)
        if self.collect_stats:
            self.statistics = _statistics(named)
        if not isinstance(self.reducer, Reducer):
            return self._reduce_foreign(named, inputs, labels)
        values = {name: self.reducer.reduce(part) for name, part in named.items()}
        if len(values) == 1:
            return next(iter(values.values()))
        if any(value.ndim for value in values.values()):
            return values
        return functools.reduce(torch.add, values.values())

    def _reduce_foreign(self, named: Mapping[str, Terms], inputs: Tensor, labels: Tensor | None) -> Any:
        """Ask a reducer that wants dictionaries of materialised losses: pytorch-metric-learning's contract."""
        loss_dict = {
            name: {
                "losses": terms.values if len(terms.values) else 0,
                "indices": terms.indices[0] if terms.kind == "element" else terms.indices,
                "reduction_type": terms.kind,
                "divisor": terms.count() if terms.normalizer is None else terms.normalizer,
            }
            for name, terms in named.items()
        }
        # Theirs take one entry a call, but for those that are made to take them all.
        if any(base.__name__ in _TAKE_ALL for base in type(self.reducer).__mro__):
            return self.reducer(loss_dict, inputs, labels)
        # Elements that are classes rather than samples have labels of their own.
        own = {name: labels if terms.labels is None else terms.labels for name, terms in named.items()}
        values = [self.reducer({name: entry}, inputs, own[name]) for name, entry in loss_dict.items()]
        return values[0] if len(values) == 1 else torch.stack(values).sum()


#: Reducers of pytorch-metric-learning that take the losses of all sub-losses at once; by name, as it is not imported.
_TAKE_ALL = frozenset({"MultipleReducers", "DoNothingReducer"})


class EmbeddingLoss(Loss):
    """A loss on embeddings, called as pytorch-metric-learning's are.

    Parameters
    ----------
    distance
        What nearness is; by default what :meth:`default_distance` makes. A loss that takes none leaves it out.
    reducer
        As in :class:`Loss`.
    """

    #: Whether labels may grade how relevant references are; else such labels are refused before :meth:`terms`.
    graded = False

    def __init__(self, *, distance: nn.Module | None = None, reducer: nn.Module | None = None) -> None:
        super().__init__(reducer=reducer)
        self.distance: Any = self.default_distance() if distance is None else distance

    def default_distance(self) -> Distance | None:
        """The distance it has unless told otherwise; None for a loss that takes none."""
        return Euclidean()

    @abstractmethod
    def terms(self, batch: Batch) -> Terms | Mapping[str, Terms]:  # one Batch, not *inputs
        """What is reduced, of a batch that has been checked."""

    def forward(  # type: ignore[override]  # the contract of embedding losses names its arguments
        self,
        embeddings: Tensor,
        labels: Labels | None = None,
        indices_tuple: Selection | Sequence[Tensor] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Any:
        """The reduced loss of a batch.

        Parameters
        ----------
        embeddings
            (n, d) floating; half precision is raised to float32.
        labels
            (n,) class ids, or (n, classes) boolean multi-hot, by which positives share at least one label, or
            :class:`~nearfar.nn.labels.RuledLabels`, or, of a loss that takes grades,
            :class:`~nearfar.nn.labels.Grades`; may be left out where ``indices_tuple`` says what belongs together.
        indices_tuple
            What a miner selected: a tuple of three or four index tensors, or a ``Selection``.
        ref_emb, ref_labels
            (m, d), and labels of the same kind: compare with these rather than with the batch itself.

        Raises
        ------
        InputError
            A shape, dtype or range does not fit.
        """
        with full_precision(embeddings):
            selection = None
            if indices_tuple is not None:
                references = len(check_embeddings(embeddings, "embeddings"))
                if ref_emb is not None:
                    references = len(check_embeddings(ref_emb, "ref_emb"))
                selection = as_selection(indices_tuple, len(embeddings), references)
            batch = Batch.of(embeddings, labels, selection, ref_emb, ref_labels)
            if batch.is_graded:
                self._check_grades(batch)
            return self.reduce(self.terms(batch), batch.embeddings, batch.labels)

    def _check_grades(self, batch: Batch) -> None:
        name = type(self).__name__
        if not self.graded:
            raise InputError(
                f"{name} tells positives from negatives and takes no labels with grades; give it class ids, multi-hot "
                "labels, or the rule other_group or same_group"
            )
        if batch.selection is not None:
            raise InputError(f"{name} looks at every pair where labels grade them: leave out indices_tuple and miner")


@torch.no_grad()
def _statistics(named: Mapping[str, Terms]) -> dict[str, Tensor]:
    statistics = {}
    for name, terms in named.items():
        count = terms.count()
        statistics[f"{name}/terms"] = count
        statistics[f"{name}/active"] = terms.count_positive() / count.clamp_min(1)
    return statistics
