"""Losses that are a formula of an anchor's row are what their definitions say, by rows and as a whole."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar.errors import ArgumentError, InputError
from nearfar.nn.batch import Batch
from nearfar.nn.reducers import AvgNonZero, Mean, NoReduction, Sum
from nearfar.nn.selection import IndexSelection
from nearfar.testing.meter import most_elements
from nearfar_pair import few_rows, loss_definitions, plugin, row_pass, sides
from nearfar_pair.losses.circle import Circle
from nearfar_pair.losses.contrastive import Contrastive
from nearfar_pair.losses.multi_similarity import MultiSimilarity
from nearfar_pair.losses.sup_con import SupCon
from nearfar_pair.miners.multi_similarity import MultiSimilarityMiner

#: Those that compare pairs; the others have their own tests.
NAMES = [spec.name for spec in plugin.nearfar_losses() if spec.accepts and spec.family != "wrapper"]
SPECS = {spec.name: spec for spec in plugin.nearfar_losses()}
UNEVEN = [5, 5, 1, 5, 2, 5, 7, 2, 5, 1, 5, 9, 5]
REFERENCE = [5, 1, 0, 0, 2, 9, 2, 5, 5, 1, 8]
#: Arguments that the definitions want and the batches here suit.
ARGUMENTS: dict[str, dict[str, Any]] = {"margin_beta": {"num_classes": 10, "nu": 0.1}}


@contextmanager
def by_rows(elements: int) -> Iterator[None]:
    """However small the batch, a few rows at a time, with tables of positives as on a CPU in large batches."""
    with (
        mock.patch.object(row_pass, "SMALL", 0),
        mock.patch.object(sides, "SMALL", 0),
        mock.patch.object(few_rows, "CPU_ELEMENTS", elements),
    ):
        yield


def make(name: str, **arguments: Any) -> Any:
    return nearfar.create_loss(f"pair.{name}", **{**ARGUMENTS.get(name, {}), **arguments}).double()


def value_and_gradients(loss: Any, x: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    loss = copy.deepcopy(loss)  # what it keeps changes with a call
    leaves = [t.detach().clone().requires_grad_() for t in (x, *(r for r in rest[1:2]))]
    value = loss(leaves[0], y, *rest[:1], *leaves[1:], *rest[2:])
    parameters = list(loss.parameters())
    return value.detach(), *torch.autograd.grad(
        value, [*leaves, *parameters], allow_unused=True, materialize_grads=True
    )


def batches(brute: SimpleNamespace) -> dict[str, tuple[Tensor, Tensor]]:
    y = torch.tensor(UNEVEN)
    return {"random": (brute.clustered(UNEVEN), y), "ties": (brute.grid(len(UNEVEN), dim=4, seed=2) + 0.0, y)}


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_by_rows_it_gives_what_it_gives_as_a_whole(name: str, with_reference: bool, brute: SimpleNamespace) -> None:
    loss = make(name)
    z = torch.tensor(REFERENCE)
    for what, (x, y) in batches(brute).items():
        references = {"random": brute.clustered(REFERENCE, seed=1), "ties": brute.grid(len(REFERENCE), dim=4, seed=3)}
        rest = (None, references[what].double(), z) if with_reference else ()
        if what == "ties" and name not in ("triplet", "contrastive"):
            x = x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype).round()
            x[:, 0] += 3.5  # none is zero, many are equal
        whole = value_and_gradients(loss, x, y, *rest)
        for elements in (1, 40):
            with by_rows(elements):
                for one, two in zip(value_and_gradients(loss, x, y, *rest), whole, strict=True):
                    torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12 * max(1.0, float(two.abs().max())))


@pytest.mark.parametrize("name", NAMES)
def test_by_rows_in_float32(name: str, brute: SimpleNamespace) -> None:
    loss = make(name)
    x, y = batches(brute)["random"]
    value = loss(x, y)
    with by_rows(40):
        found = loss.float()(x.float(), y)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_by_rows_it_is_its_definition(name: str, with_reference: bool, brute: SimpleNamespace) -> None:
    loss = make(name)
    x, y = batches(brute)["random"]
    r, z = (brute.clustered(REFERENCE, seed=1), torch.tensor(REFERENCE)) if with_reference else (None, None)
    if not SPECS[name].definition.startswith("nearfar_pair.loss_definitions"):
        pytest.skip("it has no definition")
    definition: Callable[..., float] = getattr(loss_definitions, name)
    wanted = inspect.signature(definition).parameters
    known: dict[str, Any] = {n: p.default for n, p in inspect.signature(type(loss)).parameters.items()}
    known |= ARGUMENTS.get(name, {}) | {n: p.detach() for n, p in loss.named_parameters()}
    known |= {n: b.clone() for n, b in loss.named_buffers()}
    arguments = {n: v for n, v in known.items() if n in wanted}
    with by_rows(40):
        found = loss(x, y, None, r, z)
    assert found.item() == pytest.approx(definition(x, y, r, z, **arguments), rel=1e-9)


@pytest.mark.parametrize("reducer", [Mean, Sum, AvgNonZero])
@pytest.mark.parametrize("name", NAMES)
def test_every_reducer_is_honoured_by_rows(name: str, reducer: Any, brute: SimpleNamespace) -> None:
    x, y = batches(brute)["random"]
    loss = make(name, reducer=reducer())
    terms = make(name).terms(Batch.of(x, y))
    named = terms if isinstance(terms, dict) else {"loss": terms}
    expected = 0.0
    for part in named.values():
        values = part.values.detach()
        if reducer is AvgNonZero:
            expected += float(values.clamp_min(0).sum() / (values > 0).sum().clamp_min(1))
        else:
            by = (
                1
                if reducer is Sum
                else len(values)
                if part.normalizer is None
                else float(torch.as_tensor(part.normalizer).detach())
            )
            expected += float(values.sum() / max(by, 1))
    with by_rows(40):
        assert loss(x, y).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_terms_agree_with_what_is_said_of_them(name: str, brute: SimpleNamespace) -> None:
    x, y = batches(brute)["random"]
    with by_rows(40):
        terms = make(name).terms(Batch.of(x, y))
        named = terms if isinstance(terms, dict) else {"loss": terms}
        for part in named.values():
            values, indices = part.values.detach(), part.indices
            assert part.count() == len(values)
            assert part.count_positive() == (values > 0).sum()
            by_anchor = values.new_zeros(len(x)).index_add(0, indices[0], values)
            torch.testing.assert_close(part.sum_by_anchor().detach(), by_anchor, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(part.sum().detach(), values.sum(), rtol=1e-10, atol=1e-12)
            assert torch.equal(part.count_by_anchor(), torch.bincount(indices[0], minlength=len(x)))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_selected_is_zero_with_a_usable_gradient(name: str) -> None:
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    none = torch.tensor([], dtype=torch.int64)
    value = make(name)(x, torch.arange(6) // 2, (none, none, none, none))
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("name", [n for n in NAMES if not SPECS[n].detached])
def test_the_second_derivative_is_that_of_the_formula(name: str, brute: SimpleNamespace) -> None:
    loss = make(name, reducer=Sum())
    y = torch.tensor([0, 1, 0, 1, 2, 2, 0])
    x = brute.clustered(y.tolist(), dim=3)
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)

    def second() -> Tensor:
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(loss(leaf, y), leaf, create_graph=True)
        return torch.autograd.grad((first * along).sum(), leaf, allow_unused=True, materialize_grads=True)[0]

    whole = second()
    with by_rows(1):
        torch.testing.assert_close(second(), whole, rtol=1e-9, atol=1e-9)


def test_a_batch_without_labels_or_selection_is_refused() -> None:
    with pytest.raises(InputError, match="labels"):
        Circle()(torch.randn(4, 2))


def test_duplicates_of_a_selection_count_once_in_a_row(brute: SimpleNamespace) -> None:
    x, y = batches(brute)["random"]
    a1, p, a2, n = Batch.of(x, y).pairs()
    once, twice = (a1, p, a2, n), tuple(torch.cat([i, i]) for i in (a1, p, a2, n))
    for loss in (Circle(), SupCon(), MultiSimilarity()):
        assert loss(x, y, twice).item() == pytest.approx(loss(x, y, once).item(), rel=1e-12)


# ---- the miner of multi-similarity, while its loss sums


@pytest.mark.parametrize("loss", [MultiSimilarity(), Contrastive(), SupCon(), Circle()], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("kind", ["random", "ties"])
def test_a_rule_on_pairs_chooses_what_its_indices_say(loss: Any, kind: str, brute: SimpleNamespace) -> None:
    x, y = batches(brute)[kind]
    x = x + torch.tensor([3.5, *[0.0] * (x.shape[1] - 1)])
    rule = MultiSimilarityMiner().select(x, y, loss=loss)
    made = IndexSelection(rule.indices())
    assert 0 < len(made.indices()[2]) < len(Batch.of(x, y).pairs()[2])
    expected = value_and_gradients(loss, x, y, made)
    for elements in (10**6, 30):
        with by_rows(elements):
            for one, two in zip(value_and_gradients(loss, x, y, rule), expected, strict=True):
                torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_a_rule_on_other_embeddings_is_not_applied_to_these(brute: SimpleNamespace) -> None:
    x, y = batches(brute)["random"]
    rule = MultiSimilarityMiner().select(x.flip(1) * torch.arange(1, 6), y)
    made = IndexSelection(rule.indices())
    assert MultiSimilarity()(x, y, rule).item() == pytest.approx(MultiSimilarity()(x, y, made).item(), rel=1e-12)


# ---- memory


# A quadruplet compares a positive pair with every negative pair there is: those are sorted, once.
@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("margin_beta", "quadruplet")])
def test_no_matrix_of_all_pairs_is_kept(name: str) -> None:
    """With four samples a class, the largest tensor of a call and its backward pass is a few rows of the matrix."""
    n = 512
    x, y = torch.randn(n, 8, requires_grad=True), torch.arange(n) // 4
    loss = nearfar.create_loss(f"pair.{name}")
    assert most_elements(lambda: loss(x, y).backward()) <= few_rows.CPU_ELEMENTS * 1.01


# ---- arguments


@pytest.mark.parametrize("name", NAMES)
def test_unreduced_values_come_with_the_kind_that_is_declared(name: str, brute: SimpleNamespace) -> None:
    x, y = batches(brute)["random"]
    found = make(name, reducer=NoReduction())(x, y)
    parts = found.values() if isinstance(found, dict) else [found]
    assert all(part.ndim == 1 and part.isfinite().all() for part in parts)


def test_a_learned_temperature_is_learned() -> None:
    loss = make("info_nce", learned=True)
    x = torch.randn(8, 4, dtype=torch.float64)
    loss(x, torch.arange(8) // 2).backward()
    assert loss.log_scale.grad.abs() > 0
    with pytest.raises(ArgumentError, match=r"0\.01"):
        nearfar.create_loss("pair.info_nce", temperature=0.001, learned=True)
