"""Reducers: from the terms of a loss to the number that is minimised.

A reducer answers to the same call as pytorch-metric-learning's reducers, so either can stand in for the
other; between nearfar's own parts only :meth:`Reducer.reduce` is used, which asks the terms for sums and
counts and so never makes values that nobody needs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.arguments import finite, non_negative
from nearfar.nn.batch import check_range
from nearfar.nn.precision import raised
from nearfar.nn.terms import MaterialTerms, Terms

__all__ = [
    "AvgNonZero",
    "ClassWeighted",
    "Divisor",
    "Mean",
    "NoReduction",
    "PerAnchor",
    "PerGroup",
    "Reducer",
    "Sum",
    "Threshold",
    "TopK",
]


class Reducer(nn.Module):
    """A reduction of terms to a number; a subclass writes :meth:`reduce`."""

    @abstractmethod
    def reduce(self, terms: Terms) -> Tensor:
        """The reduced value of one sub-loss; 0 with a usable gradient when there is no term."""

    def forward(self, loss_dict: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None) -> Tensor:
        """Reduce a dictionary of losses as pytorch-metric-learning's losses make it: the sum over its entries."""
        values = [self._entry(entry, embeddings, labels) for entry in loss_dict.values()]
        return values[0] if len(values) == 1 else torch.stack(values).sum()

    def _entry(self, entry: Mapping[str, Any], embeddings: Tensor, labels: Tensor | None) -> Tensor:
        losses = entry["losses"]
        if not isinstance(losses, Tensor):  # the number 0 is how the absence of any term is written
            return (embeddings * 0).sum()
        if entry["reduction_type"] == "already_reduced":
            return losses
        indices = entry["indices"]
        indices = (indices,) if isinstance(indices, Tensor) else tuple(indices)
        terms = MaterialTerms(
            entry["reduction_type"],
            raised(losses.reshape(-1)),  # some of theirs are (n, 1); a sum in float16 ends at 65504
            indices,
            num_anchors=len(embeddings),
            normalizer=self.normalizer_of(entry),
            labels=labels,
        )
        return self.reduce(terms)

    def normalizer_of(self, entry: Mapping[str, Any]) -> Tensor | float | None:
        """What it divides by of an entry of pytorch-metric-learning's; most of theirs, and of ours, heed none."""
        return None


class Mean(Reducer):
    r"""The mean of all values.

    .. math:: \frac{1}{K} \sum_{k=1}^{K} v_k

    A loss that gives a normaliser has its sum divided by that instead of by the number of values.
    """

    def reduce(self, terms: Terms) -> Tensor:
        divisor = terms.size if terms.normalizer is None else terms.normalizer
        if isinstance(divisor, int | float) and 0 < divisor <= 1 << 24:
            return terms.sum_over(divisor)
        return _ratio(terms.sum(), terms.count() if divisor is None else divisor)


class Divisor(Reducer):
    r"""The sum of all values over what the loss gives to divide by.

    .. math:: \frac{1}{D} \sum_{k=1}^{K} v_k

    D is the loss's normaliser, and of a loss of pytorch-metric-learning its divisor, which ``mean`` leaves out; the
    number of values where a loss gives none. It is 0 where D is.
    """

    def normalizer_of(self, entry: Mapping[str, Any]) -> Tensor | float | None:
        found: Tensor | float | None = entry.get("divisor")
        return found

    def reduce(self, terms: Terms) -> Tensor:
        total = terms.sum()
        divisor = terms.count() if terms.normalizer is None else terms.normalizer
        if isinstance(divisor, Tensor):
            return torch.where(divisor == 0, total * 0, _ratio(total, divisor))
        return _ratio(total, divisor) if divisor else total * 0


