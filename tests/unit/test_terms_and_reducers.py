"""Terms answer what reducers ask; reducers are their definitions."""

from __future__ import annotations

import pytest
import torch

from nearfar.errors import ArgumentError, InputError
from nearfar.nn.reducers import (
    AvgNonZero,
    ClassWeighted,
    Divisor,
    Mean,
    NoReduction,
    PerAnchor,
    PerGroup,
    Sum,
    Threshold,
    TopK,
)
from nearfar.nn.terms import MaterialTerms, element_terms

REDUCERS = [
    *(Mean(), Sum(), AvgNonZero(), TopK(2), PerGroup(), Threshold(low=0.5), Threshold(high=1)),
    *(ClassWeighted([2.0, 3.0, 4.0, 5.0]), PerAnchor(), Divisor()),
]


def triplets(values, **fields) -> MaterialTerms:
    values = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    anchors = torch.tensor([0, 0, 2, 3])[: len(values)]
    return MaterialTerms("triplet", values, (anchors, anchors + 1, anchors + 2), num_anchors=4, **fields)


def test_everything_follows_from_values_and_indices():
    terms = triplets([1.0, 0.0, 2.0, 3.0])
    assert terms.sum().item() == 6.0
    assert terms.count().item() == 4
    assert terms.count_positive().item() == 3
    assert terms.sum_by_anchor().tolist() == [1.0, 0.0, 2.0, 3.0]
    assert terms.count_by_anchor().tolist() == [2, 0, 1, 1]
    ((values, indices),) = terms.blocks()
    assert values.tolist() == [1.0, 0.0, 2.0, 3.0]
    assert len(indices) == 3


@pytest.mark.parametrize(
    ("reducer", "expected"), [(Mean(), 1.5), (Sum(), 6.0), (AvgNonZero(), 2.0)], ids=lambda x: type(x).__name__
)
def test_reducers_are_their_definitions(reducer, expected):
    assert reducer.reduce(triplets([1.0, 0.0, 2.0, 3.0])).item() == expected


def test_values_below_zero_are_satisfied_ones():
    terms = triplets([-1.0, 0.0, 2.0, 4.0])
    assert AvgNonZero().reduce(terms).item() == 3.0
    assert Mean().reduce(terms).item() == 1.25


def test_the_greatest_k_are_averaged_and_all_where_there_are_fewer():
    terms = triplets([1.0, 5.0, 2.0, 3.0])
    assert TopK(2).reduce(terms).item() == 4.0
    assert TopK(9).reduce(terms).item() == 2.75
    TopK(2).reduce(terms).backward()
    assert terms.values.grad.tolist() == [0.0, 0.5, 0.0, 0.5]


def test_the_greatest_are_found_across_blocks_of_which_no_more_than_k_are_kept():
    class Blocks(MaterialTerms):
        def blocks(self):
            yield from ((each, self.indices) for each in self.values.split(2))

    values = torch.tensor([4.0, 1.0, 3.0, 0.0, 5.0])
    terms = Blocks("element", values, (torch.arange(5),), num_anchors=5)
    assert TopK(3).reduce(terms).item() == 4.0


def test_what_is_not_a_number_shows_among_the_greatest():
    assert TopK(1).reduce(triplets([1.0, float("nan"), 2.0])).isnan()


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_no_fewer_than_one_can_be_the_greatest(k):
    with pytest.raises(ArgumentError, match="at least 1"):
        TopK(k)


def test_groups_count_the_same_however_many_values_they_have():
    # The anchors are 0, 0, 2, 3: the group 7 has three values, the group 9 has one; of 8 there is none.
    terms = triplets([1.0, 2.0, 3.0, 10.0], groups=torch.tensor([7, 8, 7, 9]))
    assert PerGroup().reduce(terms).item() == (2.0 + 10.0) / 2
    PerGroup().reduce(terms).backward()
    assert terms.values.grad.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_classes_are_the_groups_where_there_are_no_others():
    labels = torch.tensor([1, 1, 0, 1])
    assert PerGroup().reduce(triplets([1.0, 2.0, 3.0, 6.0], labels=labels)).item() == 3.0
    assert PerGroup().reduce(triplets([1.0, 2.0, 3.0, 6.0], labels=labels, groups=torch.arange(4))).item() == 3.5


