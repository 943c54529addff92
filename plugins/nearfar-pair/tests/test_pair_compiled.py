"""The compiled tier: the same results as torch's, in every case it takes, and torch in every other."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nearfar
from nearfar.nn.compiled import eager_only
from nearfar.testing.meter import peak_bytes
from nearfar_pair import few_rows
from nearfar_pair.compiled import pairs, tier, work

pytest.importorskip("numba", reason="the compiled tier needs numba: pip install nearfar-pair[fast]")

#: Recipes with a place for the distance, and similarities for which margins are other numbers.
LOSSES = {
    "contrastive": "contrastive(pos_margin=0.1, {})",
    "contrastive_linear": "contrastive(hinge='linear', neg_margin=1.3, {})",
    "margin_beta": "margin_beta({})",
    "siglip": "siglip({})",
    "triplet": "triplet({})",
    "triplet_semihard": "triplet(miner=semihard, {})",
    "triplet_hard": "triplet(miner=hard, {})",
    "triplet_batch_hard": "triplet(miner=batch_hard, {})",
    "triplet_soft_batch_hard": "triplet(margin=0, smooth=True, miner=batch_hard, {})",
}
RAW = ["dot", "euclidean(normalize=False)", "squared_euclidean(normalize=False)"]
DISTANCES = ["euclidean", "squared_euclidean", "cosine", *RAW]
RECIPES = [
    recipe.format(f"distance={distance}")
    for name, recipe in LOSSES.items()
    for distance in DISTANCES
    if distance != "cosine" or name not in ("contrastive", "contrastive_linear", "margin_beta")
]
RECIPES += ["contrastive(pos_margin=0.9, neg_margin=0.3, distance=cosine)", "margin_beta(beta=0.4, distance=cosine)"]
RECIPES += ["sup_con", "sup_con(distance=squared_euclidean)", "info_nce", "info_nce(positives='mean')", "nt_xent"]
RECIPES += ["circle", "generalized_lifted", "multi_similarity", "multi_similarity(base=0.5)", "decoupled_contrastive"]
RECIPES += ["nca", "nca(objective='probability')", "n_pair", "n_pair(l2_weight=0, distance=cosine)"]
RECIPES += ["ranked_list", "ranked_list(positive_temperature=5, balance=0.3)", "tuplet_margin"]
RECIPES += ["multi_similarity(base=0.5, miner=multi_similarity)", "circle(miner=multi_similarity(epsilon=0))"]
RECIPES += ["sup_con(miner=multi_similarity)", "nt_xent(miner=multi_similarity(epsilon=0.3))"]
RECIPES += ["fast_ap", "fast_ap(num_bins=3)", "threshold_consistent_margin", "intra_pair_variance"]


def draw(n: int, dim: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings on the way to clusters, among them points twice, and their classes."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=random)
    centres = torch.randn(classes, dim, generator=random)
    x = centres[labels] * 0.7 + torch.randn(n, dim, generator=random)
    x[n // 2 : n // 2 + n // 10] = x[: n // 10]
    return x, labels


def value_and_gradients(recipe: str, x: Tensor, labels: Any, *reference: Any) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    criterion = nearfar.compose(recipe)
    inputs = [x.clone().requires_grad_(), *(r.clone().requires_grad_() for r in reference[:1])]
    named = {"ref_emb": inputs[1], "ref_labels": reference[1]} if reference else {}
    value = criterion(inputs[0], labels, **named)
    if isinstance(value, dict):
        value = torch.cat(list(value.values()))
    wanted = [*inputs, *criterion.parameters()]
    return value.detach(), *torch.autograd.grad(value.sum(), wanted, allow_unused=True, materialize_grads=True)


def by_torch(recipe: str, *given: Any) -> tuple[Tensor, ...]:
    with eager_only():
        return value_and_gradients(recipe, *given)


def assert_alike(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float = 5e-6) -> None:
    """To a share of the greatest number of each."""
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(1e-3, other.abs().amax().item()))


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """The names of the kernels that are called within."""
    called: list[str] = []
    kernel = tier.kernel

    def named(name: str) -> Any:
        called.append(name)
        return kernel(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "kernel", named)
        yield called


@pytest.mark.parametrize("recipe", RECIPES)
def test_values_and_gradients_are_those_of_torch(recipe: str) -> None:
    # Of squares of long vectors as much is lost as they are longer than the differences that cost.
    tolerance = 5e-5 if any(distance in recipe for distance in RAW) else 5e-6
    for n, m in ((40, 30), (450, 420)):
        x, labels = draw(n, 16, n // 5)
        with watched() as called:
            found = value_and_gradients(recipe, x, labels)
        assert called or ("intra" in recipe and n < 100)
        assert_alike(found, by_torch(recipe, x, labels), tolerance)
        beside = draw(m, 16, n // 5, seed=1)
        assert_alike(value_and_gradients(recipe, x, labels, *beside), by_torch(recipe, x, labels, *beside), tolerance)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if any(distance in r for distance in RAW)])
def test_ties_fall_as_they_do_in_torch(recipe: str) -> None:
    random = torch.Generator().manual_seed(0)
    for n in (60, 450):
        x = torch.randint(-2, 3, (n, 3), generator=random).float()
        labels = torch.randint(8, (n,), generator=random)
        assert_alike(value_and_gradients(recipe, x, labels), by_torch(recipe, x, labels), 2e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_batches_with_nothing_to_compare_cost_what_they_do_in_torch(recipe: str) -> None:
    x, _ = draw(30, 4, 3)
    for labels in (torch.zeros(30), torch.arange(30), torch.arange(30) // 29):
        given = x, labels.long()
        assert_alike(value_and_gradients(recipe, *given), by_torch(recipe, *given))
    for n in (1, 2):
        given = x[:n], torch.arange(n)
        assert_alike(value_and_gradients(recipe, *given), by_torch(recipe, *given))


@pytest.mark.parametrize(
    "recipe", [LOSSES[name].format("") for name in LOSSES] + ["fast_ap", "sup_con", "multi_similarity", "circle", "nca"]
)
def test_points_without_a_direction_and_of_any_length_are_compared(recipe: str) -> None:
    for change in (0.0, 1e25, 1e-30):
        x, labels = draw(50, 8, 10)
        x[10], x[20] = change * x[10], change * x[20]
        assert_alike(value_and_gradients(recipe, x, labels), by_torch(recipe, x, labels))


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_not_a_number_makes_the_loss_none(recipe: str) -> None:
    x, labels = draw(50, 8, 10)
    x[7, 3] = math.nan
    assert value_and_gradients(recipe, x, labels)[0].isnan()


def test_far_points_that_are_near_each_other_keep_their_distance() -> None:
    x, labels = draw(50, 8, 10)
    x += 1000
    for recipe in ("contrastive(neg_margin=3, distance=euclidean(normalize=False))", "triplet(miner=batch_hard)"):
        exact = by_torch(recipe, x.double(), labels)
        found = value_and_gradients(recipe, x, labels)
        assert found[0].item() == pytest.approx(exact[0].item(), rel=2e-5)
        assert_alike(found, tuple(each.float() for each in exact), 1e-4)


def test_class_ids_may_be_any_whole_numbers() -> None:
    x, labels = draw(50, 8, 10)
    for recipe in ("contrastive", "triplet", "fast_ap", "triplet(miner=batch_hard)"):
        found = value_and_gradients(recipe, x, (labels - 5) * 2**40)
        for one, other in zip(found, value_and_gradients(recipe, x, labels), strict=True):
            assert torch.equal(one, other)


REDUCERS = ["mean", "sum", "avg_non_zero", "none", "per_anchor", "divisor", "threshold(low=0.3)", "top_k(5)"]


@pytest.mark.parametrize("reducer", REDUCERS)
@pytest.mark.parametrize(
    "recipe",
    ["contrastive", "triplet", "fast_ap", "triplet(miner=batch_hard)", "siglip", "n_pair", "circle", "nt_xent"],
)
def test_every_reducer_has_what_it_asks_for(recipe: str, reducer: str) -> None:
    opened = recipe.removesuffix(")")
    whole = f"{opened}{', ' if '(' in opened else '('}reducer={reducer})"
    x, labels = draw(60, 8, 12)
    assert_alike(value_and_gradients(whole, x, labels), by_torch(whole, x, labels))


@pytest.mark.parametrize("recipe", ["contrastive", "margin_beta", "triplet", "fast_ap", "nt_xent", "sup_con"])
def test_it_may_be_asked_in_any_order(recipe: str) -> None:
    from nearfar.nn.batch import Batch

    x, labels = draw(60, 8, 12)
    criterion = nearfar.compose(recipe)
    value = value_and_gradients(recipe, x, labels)[0]
    with torch.no_grad():
        assert torch.equal(criterion(x.requires_grad_(), labels), value)
    with torch.inference_mode():
        assert torch.equal(criterion(x.detach(), labels), value)
    (loss,) = criterion.losses.values()
    batch = Batch.of(x, labels)
    made = loss.terms(batch)
    for terms in made.values() if isinstance(made, dict) else [made]:
        with torch.no_grad():
            total, count = terms.sum(), terms.count_positive()
        assert terms.sum().requires_grad
        assert count == (terms.values > 0).sum()
        torch.testing.assert_close(terms.sum_by_anchor().sum(), total)
        assert terms.count() == len(terms.values)


@pytest.mark.parametrize("recipe", ["contrastive", "margin_beta", "triplet", "fast_ap", "triplet(miner=batch_hard)"])
def test_a_graph_that_is_kept_can_be_walked_again(recipe: str) -> None:
    for n in (60, 450):
        x, labels = draw(n, 8, n // 5)
        x.requires_grad_()
        value = nearfar.compose(recipe)(x, labels)
        first = torch.autograd.grad(3 * value, x, retain_graph=True)[0].clone()
        assert torch.equal(torch.autograd.grad(3 * value, x)[0], first)


@pytest.mark.parametrize("recipe", ["contrastive", "siglip", "triplet(miner=batch_hard)", "margin_beta", "circle"])
def test_the_second_derivative_is_torchs(recipe: str) -> None:
    x, labels = draw(40, 8, 10)
    beside, of_beside = draw(30, 8, 10, seed=1)

    def second(**named: Tensor) -> Tensor:
        points = x.clone().requires_grad_()
        value = nearfar.compose(recipe)(points, labels, **named)
        (slope,) = torch.autograd.grad(value, points, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), points)[0]

    for named in ({}, {"ref_emb": beside, "ref_labels": of_beside}):
        found = second(**named)
        with eager_only():
            expected = second(**named)
        assert_alike((found,), (expected,), 1e-5)


class Watching(torch.utils._python_dispatch.TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Own(Tensor):
    """A tensor that may be more than its memory says."""


def test_torch_computes_what_a_kernel_cannot() -> None:
    x, labels = draw(40, 8, 10)
    contrastive = nearfar.compose("contrastive")
    per_class = nearfar.compose("margin_beta(num_classes=10)")
    mined = nearfar.compose("contrastive(miner=pair_margin(0.3, 1.2))")
    multi_hot = nn.functional.one_hot(labels, 10).bool()
    pairs_given = tuple(torch.arange(10).view(2, 5)) * 2
    for call in (
        lambda: contrastive(x.double(), labels),
        lambda: contrastive(x.as_subclass(Own), labels),
        lambda: contrastive(x.to("meta"), labels.to("meta")),
        lambda: contrastive(x, multi_hot),
        lambda: contrastive(x, indices_tuple=pairs_given),
        lambda: per_class(x, labels),
        lambda: mined(x, labels),
    ):
        with watched() as called:
            with contextlib.suppress(NotImplementedError, RuntimeError):  # of meta tensors
                call()
            assert not called
    with watched() as called:
        with Watching():
            contrastive(x, labels)
        with eager_only():
            contrastive(x, labels)
        assert not called
        contrastive(x, labels)
        assert called


def test_half_precision_is_computed_in_float32() -> None:
    x, labels = draw(40, 8, 10)
    half = x.half().requires_grad_()
    with watched() as called:
        value = nearfar.compose("contrastive")(half, labels)
        value.backward()
    assert called
    assert value.dtype == torch.float32
    assert half.grad is not None
    assert half.grad.dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        assert nearfar.compose("contrastive")(half, labels) == value


def test_embeddings_need_not_be_adjacent_in_memory() -> None:
    x, labels = draw(60, 8, 12)
    for recipe in ("contrastive", "triplet(distance=dot)", "fast_ap", "triplet(miner=batch_hard)"):
        expected = value_and_gradients(recipe, x, labels)
        wide = torch.cat((x, x), 1).t().contiguous().t()[:, :8].requires_grad_()
        value = nearfar.compose(recipe)(wide, labels.repeat_interleave(2)[::2])
        assert_alike((value.detach(), torch.autograd.grad(value, wide)[0]), expected[:2])


@pytest.mark.parametrize(
    "recipe", ["contrastive(hinge='linear')", "triplet", "fast_ap", "triplet(miner=batch_hard)", "nca"]
)
def test_a_few_rows_at_a_time_are_all_of_them(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = draw(150, 8, 30)
    beside = draw(130, 8, 30, seed=1)
    whole = value_and_gradients(recipe, x, labels), value_and_gradients(recipe, x, labels, *beside)
    monkeypatch.setattr(few_rows, "CPU_ELEMENTS", 2**11)
    for kept in (pairs.KEPT, 0):
        monkeypatch.setattr(pairs, "KEPT", kept)
        assert_alike(value_and_gradients(recipe, x, labels), whole[0])
        assert_alike(value_and_gradients(recipe, x, labels, *beside), whole[1])


@pytest.mark.parametrize("recipe", ["contrastive", "triplet", "triplet(miner=semihard)", "fast_ap", "siglip"])
def test_no_matrix_of_all_pairs_is_kept(recipe: str) -> None:
    x, labels = draw(2000, 8, 500)
    assert peak_bytes(lambda: value_and_gradients(recipe, x, labels)) < 4 * 2000**2 / 2


def test_a_miner_lists_what_its_loss_takes() -> None:
    for n in (50, 450):
        x, labels = draw(n, 8, n // 5)
        miner = nearfar.create_miner("batch_hard")
        with watched() as called:
            listed = miner(x, labels)
        assert called
        with eager_only():
            expected = miner(x, labels)
        for one, other in zip(listed, expected, strict=True):
            assert one.dtype == torch.int64
            assert torch.equal(one, other)


def test_the_hardest_of_equals_is_the_first() -> None:
    x = torch.tensor([[0.0], [1.0], [-1.0], [1.0], [2.0], [-2.0], [2.0], [0.0]])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2])
    listed = nearfar.create_miner("batch_hard(distance=euclidean(normalize=False))")(x, labels)
    with eager_only():
        expected = nearfar.create_miner("batch_hard(distance=euclidean(normalize=False))")(x, labels)
    assert [column.tolist() for column in listed] == [column.tolist() for column in expected]
    assert listed[1][0] == 1
    assert listed[2][0] == 7


def test_exponentials_are_as_exact_as_their_type() -> None:
    import numpy as np

    from nearfar_pair.compiled.loops import pairs as loops

    for given in np.linspace(-90, 90, 2001, dtype=np.float32):
        e = float(given)
        cost, slope = max(e, 0) + math.log1p(math.exp(-abs(e))), 1 / (1 + math.exp(-e))
        assert float(loops._logistic(given)) == pytest.approx(cost, rel=3e-7, abs=1e-37)
        assert float(loops._by_logistic(given)) == pytest.approx(slope, rel=3e-7, abs=1e-37)


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOSS = (
    "import torch; from nearfar_pair.losses.triplet import Triplet; x = torch.rand(9, 4, requires_grad=True); "
    "Triplet()(x, torch.arange(9) // 3).backward(); from nearfar_pair.compiled import tier; "
)


@pytest.mark.parametrize("missing", ["import sys; sys.modules['numba'] = None; ", ""])
def test_without_numba_losses_are_torchs_in_silence(missing: str) -> None:
    environment = {} if missing else {"NUMBA_DISABLE_JIT": "1"}
    code = f"{missing}import logging; logging.basicConfig(level='INFO'); {LOSS} print(tier.kernel('triplets'))"
    assert run(code, **environment).split() == ["None"]


def test_a_kernel_is_compiled_once_and_found_by_the_next_process(tmp_path: Any) -> None:
    counts = []
    for _ in range(2):
        assert run(f"{LOSS} print(x.grad.sum().isfinite().item())", NUMBA_CACHE_DIR=str(tmp_path)).split() == ["True"]
        counts.append(len(list(tmp_path.rglob("*.nbc"))))
    assert counts[0] == counts[1] > 0


#: Of each way through kernels one.
WAYS = ["contrastive", "siglip", "triplet", "triplet(miner=semihard)", "triplet(miner=batch_hard)", "fast_ap", "circle"]


@pytest.mark.parametrize("recipe", WAYS)
def test_products_may_lie_in_memory_column_by_column(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from nearfar.nn import products

    x, labels = draw(256, 128, 20)
    beside = draw(300, 128, 20, seed=1)
    expected = by_torch(recipe, x, labels, *beside)
    monkeypatch.setattr(products, "_available", lambda: True)
    assert_alike(value_and_gradients(recipe, x, labels, *beside), expected, 2e-5)


@pytest.mark.parametrize("recipe", WAYS)
def test_nothing_waits_for_the_cycle_collector(recipe: str) -> None:
    criterion = nearfar.compose(recipe)
    x, labels = draw(60, 8, 12)

    def step() -> weakref.ref[Tensor]:
        embeddings = x.clone().requires_grad_()
        hidden = embeddings * 2
        criterion(hidden, labels).backward()
        return weakref.ref(hidden)

    gc.disable()
    try:
        assert step()() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("recipe", WAYS)
def test_class_ids_may_be_written_to_before_the_backward_pass(recipe: str) -> None:
    x, labels = draw(60, 8, 12)
    expected = value_and_gradients(recipe, x, labels)[1]
    points, mine = x.clone().requires_grad_(), labels.clone()
    value = nearfar.compose(recipe)(points, mine)
    mine.zero_()
    assert torch.equal(torch.autograd.grad(value, points)[0], expected)


def test_what_has_no_memory_of_its_own_is_left_to_torch() -> None:
    x, labels = draw(20, 8, 4)
    contrastive = nearfar.compose("contrastive")
    with watched() as called:
        for embeddings, reference in (
            (x, x.to("meta")),
            (torch._efficientzerotensor((20, 8)), x),
            (torch._to_functional_tensor(x), x),
        ):
            with contextlib.suppress(RuntimeError, NotImplementedError):
                contrastive(embeddings, labels, ref_emb=reference, ref_labels=labels)
        assert not called


@pytest.mark.parametrize("recipe", WAYS)
def test_checkpoints_and_offloading_go_through_kernels(recipe: str) -> None:
    from torch.utils.checkpoint import checkpoint

    x, labels = draw(60, 8, 12)
    criterion = nearfar.compose(recipe)
    expected = value_and_gradients(recipe, x, labels)[1]
    for reentrant in (True, False):
        points = x.clone().requires_grad_()
        checkpoint(lambda z: criterion(z, labels), points, use_reentrant=reentrant).backward()
        assert points.grad is not None
        assert torch.equal(points.grad, expected)
    with torch.autograd.graph.save_on_cpu():
        points = x.clone().requires_grad_()
        value = criterion(points, labels)
    assert torch.equal(torch.autograd.grad(value, points)[0], expected)


@pytest.mark.parametrize("recipe", ["contrastive", "siglip", "triplet", "fast_ap"])
def test_several_gradients_are_taken_at_once(recipe: str) -> None:
    x, labels = draw(60, 8, 12)
    points = x.clone().requires_grad_()
    value = nearfar.compose(recipe)(points, labels)
    (both,) = torch.autograd.grad(value, points, torch.tensor([1.0, 2.0]), is_grads_batched=True)
    (expected,) = value_and_gradients(recipe, x, labels)[1:2]
    assert_alike((both[0], both[1]), (expected, 2 * expected))


@pytest.mark.filterwarnings("ignore:.*lru_cache:UserWarning")  # of a cache that is looked through
def test_a_backward_pass_may_be_traced() -> None:
    from torch._dynamo import compiled_autograd

    x, labels = draw(40, 8, 10)
    for recipe in ("triplet(miner=batch_hard)", "contrastive", "triplet"):
        points = x.clone().requires_grad_()
        value = nearfar.compose(recipe)(points, labels)
        with compiled_autograd._enable(torch.compile(backend="eager")):
            value.backward()
        assert points.grad is not None
        assert_alike((points.grad,), value_and_gradients(recipe, x, labels)[1:2])


@pytest.mark.parametrize("recipe", WAYS)
def test_a_memory_that_was_made_in_inference_mode_is_a_reference(recipe: str) -> None:
    x, labels = draw(60, 8, 12)
    beside, of_beside = draw(50, 8, 12, seed=1)
    with torch.inference_mode():
        memory = beside.clone()
    expected = value_and_gradients(recipe, x, labels, beside, of_beside)
    points = x.clone().requires_grad_()
    value = nearfar.compose(recipe)(points, labels, ref_emb=memory, ref_labels=of_beside)
    assert torch.equal(torch.autograd.grad(value, points)[0], expected[1])


@pytest.mark.parametrize(
    "recipe", ["triplet", "triplet(miner=hard)", "triplet(miner=batch_hard)", "fast_ap", "sup_con"]
)
def test_what_is_not_a_number_shows_of_an_anchor_without_positives_too(recipe: str) -> None:
    x, labels = draw(8, 4, 3)
    x[0], labels[0] = math.nan, 99
    beside = draw(300, 4, 3, seed=1)
    assert value_and_gradients(recipe, x, labels, *beside)[0].isnan()
    assert value_and_gradients(recipe, x, torch.arange(8))[0].isnan()


@pytest.mark.parametrize("miner", ["all", "semihard", "hard"])
def test_distances_that_overflow_show(miner: str) -> None:
    criterion = nearfar.compose(f"triplet(distance=euclidean(normalize=False), miner={miner})")
    far, labels = torch.tensor([[-1e20, 0.0], [1.0, 1.0]]), torch.tensor([0, 1])
    assert not criterion(torch.tensor([[1.0, 0.0]]), labels[:1], ref_emb=far, ref_labels=labels).isfinite()


def test_sums_over_many_are_those_of_float64() -> None:
    x, labels = draw(3, 5, 2)
    beside = draw(100_000, 5, 2, seed=1)
    found = value_and_gradients("siglip", x, labels, *beside)
    exact = by_torch("siglip", x.double(), labels, beside[0].double(), beside[1])
    for place in (0, -2, -1):  # the value, and the gradients by what is learned
        torch.testing.assert_close(found[place].double(), exact[place].double(), rtol=2e-6, atol=0)


def test_bins_that_float32_cannot_tell_apart_are_left_to_torch() -> None:
    x, labels = draw(10, 4, 2)
    with watched() as called:
        nearfar.compose("fast_ap(num_bins=100000)")(x, labels)
    assert not called


@pytest.mark.parametrize("missing", ["units", "triplets"])
def test_where_a_kernel_cannot_be_compiled_torch_computes(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = tier.kernel
    monkeypatch.setattr(tier, "kernel", lambda name: None if name == missing else kernel(name))
    x, labels = draw(40, 8, 10)
    with watched() as called:
        nearfar.compose("triplet")(x, labels)
    assert not called