class Threshold(Reducer):
    r"""The mean of the values above one bound and below another.

    .. math:: \frac{\sum_k v_k [l < v_k < h]}{\sum_k [l < v_k < h]}

    It is 0 where there is no such value. A normaliser does not count, as it is one of all values.

    Parameters
    ----------
    low : float, optional
        l; no bound by default. With 0 and no other bound this is ``avg_non_zero``.
    high : float, optional
        h; no bound by default. Below it outliers, such as wrong labels, are left out.

    Raises
    ------
    ArgumentError
        Neither bound is given, one is no finite number, or ``low`` is not below ``high``.
    """

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        super().__init__()
        if low is None and high is None:
            raise ArgumentError("Threshold: give low, high or both; without a bound it would be the mean")
        self.low = None if low is None else finite("low", low)
        self.high = None if high is None else finite("high", high)
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ArgumentError(f"Threshold: low must be below high; got low={low!r} and high={high!r}")

    def reduce(self, terms: Terms) -> Tensor:
        if self.low == 0 and self.high is None:  # which terms may know without making a value
            return _ratio(terms.sum_positive(), terms.count_positive())
        totals, counts = [], []
        for values, _ in terms.blocks():
            kept = torch.ones_like(values, dtype=torch.bool)
            # Not comparisons that are false of NaN: what is not a number must show in the loss.
            if self.low is not None:
                kept &= ~(values <= self.low)
            if self.high is not None:
                kept &= ~(values >= self.high)
            totals.append(torch.where(kept, values, 0).sum())
            counts.append(kept.sum())
        return _ratio(torch.stack(totals).sum(), torch.stack(counts).sum()) if totals else terms.sum()

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}"


class ClassWeighted(Reducer):
    r"""The mean of all values, each times the weight of its anchor's class.

    .. math:: \frac{1}{K} \sum_{k=1}^{K} w_{y_k} v_k

    Weights are not made to add up to anything: with all of them 2 the loss is twice the mean. A loss that gives a
    normaliser has its sum divided by that. Of values that are of classes, such as a regulariser of class weights, it is
    the class itself.

    Parameters
    ----------
    class_weights : list of float
        One for each class, by its label; at least 0.

    Raises
    ------
    ArgumentError
        There is no weight, or one is negative or not finite.
    InputError
        When called: there are no labels, or one that has no weight.
    """

    class_weights: Tensor

    def __init__(self, class_weights: Sequence[float]) -> None:
        super().__init__()
        if not isinstance(class_weights, list | tuple) or not class_weights:
            raise ArgumentError(
                f"ClassWeighted: class_weights is a list of numbers, one a class; got {class_weights!r}"
            )
        checked = [non_negative("class_weights", weight) for weight in class_weights]
        self.register_buffer("class_weights", torch.tensor(checked))

    def reduce(self, terms: Terms) -> Tensor:
        labels = terms.labels
        if labels is None or labels.ndim != 1:
            raise InputError(
                "class_weighted needs to know the class of each value: give the loss labels, one class each"
            )
        size = len(self.class_weights)
        check_range(labels, size, f"there are {size} class weights; got labels from {{low}} to {{high}}")
        sums = terms.sum_by_anchor()
        weighted = (sums * self.class_weights.to(sums)[labels]).sum()
        return _ratio(weighted, terms.count() if terms.normalizer is None else terms.normalizer)

    def extra_repr(self) -> str:
        return f"class_weights={self.class_weights.tolist()}"


class PerAnchor(Reducer):
    r"""The mean over anchors of the mean within each: an anchor counts the same however many values it has.

    .. math:: \frac{1}{|A|} \sum_{a \in A} \frac{1}{K_a} \sum_{k \in a} v_k

    Anchors without a value do not count, and neither does a normaliser. (pytorch-metric-learning's counts them as 0.)
    """

    def reduce(self, terms: Terms) -> Tensor:
        sums, counts = terms.sum_by_anchor(), terms.count_by_anchor()
        return _ratio((sums / counts.clamp_min(1)).sum(), (counts > 0).sum())


class Sum(Reducer):
    r"""The sum of all values.

    .. math:: \sum_{k=1}^{K} v_k
    """

    def reduce(self, terms: Terms) -> Tensor:
        return terms.sum()


