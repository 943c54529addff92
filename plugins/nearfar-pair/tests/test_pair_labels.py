"""Multi-hot labels: positives share at least one label, negatives none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar.errors import InputError
from nearfar.nn import RuledLabels
from nearfar.nn.batch import Batch
from nearfar.nn.selection import IndexSelection
from nearfar.testing.meter import most_elements
from nearfar_pair import few_rows, mask_sides, plugin, row_pass, sides

#: A quadruplet asks of two negatives whether they are of a third class; a memory has labels of earlier batches.
BEYOND_PAIRS = {"quadruplet", "cross_batch_memory"}
LOSSES = [spec.name for spec in plugin.nearfar_losses() if spec.accepts and spec.name not in BEYOND_PAIRS]
MINERS = [spec.name for spec in plugin.nearfar_miners()]
IDS = [5, 5, 1, 5, 2, 5, 7, 2, 5, 1, 5, 9, 5]
REFERENCE = [5, 1, 0, 0, 2, 9, 2, 5, 5, 1, 8]
CLASSES = 10
ARGUMENTS: dict[str, dict[str, Any]] = {
    "pair_margin": {"pos_margin": 0.2, "neg_margin": 1.3},
    "semihard": {"margin": 0.3},
    "easy": {"margin": 0.1},
}
RECIPES = {"matryoshka": "matryoshka(loss=triplet, dims=[2, 3])", "gather": "gather(loss=triplet)"}


@contextmanager
def by_rows(elements: int = 40) -> Iterator[None]:
    """However small the batch, a few rows at a time."""
    with (
        mock.patch.object(row_pass, "SMALL", 0),
        mock.patch.object(sides, "SMALL", 0),
        mock.patch.object(mask_sides, "SMALL", 0),
        mock.patch.object(mask_sides, "ELEMENTS", elements),
        mock.patch.object(few_rows, "CPU_ELEMENTS", elements),
    ):
        yield


def made(name: str) -> Any:
    """A loss by name, in double precision; around another where it has to be."""
    return nearfar.compose(RECIPES[name]).double() if name in RECIPES else nearfar.create_loss(f"pair.{name}").double()


def one_hot(ids: list[int]) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(ids), CLASSES).bool()


def overlapping(n: int, seed: int) -> Tensor:
    """Rows with none, one or several of six labels."""
    return torch.rand(n, 6, generator=torch.Generator().manual_seed(seed)) < 0.25


def pairs_of(y: Tensor, z: Tensor | None = None) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Positive and negative pairs by their definition."""
    rows = [{c for c, on in enumerate(row) if on} for row in y.tolist()]
    others = rows if z is None else [{c for c, on in enumerate(row) if on} for row in z.tolist()]
    every = [(i, j) for i in range(len(rows)) for j in range(len(others)) if z is not None or i != j]
    return [(i, j) for i, j in every if rows[i] & others[j]], [(i, j) for i, j in every if not rows[i] & others[j]]


def as_indices(pairs: tuple[list[tuple[int, int]], list[tuple[int, int]]]) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(column, dtype=torch.int64) for side in pairs for column in zip(*side, strict=True))


