"""Labels that grade how relevant one sample is to another, in place of positives and negatives."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar.errors import ArgumentError, InputError
from nearfar.nn import Grades, Miner, RuledLabels
from nearfar.nn.batch import Batch
from nearfar.testing.meter import most_elements
from nearfar_pair import few_rows, mask_sides, plugin, row_pass, sides, soft_ranks
from nearfar_pair.loss_definitions.floats import cosine, euclidean, hinge, log_sum, mean, non_zero_mean, sigmoid

LOSSES = [
    spec for spec in plugin.nearfar_losses() if spec.family != "wrapper" and spec.inputs == ("embeddings", "labels")
]
GRADED = [spec.name for spec in LOSSES if spec.graded]
N, M, DIM = 9, 7, 4

Rows = list[list[float]]
Pairs = list[list[tuple[float, float]]]


@contextmanager
def by_rows() -> Iterator[None]:
    """However small the batch, a few rows at a time."""
    with (
        mock.patch.object(row_pass, "SMALL", 0),
        mock.patch.object(sides, "SMALL", 0),
        mock.patch.object(mask_sides, "SMALL", 0),
        mock.patch.object(mask_sides, "ELEMENTS", 20),
        mock.patch.object(few_rows, "CPU_ELEMENTS", 20),
    ):
        yield


def points(n: int, seed: int) -> Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grades(n: int, m: int, seed: int) -> Tensor:
    """Every grade, 0 and 1 and the same more than once among them; not symmetric."""
    drawn = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (1.6 * drawn - 0.3).clamp(0, 1).mul(8).round().div(8)


def value_and_gradients(loss: Any, x: Tensor, labels: Any, *reference: Any) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_(), *(r.clone().requires_grad_() for r in reference[:1])]
    value = copy.deepcopy(loss)(leaves[0], labels, None, *leaves[1:], *reference[1:])
    return value.detach(), *torch.autograd.grad(value, leaves)


def both_ways(loss: Any, *given: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """From the whole matrix, and by rows."""
    with by_rows():
        rows = value_and_gradients(loss, *given)
    return value_and_gradients(loss, *given), rows


# ---- what each loss makes of grades, in plain floats: of each anchor (measure, grade) of what it is compared with


def compared(x: Tensor, r: Tensor | None, matrix: Rows, measure: Callable[[Any, Any], float]) -> Pairs:
    rows, others = x.tolist(), (x if r is None else r).tolist()
    return [
        [(measure(row, other), matrix[i][j]) for j, other in enumerate(others) if r is not None or i != j]
        for i, row in enumerate(rows)
    ]


def contrastive(x: Tensor, r: Tensor | None, matrix: Rows) -> float:
    every = [pair for row in compared(x, r, matrix, euclidean) for pair in row]
    near = non_zero_mean([g * d**2 for d, g in every])
    return near + non_zero_mean([(1 - g) * hinge(1 - d) ** 2 for d, g in every])


def sup_con(x: Tensor, r: Tensor | None, matrix: Rows) -> float:
    costs = []
    for row in compared(x, r, matrix, cosine):
        total, every = math.fsum(g for _, g in row), log_sum([s / 0.1 for s, _ in row])
        costs += [math.fsum(g / total * (every - s / 0.1) for s, g in row)] if total else []
    return mean(costs)


def smooth_ap(x: Tensor, r: Tensor | None, matrix: Rows) -> float:
    costs = []
    for row in compared(x, r, matrix, cosine):
        shares = []
        for k, (s, g) in enumerate(row):
            ahead = [(sigmoid((t - s) / 0.01), min(g, h)) for j, (t, h) in enumerate(row) if j != k]
            shares.append((g + math.fsum(a * h for a, h in ahead)) / (1 + math.fsum(a for a, _ in ahead)) if g else 0)
        total = math.fsum(g for _, g in row)
        costs += [1 - math.fsum(shares) / total] if total else []
    return mean(costs)


def graded_log_ratio(x: Tensor, r: Tensor | None, matrix: Rows) -> float:
    costs = []
    for row in compared(x, r, matrix, math.dist):
        logs = [math.log(d + 1e-6) - math.log(1 - g + 1e-6) for d, g in row]
        costs.append(mean([(a - b) ** 2 for a, b in combinations(logs, 2)]))
    return mean(costs)


REFERENCES = {
    "contrastive": contrastive,
    "sup_con": sup_con,
    "smooth_ap": smooth_ap,
    "graded_log_ratio": graded_log_ratio,
}


def test_every_graded_loss_has_a_reference_and_every_spec_is_right() -> None:
    assert set(REFERENCES) == set(GRADED)
    for spec in LOSSES:
        module, name = spec.target.split(":")
        assert getattr(importlib.import_module(module), name).graded == spec.graded, spec.name


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("name", GRADED)
def test_values_are_those_of_the_formula(name: str, with_reference: bool) -> None:
    x, r = points(N, 0), points(M, 1) if with_reference else None
    matrix = grades(N, M if with_reference else N, 2)
    matrix[3] = 0  # an anchor to which nothing is relevant
    expected = REFERENCES[name](x, r, matrix.tolist())
    for found in both_ways(nearfar.create_loss(name), x, Grades(matrix), *([] if r is None else [r])):
        assert found[0].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("name", GRADED)
def test_rows_give_the_gradients_of_the_matrix(name: str, with_reference: bool) -> None:
    reference = [points(M, 1)] if with_reference else []
    matrix = grades(N, M if with_reference else N, 2)
    whole, rows = both_ways(nearfar.create_loss(name), points(N, 0), Grades(matrix), *reference)
    for one, two in zip(rows, whole, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("name", GRADED)
def test_grades_of_0_and_1_are_class_ids(name: str, with_reference: bool) -> None:
    x, y = points(N, 0), torch.tensor([0, 1, 2, 0, 1, 2, 0, 5, 1])
    r, z = (points(M, 1), torch.tensor([0, 1, 2, 3, 1, 0, 2])) if with_reference else (None, None)
    matrix = (y[:, None] == (y if z is None else z)).double()
    loss = nearfar.create_loss(name)
    expected = value_and_gradients(loss, x, y, *([] if r is None else [r, z]))
    for found in both_ways(loss, x, Grades(matrix), *([] if r is None else [r])):
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", GRADED)
def test_gradients_are_those_of_differences(name: str) -> None:
    loss, labels = nearfar.create_loss(name), Grades(grades(5, 5, 4))
    if name == "smooth_ap":  # whose slopes at its usual temperature are too steep for differences
        loss = nearfar.create_loss("smooth_ap", temperature=0.2)
    x = points(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (x,))
    assert torch.autograd.gradgradcheck(lambda x: loss(x, labels), (x,))
    with by_rows():
        assert torch.autograd.gradcheck(lambda x: loss(x, labels), (x,))


@pytest.mark.parametrize("with_reference", [False, True])
def test_log_ratios_of_class_ids_are_those_of_grades_0_and_1(with_reference: bool) -> None:
    loss = nearfar.create_loss("graded_log_ratio", reducer=nearfar.create_reducer("sum"))
    x, y, z = points(N, 0).requires_grad_(), torch.arange(N) % 3, torch.arange(M if with_reference else N) % 3
    r = points(M, 1).requires_grad_() if with_reference else None
    ids = (y, None, r, z) if with_reference else (y,)
    graded = (Grades((y[:, None] == z).double()), None, r) if with_reference else (Grades((y[:, None] == y).double()),)

    def twice(labels: tuple[Any, ...]) -> list[Tensor]:
        value = loss(x, *labels)
        inputs = [each for each in (x, r) if each is not None]
        first = torch.autograd.grad(value, inputs, create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in first), inputs)
        return [value, *first, *second]

    for found, wanted in zip(twice(ids), twice(graded), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", GRADED)
def test_the_order_of_a_batch_does_not_matter(name: str) -> None:
    x, matrix, order = points(N, 0), grades(N, N, 2), torch.randperm(N, generator=torch.Generator().manual_seed(1))
    loss = nearfar.create_loss(name)
    value, gradient = value_and_gradients(loss, x, Grades(matrix))
    moved, by_moved = value_and_gradients(loss, x[order], Grades(matrix[order][:, order]))
    torch.testing.assert_close(moved, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(by_moved, gradient[order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["contrastive", "sup_con", "smooth_ap"])
def test_the_more_relevant_a_pair_is_the_more_it_is_drawn_together(name: str) -> None:
    """Of a descent step with a higher grade for one pair: that pair ends nearer."""
    x = torch.nn.functional.normalize(points(N, 0))
    loss = nearfar.create_loss(name, reducer=nearfar.create_reducer("sum"))
    if name == "smooth_ap":
        loss = nearfar.create_loss(name, temperature=0.2, reducer=nearfar.create_reducer("sum"))
    matrix, higher = (torch.full((N, N), 0.3, dtype=torch.float64) for _ in range(2))
    higher[0, 1] = higher[1, 0] = 0.9

    def nearness(given: Tensor) -> Tensor:
        _, gradient = value_and_gradients(loss, x, Grades(given))
        return torch.cosine_similarity(x[0] - 1e-3 * gradient[0], x[1] - 1e-3 * gradient[1], dim=0)

    assert nearness(higher) > nearness(matrix)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_embeddings_that_lie_as_their_labels_do_cost_no_log_ratio(scale: float) -> None:
    y = points(N, 5)
    turn, _ = torch.linalg.qr(points(DIM, 6))
    value = nearfar.create_loss("graded_log_ratio")(scale * y @ turn + 1, RuledLabels("gaussian", y))
    assert value.item() == pytest.approx(0, abs=1e-9)
    assert nearfar.create_loss("graded_log_ratio")(points(N, 7), RuledLabels("gaussian", y)) > 0.1


# ---- rules that grade


def overlapping(n: int, seed: int) -> Tensor:
    return torch.rand(n, 6, generator=torch.Generator().manual_seed(seed)) < 0.3


def jaccard(y: list[bool], z: list[bool]) -> float:
    either = sum(a or b for a, b in zip(y, z, strict=True))
    return sum(a and b for a, b in zip(y, z, strict=True)) / either if either else 0.0


def levels(y: list[int], z: list[int]) -> float:
    shared = next((k for k, (a, b) in enumerate(zip(y, z, strict=True)) if a != b), len(y))
    return shared / len(y)


def gaussian(y: list[float], z: list[float]) -> float:
    return math.exp(-(math.dist(y, z) ** 2) / 2)


RULES: dict[str, tuple[Callable[[Any, Any], float], Callable[[int, int], Tensor]]] = {
    "jaccard": (jaccard, overlapping),
    "levels": (levels, lambda n, s: torch.randint(2, (n, 3), generator=torch.Generator().manual_seed(s))),
    "gaussian": (gaussian, lambda n, s: points(n, s)[:, :2]),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_grades_as_it_says(rule: str) -> None:
    grade, draw = RULES[rule]
    y, z = draw(N, 10), draw(M, 11)
    batch = Batch.of(points(N, 0), RuledLabels(rule, y), None, points(M, 1), RuledLabels(rule, z))
    expected = torch.tensor([[grade(a, b) for b in z.tolist()] for a in y.tolist()], dtype=torch.float64)
    assert len(expected.unique()) > 2
    torch.testing.assert_close(batch.grades(), expected, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(batch.grades(slice(2, 5)), expected[2:5], rtol=1e-14, atol=1e-15)
    relation = batch.relation
    assert relation is not None
    torch.testing.assert_close(relation.turned().grades(), expected.T, rtol=1e-14, atol=1e-15)  # type: ignore[attr-defined]
    assert torch.equal(relation.of(torch.tensor([4, 1])).positive(), expected[[4, 1]] > 0)
    assert torch.equal(relation.negative(), expected == 0)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", GRADED)
def test_a_rule_is_the_grades_it_gives(name: str, rule: str, with_reference: bool) -> None:
    grade, draw = RULES[rule]
    x, y = points(N, 0), draw(N, 10)
    r, z = (points(M, 1), draw(M, 11)) if with_reference else (None, y)
    if name == "graded_log_ratio" and rule == "gaussian":  # which goes by the points themselves
        expected = graded_log_ratio_of_points(x, r, y.tolist(), z.tolist())
    else:
        expected = REFERENCES[name](x, r, [[grade(a, b) for b in z.tolist()] for a in y.tolist()])
    reference = [] if r is None else [r, RuledLabels(rule, z)]
    for found in both_ways(nearfar.create_loss(name), x, RuledLabels(rule, y), *reference):
        assert found[0].item() == pytest.approx(expected, rel=1e-9)


def graded_log_ratio_of_points(x: Tensor, r: Tensor | None, y: Rows, z: Rows) -> float:
    costs = []
    for a, row in enumerate(compared(x, r, [[math.dist(p, q) for q in z] for p in y], math.dist)):
        assert a < len(y)
        logs = [math.log(d + 1e-6) - math.log(apart + 1e-6) for d, apart in row]
        costs.append(mean([(a - b) ** 2 for a, b in combinations(logs, 2)]))
    return mean(costs)


# ---- who takes grades, and who does not


@pytest.mark.parametrize("spec", [spec for spec in LOSSES if not spec.graded], ids=lambda spec: spec.name)
def test_a_loss_that_takes_no_grades_says_so_by_its_name(spec: Any) -> None:
    loss = nearfar.create_loss(f"pair.{spec.name}", **dict.fromkeys(spec.needs, DIM))
    for labels in (Grades(grades(N, N, 2)), RuledLabels("jaccard", overlapping(N, 0))):
        with pytest.raises(InputError, match=f"{type(loss).__name__} .*takes no labels with grades"):
            loss(points(N, 0), labels)


@pytest.mark.parametrize("name", [spec.name for spec in plugin.nearfar_miners()])
def test_a_miner_takes_no_grades(name: str) -> None:
    miner = nearfar.create_miner(f"pair.{name}")
    assert isinstance(miner, Miner)
    with pytest.raises(InputError, match=f"{type(miner).__name__} chooses among positives and negatives"):
        miner(points(N, 0), RuledLabels("levels", torch.zeros(N, 2, dtype=torch.int64)))


@pytest.mark.parametrize(
    "recipe", ["margin.arcface(num_classes=6, embedding_size=4)", "proxy_anchor(num_classes=6, embedding_size=4)"]
)
def test_losses_of_classes_take_no_grades(recipe: str) -> None:
    with pytest.raises(InputError, match="takes no labels with grades"):
        nearfar.create_loss(recipe)(points(N, 0).float(), Grades(grades(N, N, 2)))


@pytest.mark.parametrize("name", GRADED)
def test_grades_and_a_choice_of_pairs_are_refused_together(name: str) -> None:
    chosen = tuple(torch.tensor([i]) for i in (0, 1, 2))
    with pytest.raises(InputError, match="leave out indices_tuple and miner"):
        nearfar.create_loss(name)(points(N, 0), Grades(grades(N, N, 2)), chosen)


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
def test_parts_from_elsewhere_are_given_no_grades() -> None:
    pytest.importorskip("pytorch_metric_learning")
    with pytest.raises(InputError, match="takes tensors of labels"):
        nearfar.compose("pml.circle_loss")(points(N, 0), Grades(grades(N, N, 2)))
    with pytest.raises(InputError, match="takes tensors"):
        nearfar.compose("contrastive(miner=pml.batch_hard_miner)")(points(N, 0), Grades(grades(N, N, 2)))


def test_a_similarity_has_no_ratios() -> None:
    with pytest.raises(ArgumentError, match="is a similarity"):
        nearfar.create_loss("graded_log_ratio", distance=nearfar.create_distance("cosine"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Grades(torch.zeros(3)), "floating matrix"),
        (lambda: Grades(torch.zeros(3, 3, dtype=torch.int64)), "floating matrix"),
        (lambda: Grades(torch.full((3, 3), 1.5)), "from 0 to 1; got 1.5"),
        (lambda: Grades(torch.full((3, 3), torch.nan)), "from 0 to 1; got nan"),
        (lambda: RuledLabels("jaccard", torch.zeros(3, 2)), "booleans"),
        (lambda: RuledLabels("levels", torch.zeros(3, 2)), "from the coarsest"),
        (lambda: RuledLabels("gaussian", torch.zeros(3, 2, dtype=torch.int64)), "floating"),
        (lambda: RuledLabels("gaussian", torch.zeros(3)), "floating"),
        (lambda: RuledLabels("levels", torch.zeros(3, 0, dtype=torch.int64)), "from the coarsest"),
        (lambda: nearfar.create_loss("sup_con")(points(N, 0), Grades(grades(N, M, 2))), r"shape \(9, 9\)"),
        (lambda: nearfar.create_loss("sup_con")(points(N, 0), Grades(grades(M, N, 2))), "a row for each of 9"),
        (lambda: nearfar.create_loss("sup_con")(points(N, 0), Grades(grades(N, M, 2)), None, points(N, 1)), "shape"),
        (
            lambda: nearfar.create_loss("sup_con")(
                points(N, 0), Grades(grades(N, M, 2)), None, points(M, 1), torch.arange(M)
            ),
            "leave out ref_labels",
        ),
        (
            lambda: nearfar.create_loss("sup_con")(
                points(N, 0), RuledLabels("jaccard", overlapping(N, 0)), None, points(M, 1), Grades(grades(M, M, 0))
            ),
            "of one kind",
        ),
    ],
)
def test_grades_that_do_not_fit_are_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()


# ---- batches of little, numbers, memory


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("name", GRADED)
def test_small_batches_give_a_finite_value_and_a_usable_gradient(name: str, n: int) -> None:
    for reference in ([], [points(0, 1)], [points(1, 1)]):
        labels = Grades(grades(n, len(reference[0]) if reference else n, 2))
        for found in both_ways(nearfar.create_loss(name), points(n, 0), labels, *reference):
            assert all(part.isfinite().all() for part in found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", GRADED)
def test_half_precision_is_raised(name: str, dtype: torch.dtype) -> None:
    x, labels = points(N, 0).to(dtype), Grades(grades(N, N, 2).to(dtype))
    found = nearfar.create_loss(name)(x, labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, nearfar.create_loss(name)(x.float(), Grades(labels.matrix.float())))


@pytest.mark.parametrize("reducer", ["mean", "sum", "avg_non_zero", "per_anchor"])
def test_graded_pairs_reduce_as_their_elements_do(reducer: str) -> None:
    """Those of a contrastive loss, whose sums are made without any of its elements."""
    x, labels = points(N, 0), Grades(grades(N, N, 2))
    parts = nearfar.create_loss("contrastive", reducer=nearfar.create_reducer("none"))(x, labels)
    batch = Batch.of(x, labels)
    expected = 0.0
    for name, terms in nearfar.create_loss("contrastive").terms(batch).items():
        anchors, others = terms.indices
        assert not (anchors == others).any()
        assert torch.equal(terms.values, parts[name])
        of_side = batch.grades() > 0 if name == "positive" else batch.grades() < 1
        assert len(terms.values) == terms.count() == of_side.fill_diagonal_(False).sum()
        v = terms.values
        by_anchor = [v[anchors == a].mean() for a in anchors.unique()]
        expected += {
            "mean": v.mean(),
            "sum": v.sum(),
            "avg_non_zero": v.sum() / (v > 0).sum(),
            "per_anchor": torch.stack(by_anchor).mean(),
        }[reducer].item()
    with by_rows():
        found = nearfar.create_loss("contrastive", reducer=nearfar.create_reducer(reducer))(x, labels)
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", GRADED)
def test_no_matrix_of_all_pairs_is_kept(name: str) -> None:
    """Of a rule that grades only a few rows are looked at at a time."""
    n, elements = 400, 2**12
    x = torch.randn(n, 8, requires_grad=True)
    labels = RuledLabels("levels", torch.stack((torch.arange(n) // 8, torch.arange(n) // 2), 1))
    loss = nearfar.create_loss(name)
    with (
        mock.patch.object(mask_sides, "ELEMENTS", elements),
        mock.patch.object(few_rows, "CPU_ELEMENTS", elements),
        mock.patch.object(soft_ranks, "CPU_ELEMENTS", elements),
    ):
        assert most_elements(lambda: loss(x, labels).backward()) <= elements * 1.01