def test_without_groups_and_labels_there_is_nothing_to_tell_groups_by():
    with pytest.raises(InputError, match="box_groups"):
        PerGroup().reduce(triplets([1.0, 2.0]))


def test_values_between_bounds_are_averaged():
    terms = triplets([1.0, 0.0, 2.0, 4.0])
    assert Threshold(low=1.0).reduce(terms).item() == 3.0  # a value at the bound is not above it
    assert Threshold(high=2.0).reduce(terms).item() == 0.5
    assert Threshold(low=0.5, high=3.0).reduce(terms).item() == 1.5
    assert Threshold(low=0).reduce(terms).item() == AvgNonZero().reduce(terms).item()


def test_what_is_not_a_number_is_within_every_bound():
    terms = triplets([1.0, float("nan"), 2.0])
    for bounds in ({"low": 5.0}, {"high": 0.5}, {"low": 0.5, "high": 1.5}):
        assert Threshold(**bounds).reduce(terms).isnan()


@pytest.mark.parametrize("bounds", [{}, {"low": 2.0, "high": 1.0}, {"low": 1.0, "high": 1.0}, {"low": float("nan")}])
def test_bounds_that_leave_nothing_out_or_everything_are_refused(bounds):
    with pytest.raises(ArgumentError):
        Threshold(**bounds)


def test_values_weigh_as_the_class_of_their_anchor():
    terms = triplets([1.0, 3.0, 2.0, 4.0], labels=torch.tensor([2, 0, 1, 1]))
    assert ClassWeighted([1.0, 10.0, 0.5]).reduce(terms).item() == (0.5 * 4 + 10 * 2 + 10 * 4) / 4
    with pytest.raises(InputError, match="2 class weights; got labels from 0 to 2"):
        ClassWeighted([1.0, 10.0]).reduce(terms)
    with pytest.raises(InputError, match="give the loss labels"):
        ClassWeighted([1.0, 10.0]).reduce(triplets([1.0]))


@pytest.mark.parametrize("weights", [[], "12", [1.0, -1.0], [float("inf")], 3])
def test_class_weights_are_numbers_of_at_least_zero(weights):
    with pytest.raises(ArgumentError, match="class_weights"):
        ClassWeighted(weights)


def test_class_weights_are_kept_in_a_checkpoint():
    one, other = ClassWeighted([1.0, 2.0]), ClassWeighted([5.0, 5.0])
    other.load_state_dict(one.state_dict())
    assert other.class_weights.tolist() == [1.0, 2.0]


def test_anchors_count_the_same_however_many_values_they_have():
    assert PerAnchor().reduce(triplets([1.0, 3.0, 5.0, 6.0])).item() == pytest.approx((2 + 5 + 6) / 3, rel=1e-12)


@pytest.mark.parametrize("divisor", [8, 8.0, torch.tensor(8.0, dtype=torch.float64)])
def test_the_divisor_is_what_the_loss_gives(divisor):
    assert Divisor().reduce(triplets([1.0, 3.0], normalizer=divisor)).item() == 0.5
    assert Divisor().reduce(triplets([1.0, 3.0])).item() == 2.0
    nothing = Divisor().reduce(triplets([1.0, 3.0], normalizer=0 * divisor))
    assert nothing.item() == 0.0
    nothing.backward()


