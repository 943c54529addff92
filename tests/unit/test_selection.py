"""Selections: tuples are checked, conversions are what everybody expects, rules are their definition."""

from __future__ import annotations

import itertools

import pytest
import torch

from nearfar.errors import InputError
from nearfar.nn import Batch, IndexSelection, TripletRule
from nearfar.nn.batch import check_range
from nearfar.nn.distances import Cosine, Euclidean, SquaredEuclidean
from nearfar.nn.selection import all_triplets, as_selection
from nearfar.testing.waiting import waits

LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def index(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def grid_batch(reference: bool = False) -> Batch:
    """Embeddings on a small grid, so that many distances tie exactly."""
    torch.manual_seed(0)
    x = torch.randint(-1, 2, (len(LABELS), 2)).double()
    if not reference:
        return Batch.of(x, LABELS)
    return Batch.of(x, LABELS, None, torch.randint(-1, 2, (5, 2)).double(), torch.tensor([0, 0, 1, 2, 7]))


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("distance", [SquaredEuclidean(normalize=False), Euclidean(), Cosine()], ids=repr)
@pytest.mark.parametrize(
    "interval", [(-float("inf"), float("inf")), (0.0, 1.0), (-float("inf"), 0.0), (1.0, float("inf"))]
)
def test_a_triplet_rule_selects_by_its_definition(reference, distance, interval):
    batch = grid_batch(reference)
    lower, upper = interval
    matrix = distance(batch.embeddings, batch.reference)
    if batch.is_self:
        matrix = distance(batch.embeddings)
    matrix = (-matrix if distance.is_inverted else matrix).tolist()
    labels, ref_labels = batch.labels.tolist(), batch.reference_labels.tolist()
    expected = [
        (a, p, n)
        for a, p, n in itertools.product(range(len(labels)), range(len(ref_labels)), range(len(ref_labels)))
        if labels[a] == ref_labels[p]
        and labels[a] != ref_labels[n]
        and not (batch.is_self and a == p)
        and lower < matrix[a][n] - matrix[a][p] <= upper
    ]
    found = TripletRule(batch, distance, lower, upper).indices()
    assert list(zip(*(t.tolist() for t in found), strict=True)) == expected


def test_pairs_and_triplets_of_a_batch():
    batch = grid_batch()
    a1, p, a2, n = batch.pairs()
    assert (LABELS[a1] == LABELS[p]).all()
    assert (a1 != p).all()
    assert (LABELS[a2] != LABELS[n]).all()
    assert len(a1) == 3 * 2 + 2 * 1
    assert len(a2) == 36 - (9 + 4 + 1)
    assert len(all_triplets(batch)[0]) == 6 * 3 + 2 * 4


def test_triplets_become_pairs_with_repeats_and_pairs_are_joined_on_their_anchor():
    selection = IndexSelection((index(0, 0), index(1, 2), index(3, 4)))
    assert [t.tolist() for t in selection.pairs()] == [[0, 0], [1, 2], [0, 0], [3, 4]]
    selection = IndexSelection((index(0, 0, 1), index(2, 3, 4), index(0, 1, 1), index(5, 6, 7)))
    assert sorted(zip(*(t.tolist() for t in selection.triplets()), strict=True)) == [
        (0, 2, 5),
        (0, 3, 5),
        (1, 4, 6),
        (1, 4, 7),
    ]


def test_weights_are_counted_without_waiting_for_a_gpu():
    selection = IndexSelection((index(0, 0), index(1, 1), index(2, 3)))
    assert waits(lambda: selection.weights(5)) == []


def test_weights_count_how_often_an_element_was_selected():
    selection = IndexSelection((index(0, 0), index(1, 1), index(2, 3)))
    assert selection.weights(5).tolist() == [1.0, 1.0, 0.5, 0.5, 0.0]
    assert selection.weights(5, reference_is_batch=False).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_selecting_nothing_weighs_everything_zero():
    assert IndexSelection((index(), index(), index())).weights(3).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ((index(0), index(1)), "must be (anchors, positives, negatives)"),
        ((index(0), index(1, 2), index(1)), "differ in length"),
        ((index(0), index(1), index(1), index(1, 2)), "differ in length"),
        ((index(0), index(1), index(9)), "has indices from 9 to 9, but there are 6 references"),
        ((index(-1), index(1), index(2)), "has indices from -1 to -1, but there are 6 embeddings"),
        ((torch.tensor([0.0]), index(1), index(2)), "one-dimensional tensor of integers"),
        ((index(0)[None], index(1), index(2)), "one-dimensional tensor of integers"),
        ((index(0).bool(), index(1), index(2)), "one-dimensional tensor of integers"),
    ],
)
def test_tuples_that_cannot_be_are_refused(indices, message):
    with pytest.raises(InputError) as caught:
        as_selection(indices, 6, 6)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.randn(3), LABELS), "embeddings must be of shape (batch, dim); got (3,)"),
        ((torch.ones(6, 2, dtype=torch.int64), LABELS), "floating dtype; got torch.int64"),
        ((torch.randn(5, 2), LABELS), "labels must be of shape (5,)"),
        ((torch.randn(6, 2), LABELS.float()), "class ids of an integer dtype; got torch.float32"),
        ((torch.randn(6, 2), LABELS.bool()), "class ids of an integer dtype; got torch.bool"),
        ((torch.randn(6, 2), LABELS.tolist()), "labels must be a tensor of class ids"),
        ((torch.randn(6, 2),), "labels are needed where no indices_tuple"),
        ((torch.randn(6, 2), LABELS, None, torch.randn(4, 3), index(0, 1, 2, 3)), "differ in embedding size"),
        ((torch.randn(6, 2), LABELS, None, torch.randn(4, 2)), "ref_emb was given without ref_labels"),
        ((torch.randn(6, 2), LABELS, None, None, index(0, 1, 2, 3)), "ref_labels were given without ref_emb"),
    ],
)
def test_batches_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(InputError) as caught:
        Batch.of(*arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_integer_dtype_are_class_ids(dtype):
    assert Batch.of(torch.randn(6, 2), LABELS.to(dtype)).labels.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_to_single(dtype):
    assert Batch.of(torch.randn(6, 2).to(dtype), LABELS).embeddings.dtype == torch.float32


def test_the_batch_under_another_name_is_still_the_batch():
    x = torch.randn(6, 2)
    assert Batch.of(x, LABELS, None, x, LABELS).is_self
    assert not Batch.of(x, LABELS, None, x.clone(), LABELS).is_self


@pytest.mark.parametrize("interval", [(0.0, 0.5), (-float("inf"), 0.0), (0.5, float("inf"))])
def test_a_rule_made_into_a_tuple_does_not_depend_on_autocast(interval):
    torch.manual_seed(0)
    batch = Batch.of(torch.randn(64, 8), torch.arange(64) % 8)
    rule = TripletRule(batch, Cosine(), *interval)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = rule.indices()
    assert all(torch.equal(a, b) for a, b in zip(inside, rule.indices(), strict=True))


def test_what_is_out_of_range_is_told_without_waiting_for_it_where_the_check_is_compiled():
    def judged(labels):
        check_range(labels, 3, "there are 3 classes; got labels from {low} to {high}")
        return labels + 1

    compiled = torch.compile(judged, backend="eager")
    assert compiled(torch.tensor([0, 2])).tolist() == [1, 3]
    with pytest.raises(RuntimeError, match=r"there are 3 classes; got labels from \? to \? \(\? was not read"):
        compiled(torch.tensor([0, 3]))
