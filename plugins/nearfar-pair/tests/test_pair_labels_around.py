"""Labels that are no class ids, in losses around others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nearfar
from nearfar.errors import InputError
from nearfar.nn import Grades, RuledLabels
from nearfar.testing.ranks import run_on_ranks

N, DIM = 8, 5


def points(seed: int, n: int = N) -> Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_of(kind: str, seed: int, n: int = N) -> Any:
    generator = torch.Generator().manual_seed(seed)
    if kind == "multi_hot":
        return torch.rand(n, 6, generator=generator) < 0.35
    if kind == "jaccard":
        return RuledLabels(kind, torch.rand(n, 6, generator=generator) < 0.35)
    if kind == "gaussian":
        return RuledLabels(kind, torch.rand(n, 2, generator=generator))
    if kind == "levels":
        return RuledLabels(kind, torch.randint(2, (n, 3), generator=generator))
    columns = torch.stack((torch.randint(3, (n,), generator=generator), torch.randint(2, (n,), generator=generator)), 1)
    return RuledLabels(kind, columns)


def rows_of(labels: Any, rows: slice) -> Any:
    return RuledLabels(labels.rule, labels.columns[rows]) if isinstance(labels, RuledLabels) else labels[rows]


def joined(first: Any, second: Any) -> Any:
    if isinstance(first, RuledLabels):
        return RuledLabels(first.rule, torch.cat((first.columns, second.columns)))
    return torch.cat((first, second))


#: A loss that takes each kind.
KINDS = {
    "multi_hot": "triplet",
    "other_group": "triplet",
    "same_group": "multi_similarity(miner=multi_similarity)",
    "jaccard": "sup_con",
    "levels": "smooth_ap(temperature=0.1)",
    "gaussian": "graded_log_ratio",
}
EACH_KIND = pytest.mark.parametrize(("kind", "inner"), KINDS.items())


def value_and_gradient(loss: nn.Module, x: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    value = loss(leaf, *rest, **named)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-13)


@EACH_KIND
def test_matryoshka_hands_labels_to_every_width(kind: str, inner: str) -> None:
    x, y, plain = points(0), labels_of(kind, 1), nearfar.compose(inner)
    found = value_and_gradient(nearfar.compose(f"matryoshka({inner}, dims=[2, 5])"), x, y)
    first, whole = value_and_gradient(plain, x[:, :2], y), value_and_gradient(plain, x, y)
    gradient = whole[1].clone()
    gradient[:, :2] += first[1]
    close(found, (first[0] + whole[0], gradient))


@EACH_KIND
def test_gather_in_one_process_is_the_loss_itself(kind: str, inner: str) -> None:
    x, y, r, z = points(0), labels_of(kind, 1), points(2, 6), labels_of(kind, 3, 6)
    together, alone = nearfar.compose(f"gather({inner})"), nearfar.compose(inner)
    close(value_and_gradient(together, x, y), value_and_gradient(alone, x, y))
    given = {"ref_emb": r, "ref_labels": z}
    close(value_and_gradient(together, x, y, **given), value_and_gradient(alone, x, y, **given))


@EACH_KIND
def test_symmetric_hands_the_labels_of_either_side_on(kind: str, inner: str) -> None:
    x, y, r, z, plain = points(0), labels_of(kind, 1), points(2, 6), labels_of(kind, 3, 6), nearfar.compose(inner)
    found = nearfar.compose(f"symmetric({inner})")(x, y, ref_emb=r, ref_labels=z)
    expected = (plain(x, y, ref_emb=r, ref_labels=z) + plain(r, z, ref_emb=x, ref_labels=y)) / 2
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_symmetric_turns_grades_round() -> None:
    x, r, plain = points(0), points(2, 6), nearfar.compose("sup_con")
    matrix = torch.rand(N, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = nearfar.compose("symmetric(sup_con)")(x, Grades(matrix), ref_emb=r)
    expected = (plain(x, Grades(matrix), ref_emb=r) + plain(r, Grades(matrix.T), ref_emb=x)) / 2
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    with pytest.raises(InputError, match="leave out ref_labels"):
        nearfar.compose("symmetric(sup_con)")(x, Grades(matrix), ref_emb=r, ref_labels=torch.arange(6))


@EACH_KIND
def test_a_memory_compares_by_the_labels_it_was_given(kind: str, inner: str) -> None:
    """A batch with itself and with the rows before it, the oldest of which made room; and so after a restart."""
    loss, plain = nearfar.compose(f"cross_batch_memory({inner}, size={N + 3})"), nearfar.compose(inner)
    batches = [(points(step), labels_of(kind, 10 + step)) for step in range(4)]
    memory = None
    for step, (x, y) in enumerate(batches):
        if step == 2:
            state, loss = loss.state_dict(), nearfar.compose(f"cross_batch_memory({inner}, size={N + 3})")
            loss.load_state_dict(copy.deepcopy(state))
        expected = value_and_gradient(plain, x, y)
        if memory is not None:
            against = value_and_gradient(plain, x, y, ref_emb=memory[0], ref_labels=memory[1])
            expected = expected[0] + against[0], expected[1] + against[1]
        close(value_and_gradient(loss, x, y), expected)
        whole = (x, y) if memory is None else (torch.cat((memory[0], x)), joined(memory[1], y))
        memory = whole[0][-N - 3 :], rows_of(whole[1], slice(-N - 3, None))


def test_a_memory_is_of_one_kind_of_labels() -> None:
    loss = nearfar.compose("cross_batch_memory(triplet, size=20)")
    loss(points(0), labels_of("multi_hot", 1))
    for other in (torch.arange(N), torch.ones(N, 5, dtype=torch.bool), labels_of("other_group", 1)):
        with pytest.raises(InputError, match=r"memory holds labels torch.bool \(…, 6\)"):
            loss(points(1), other)
    assert loss(points(1), labels_of("multi_hot", 2)).isfinite()


def test_pairs_of_one_batch_say_nothing_of_another() -> None:
    loss = nearfar.compose("cross_batch_memory(sup_con, size=20)")
    with pytest.raises(InputError, match="Grades are of the pairs of one batch"):
        loss(points(0), Grades(torch.ones(N, N)))


@pytest.mark.parametrize("around", ["matryoshka({}, dims=[2])", "gather({})", "cross_batch_memory({}, size=4)"])
def test_what_is_inside_says_what_it_takes(around: str) -> None:
    with pytest.raises(InputError, match="Triplet tells positives from negatives and takes no labels with grades"):
        nearfar.compose(around.format("triplet"))(points(0), labels_of("jaccard", 1))
    with pytest.raises(InputError, match="SemiHard chooses among positives and negatives"):
        nearfar.compose(around.format("contrastive"), miner="semihard(margin=0.2)")(points(0), labels_of("levels", 1))


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
@pytest.mark.parametrize(
    "around", ["matryoshka({}, dims=[2])", "gather({})", "cross_batch_memory({}, size=4)", "symmetric({})"]
)
def test_a_foreign_loss_inside_is_given_no_rule(around: str) -> None:
    pytest.importorskip("pytorch_metric_learning")
    labels = labels_of("other_group", 1)
    reference = {"ref_emb": points(1), "ref_labels": labels} if "symmetric" in around else {}
    with pytest.raises(InputError, match="takes tensors of labels, and none with a rule or grades"):
        nearfar.compose(around.format("pml.contrastive_loss"))(points(0), labels, **reference)


# ---- ranks

#: Samples of each rank: ragged, and none at all.
SIZES = {2: (5, 3), 3: (5, 0, 3)}


def compare_with_one_process(rank: int, world: int) -> None:
    start = sum(SIZES[world][:rank])
    own = slice(start, start + SIZES[world][rank])
    for kind, inner in KINDS.items():
        x, y = points(0), labels_of(kind, 1)
        value, gradient = value_and_gradient(nearfar.compose(inner), x, y)
        found = value_and_gradient(nearfar.compose(f"gather({inner})"), x[own], rows_of(y, own))
        torch.testing.assert_close(found[0], value, rtol=1e-12, atol=0, msg=kind)
        torch.testing.assert_close(found[1], world * gradient[own], rtol=1e-9, atol=1e-12, msg=kind)
    together = nearfar.compose("gather(triplet)")
    x, y = points(0), labels_of("other_group" if rank else "same_group", 1)
    with pytest.raises(InputError, match="the ranks differ in the rule of labels"):
        together(x, y)
    with pytest.raises(InputError, match="Grades are of one rank's pairs"):
        together(x, Grades(torch.ones(N, N)))


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.long)])
def test_ranks_gather_every_kind_of_labels(world: int) -> None:
    run_on_ranks(compare_with_one_process, world)