class AvgNonZero(Reducer):
    r"""The mean of the values greater than zero: of the terms that are not satisfied yet.

    .. math:: \frac{\sum_k [v_k]_+}{\sum_k [v_k > 0]}

    It is 0 where no value is greater than zero.
    """

    def reduce(self, terms: Terms) -> Tensor:
        return _ratio(terms.sum_positive(), terms.count_positive())


class TopK(Reducer):
    r"""The mean of the k greatest values: of the hardest terms, whichever they are.

    .. math:: \frac{1}{\min(k, K)} \sum_{i=1}^{\min(k, K)} v_{(i)}, \qquad v_{(1)} \ge v_{(2)} \ge \ldots \ge v_{(K)}

    It divides by how many values it took, whatever normaliser a loss gives: that is one of all of them. Of values that
    tie for the last place some get the gradient, as :func:`torch.topk` has it.

    Parameters
    ----------
    k : int
        [1..inf] How many values count; all where there are fewer.

    Raises
    ------
    ArgumentError
        ``k`` is less than 1.
    """

    def __init__(self, k: int) -> None:
        super().__init__()
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ArgumentError(f"TopK: k must be a whole number of at least 1; got {k!r}")
        self.k = k

    def reduce(self, terms: Terms) -> Tensor:
        greatest: Tensor | None = None
        for values, _ in terms.blocks():  # no more than k of them are kept at a time
            values = values if greatest is None else torch.cat((greatest, values))
            greatest = values.topk(min(self.k, len(values)), sorted=False).values
        return terms.sum() if greatest is None else _ratio(greatest.sum(), len(greatest))

    def extra_repr(self) -> str:
        return f"k={self.k}"


class PerGroup(Reducer):
    r"""The mean over groups of the mean within each: a group counts the same however many values it has.

    .. math:: \frac{1}{|G|} \sum_{g \in G} \frac{1}{K_g} \sum_{k \in g} v_k

    A value belongs to the group of its anchor: the group that a loss was given for it, such as its image, and where it
    was given none the class of the anchor. Groups without a value do not count, and neither does a normaliser.

    Raises
    ------
    InputError
        When called: the terms have neither groups nor labels.
    """

    def reduce(self, terms: Terms) -> Tensor:
        groups = terms.labels if terms.groups is None else terms.groups
        if groups is None:
            raise InputError(
                "per_group needs to know which values belong together: give the loss groups, such as the image of each "
                "box (box_groups=…), or labels"
            )
        sums, counts = terms.sum_by_anchor(), terms.count_by_anchor().to(groups.device)
        places = _places(groups)
        total = sums.new_zeros(len(groups)).index_add(0, places, sums)
        count = counts.new_zeros(len(groups)).index_add(0, places, counts)
        return _ratio((total / count.clamp_min(1)).sum(), (count > 0).sum())


def _places(groups: Tensor) -> Tensor:
    """For each element the number of its group, 0 … n − 1 at most; by sorting, as unique() would wait for a GPU."""
    ordered, order = groups.sort()
    first = torch.ones_like(ordered, dtype=torch.int64)
    first[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(order).scatter_(0, order, first.cumsum(0) - 1)


class NoReduction(Reducer):
    """All values, unreduced: (k,). Every value is made, however the loss would compute their sum."""

    def reduce(self, terms: Terms) -> Tensor:
        return terms.values


def _ratio(total: Tensor, count: Tensor | float) -> Tensor:
    """``total / count``, and ``total`` (which is 0) when the count is 0: no division, no synchronisation."""
    if isinstance(count, Tensor) and _may_be_read(count):
        count = count.item()
    if isinstance(count, Tensor):
        quotient = total.double() / torch.where(count == 0, 1, count)
    elif count <= 1 << 24:
        return total / count if count else total
    else:
        quotient = total.double() / count
    # An integer count above 2²⁴ has no float32 of its own; a float64 quotient loses nothing.
    return quotient.to(total.dtype)


def _may_be_read(count: Tensor) -> bool:
    """Whether reading a number takes less than choosing by it: on a GPU it would stall the stream."""
    return count.device.type == "cpu" and not (count.requires_grad or torch.compiler.is_compiling())