def value_and_gradient(loss: Any, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    loss, leaf = copy.deepcopy(loss), x.clone().requires_grad_()
    value = loss(leaf, *rest)
    (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True, materialize_grads=True)
    return value.detach(), gradient


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_one_hot_rows_are_class_ids(name: str, with_reference: bool, brute: SimpleNamespace) -> None:
    x, r = brute.clustered(IDS), brute.clustered(REFERENCE, seed=1)
    by_id = (torch.tensor(IDS), None, *((r, torch.tensor(REFERENCE)) if with_reference else ()))
    by_hot = (one_hot(IDS), None, *((r, one_hot(REFERENCE)) if with_reference else ()))
    loss = made(name)
    expected = value_and_gradient(loss, x, *by_id)
    found = value_and_gradient(loss, x, *by_hot)
    with by_rows():
        found += value_and_gradient(loss, x, *by_hot)
    for one, two in zip(found, expected * 2, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_overlapping_labels_are_the_pairs_they_say(name: str, with_reference: bool, brute: SimpleNamespace) -> None:
    x, r = brute.clustered(IDS), brute.clustered(REFERENCE, seed=1)
    y, z = overlapping(len(x), 1), overlapping(len(r), 2) if with_reference else None
    loss = made(name)
    reference = () if z is None else (r, z)
    expected = value_and_gradient(loss, x, None, as_indices(pairs_of(y, z)), *reference[:1])
    found = value_and_gradient(loss, x, y, None, *reference)
    with by_rows():
        found += value_and_gradient(loss, x, y, None, *reference)
    for one, two in zip(found, expected * 2, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("name", MINERS)
def test_miners_choose_by_one_hot_rows_as_by_class_ids(name: str, with_reference: bool, brute: SimpleNamespace) -> None:
    x, r = brute.clustered(IDS), brute.clustered(REFERENCE, seed=1)
    miner = nearfar.create_miner(f"pair.{name}", **ARGUMENTS.get(name, {}))
    by_id = copy.deepcopy(miner)(x, torch.tensor(IDS), *((r, torch.tensor(REFERENCE)) if with_reference else ()))
    by_hot = miner(x, one_hot(IDS), *((r, one_hot(REFERENCE)) if with_reference else ()))
    assert len(by_id[0])
    assert all(torch.equal(one, two) for one, two in zip(by_hot, by_id, strict=True))


@pytest.mark.parametrize("name", MINERS)
def test_what_miners_choose_by_overlapping_labels_belongs_together(name: str, brute: SimpleNamespace) -> None:
    x, y = brute.clustered(IDS), overlapping(len(IDS), 1)
    positive, negative = (set(side) for side in pairs_of(y))
    chosen = nearfar.create_miner(f"pair.{name}", **ARGUMENTS.get(name, {}))(x, y)
    a1, p, a2, n = IndexSelection(chosen).pairs()
    assert len(a1)
    assert set(zip(a1.tolist(), p.tolist(), strict=True)) <= positive
    assert set(zip(a2.tolist(), n.tolist(), strict=True)) <= negative


def test_all_triplets_by_overlapping_labels() -> None:
    y = overlapping(9, 3)
    positive, negative = pairs_of(y)
    expected = [(a, p, n) for a, p in positive for b, n in negative if a == b]
    found = nearfar.create_miner("pair.all")(torch.randn(9, 3), y)
    assert list(zip(*(index.tolist() for index in found), strict=True)) == expected


@pytest.mark.parametrize("miner", ["semihard", "hard", "all", "batch_hard", "multi_similarity"])
@pytest.mark.parametrize("loss", ["triplet", "multi_similarity", "contrastive"])
def test_a_fused_composition_is_what_its_indices_say(loss: str, miner: str, brute: SimpleNamespace) -> None:
    x, y = brute.clustered(IDS), overlapping(len(IDS), 1)
    part = nearfar.create_loss(f"pair.{loss}").double()
    chooser = nearfar.create_miner(f"pair.{miner}", **ARGUMENTS.get(miner, {}))
    chosen = chooser.select(x, y, loss=part)
    expected = value_and_gradient(part, x, y, IndexSelection(chosen.indices()))
    with by_rows():
        found = value_and_gradient(part, x, y, chooser.select(x, y, loss=part))
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_a_sample_without_a_label_is_a_negative_of_all_others_and_nothing_of_itself() -> None:
    y = torch.tensor([[True, False], [False, False], [True, True]])
    batch = Batch.of(torch.randn(3, 2), y)
    assert batch.positive_mask().tolist() == [[False, False, True], [False] * 3, [True, False, False]]
    assert batch.negative_mask().tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    assert torch.equal(batch.negative_mask(slice(1, 3)), batch.negative_mask()[1:])


@pytest.mark.parametrize(
    "recipe",
    [
        "quadruplet",
        "centroid_triplet",
        "margin_beta(num_classes=6)",
        "pair.instance(num_classes=6, embedding_size=5)",
        "margin.arcface(num_classes=6, embedding_size=5)",
        "triplet(reducer=per_group)",
    ],
)
def test_what_goes_by_classes_refuses_multi_hot_labels(recipe: str) -> None:
    with pytest.raises(InputError, match="labels"):
        nearfar.compose(recipe)(torch.randn(8, 5), overlapping(8, 0))


@pytest.mark.parametrize(
    ("labels", "ref_labels", "said"),
    [
        (torch.ones(4, 3, dtype=torch.int64), None, "boolean"),
        (torch.ones(3, 3, dtype=torch.bool), None, "a row for each of 4"),
        (torch.ones(4, 3, dtype=torch.bool), torch.ones(5, 2, dtype=torch.bool), "of one kind"),
        (torch.ones(4, 3, dtype=torch.bool), torch.ones(5, dtype=torch.int64), "of one kind"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor, ref_labels: Tensor | None, said: str) -> None:
    reference = () if ref_labels is None else (None, torch.randn(5, 2), ref_labels)
    with pytest.raises(InputError, match=said):
        nearfar.create_loss("pair.contrastive")(torch.randn(4, 2), labels, *reference)


@pytest.mark.parametrize("name", ["sup_con", "contrastive", "triplet"])
def test_an_empty_reference_set_is_compared_with_like_any(name: str) -> None:
    x = torch.randn(4, 3, requires_grad=True)
    with by_rows():
        value = nearfar.create_loss(name)(x, overlapping(4, 0), None, x.detach()[:0], overlapping(0, 0))
    value.backward()
    assert value.item() == 0
    assert nearfar.create_loss(name)(x, overlapping(4, 0), None, x.detach()[:0], overlapping(0, 0)).item() == 0


def test_no_matrix_of_all_pairs_is_kept() -> None:
    """Of multi-hot labels too only a few rows are compared at a time."""
    n = 512
    x, y = torch.randn(n, 8, requires_grad=True), torch.nn.functional.one_hot(torch.arange(n) // 4).bool()
    loss = nearfar.create_loss("pair.multi_similarity")
    with mock.patch.object(mask_sides, "ELEMENTS", few_rows.CPU_ELEMENTS):
        assert most_elements(lambda: loss(x, y).backward()) <= few_rows.CPU_ELEMENTS * 1.01


# ---- rules by name

#: A class and a group, such as the camera, of each sample.
GROUPED = torch.tensor([[c, i % 3] for i, c in enumerate([0, 0, 1, 0, 2, 0, 1, 2, 0, 1, 0, 2, 0])])


def ruled(rule: str, y: Tensor, z: Tensor | None = None) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Positive and negative pairs by the rule's own words."""
    rows, others = y.tolist(), (y if z is None else z).tolist()
    every = [(i, j) for i in range(len(rows)) for j in range(len(others)) if z is not None or i != j]
    if rule == "same_group":
        every = [(i, j) for i, j in every if rows[i][1] == others[j][1]]
    positive = [(i, j) for i, j in every if rows[i][0] == others[j][0]]
    if rule == "other_group":
        positive = [(i, j) for i, j in positive if rows[i][1] != others[j][1]]
    return positive, [(i, j) for i, j in every if rows[i][0] != others[j][0]]


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("rule", ["other_group", "same_group"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_rule_is_the_pairs_it_says(name: str, rule: str, with_reference: bool, brute: SimpleNamespace) -> None:
    x, r = brute.clustered(GROUPED[:, 0].tolist()), brute.clustered(REFERENCE, seed=1)
    z = torch.stack([torch.tensor(REFERENCE) % 3, torch.arange(len(REFERENCE)) % 2], 1) if with_reference else None
    loss = made(name)
    reference = () if z is None else (r, RuledLabels(rule, z))
    pairs = ruled(rule, GROUPED, z)
    assert all(pairs)
    expected = value_and_gradient(loss, x, None, as_indices(pairs), *reference[:1])
    found = value_and_gradient(loss, x, RuledLabels(rule, GROUPED), None, *reference)
    with by_rows():
        found += value_and_gradient(loss, x, RuledLabels(rule, GROUPED), None, *reference)
    for one, two in zip(found, expected * 2, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", ["other_group", "same_group"])
@pytest.mark.parametrize("name", MINERS)
def test_what_miners_choose_by_a_rule_belongs_together(name: str, rule: str, brute: SimpleNamespace) -> None:
    x = brute.clustered(GROUPED[:, 0].tolist())
    positive, negative = (set(side) for side in ruled(rule, GROUPED))
    chosen = nearfar.create_miner(f"pair.{name}", **ARGUMENTS.get(name, {}))(x, RuledLabels(rule, GROUPED))
    a1, p, a2, n = IndexSelection(chosen).pairs()
    assert len(a1)
    assert set(zip(a1.tolist(), p.tolist(), strict=True)) <= positive
    assert set(zip(a2.tolist(), n.tolist(), strict=True)) <= negative


def test_a_composition_takes_a_rule_as_labels(brute: SimpleNamespace) -> None:
    x = brute.clustered(GROUPED[:, 0].tolist())
    labels = RuledLabels("other_group", GROUPED)
    miner = nearfar.create_miner("pair.batch_hard", distance=nearfar.create_distance("euclidean"))
    expected = nearfar.create_loss("pair.triplet")(x, None, miner(x, labels))
    found = nearfar.compose("triplet(miner=batch_hard)")(x, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("rule", "columns", "said"),
    [
        ("other_gruop", torch.zeros(4, 2, dtype=torch.int64), "other_group, same_group, jaccard, levels or gaussian"),
        ("other_group", torch.zeros(4, 3, dtype=torch.int64), "a class and a group"),
        ("other_group", torch.zeros(4, 2), "integers"),
    ],
)
def test_a_rule_without_sense_is_refused(rule: str, columns: Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        RuledLabels(rule, columns)


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
@pytest.mark.parametrize("recipe", ["pml.circle_loss", "triplet(miner=pml.batch_hard_miner)"])
def test_foreign_parts_are_given_no_rule(recipe: str) -> None:
    pytest.importorskip("pytorch_metric_learning")
    with pytest.raises(InputError, match="rule"):
        nearfar.compose(recipe)(
            torch.randn(4, 3), RuledLabels("other_group", torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]))
        )


def test_labels_of_two_rules_are_refused() -> None:
    labels = [RuledLabels(rule, torch.zeros(4, 2, dtype=torch.int64)) for rule in ("other_group", "same_group")]
    x = torch.randn(4, 3)
    with pytest.raises(InputError, match="one rule"):
        nearfar.create_loss("pair.triplet")(x, labels[0], None, torch.randn(4, 3), labels[1])
    with pytest.raises(InputError, match="class id"):
        nearfar.create_loss("pair.centroid_triplet")(x, labels[0])