def test_none_gives_every_value():
    assert NoReduction().reduce(triplets([1.0, 0.0])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("reducer", REDUCERS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("values", [[], [0.0, 0.0]])
def test_nothing_to_reduce_is_zero_with_a_usable_gradient(reducer, values):
    terms = triplets(values, labels=torch.tensor([0, 1, 1, 0]))
    reduced = reducer.reduce(terms)
    assert reduced.item() == 0
    reduced.backward()
    assert terms.values.grad.isfinite().all()


@pytest.mark.parametrize("normalizer", [4.0, torch.tensor(4.0)])
def test_the_mean_divides_by_the_normalizer_a_loss_gives(normalizer):
    assert Mean().reduce(triplets([1.0, 2.0], normalizer=normalizer)).item() == 0.75


@pytest.mark.parametrize("normalizer", [0.0, torch.tensor(0.0)])
def test_a_normalizer_of_zero_does_not_divide(normalizer):
    assert Mean().reduce(triplets([0.0], normalizer=normalizer)).item() == 0


def test_a_count_beyond_float32_loses_nothing():
    class Huge(MaterialTerms):
        def count(self):
            return torch.tensor(2**24 + 1)

    terms = Huge("element", torch.tensor([float(2**24 + 2)]), (torch.tensor([0]),), num_anchors=1)
    assert Mean().reduce(terms).item() == pytest.approx((2**24 + 2) / (2**24 + 1), rel=1e-7)


def test_weights_are_multiplied_into_the_values():
    terms = element_terms(torch.tensor([1.0, 2.0, 3.0]), weights=torch.tensor([1.0, 0.0, 0.5]))
    assert terms.values.tolist() == [1.0, 0.0, 1.5]
    assert Mean().reduce(terms).item() == pytest.approx(2.5 / 3)


def test_elements_come_from_themselves():
    terms = element_terms(torch.tensor([3.0, 0.0]))
    assert [index.tolist() for index in terms.indices] == [[0, 1]]
    assert terms.sum_by_anchor().tolist() == [3.0, 0.0]
    assert terms.count_by_anchor().tolist() == [1, 1]


@pytest.mark.parametrize(
    ("kind", "values", "indices"),
    [
        ("quadruplet", torch.zeros(1), (torch.zeros(1),)),
        ("triplet", torch.zeros(2), (torch.zeros(2),)),
        ("element", torch.zeros(2), (torch.zeros(3),)),
        ("element", torch.zeros(2, 2), (torch.zeros(2, 2),)),
    ],
)
def test_terms_that_do_not_fit_together_are_refused(kind, values, indices):
    with pytest.raises(InputError):
        MaterialTerms(kind, values, indices, num_anchors=2)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("Mean", "MeanReducer"), ("Sum", "SumReducer"), ("AvgNonZero", "AvgNonZeroReducer")],
)
@pytest.mark.parametrize("kind", ["element", "pos_pair", "neg_pair", "triplet", "already_reduced", "nothing"])
def test_reducers_answer_the_call_of_pytorch_metric_learning_alike(ours, theirs, kind):
    from pytorch_metric_learning import reducers as pml

    ours = {"Mean": Mean, "Sum": Sum, "AvgNonZero": AvgNonZero}[ours]()
    theirs = getattr(pml, theirs)()
    index = torch.arange(4)
    indices = {"element": index, "pos_pair": (index, index), "neg_pair": (index, index), "triplet": (index,) * 3}
    entry = {
        "already_reduced": {"losses": torch.tensor(3.0), "indices": None, "reduction_type": "already_reduced"},
        "nothing": {"losses": 0, "indices": None, "reduction_type": "already_reduced"},
    }.get(kind) or {"losses": torch.tensor([0.0, 1.0, 2.0, 3.0]), "indices": indices[kind], "reduction_type": kind}
    embeddings, labels = torch.randn(4, 2), torch.arange(4)
    arguments = ({"loss": entry}, embeddings, labels)
    torch.testing.assert_close(ours(*arguments), theirs(*arguments))


@pytest.mark.parametrize("size", [3, None])
def test_the_mean_asks_for_a_count_only_where_the_host_does_not_know_it(size):
    asked = []

    class Counted(MaterialTerms):
        @property
        def size(self):
            return size

        def count(self):
            asked.append(True)
            return super().count()

    terms = Counted("element", torch.tensor([1.0, 2.0, 6.0]), (torch.arange(3),), num_anchors=3)
    assert Mean().reduce(terms).item() == 3
    assert bool(asked) == (size is None)
    assert element_terms(torch.zeros(4)).size == 4


def test_a_size_beyond_float32_loses_nothing():
    class Vast(MaterialTerms):
        @property
        def size(self):
            return 2**24 + 1

        def sum(self):
            return torch.tensor(2.0**24 + 2)

    terms = Vast("element", torch.ones(1), (torch.zeros(1, dtype=torch.int64),), num_anchors=1)
    assert Mean().reduce(terms).item() == 1  # in float32 the count is 2²⁴, and this 1 + 1.2e-7
