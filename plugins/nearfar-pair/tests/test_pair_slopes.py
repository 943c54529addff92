"""Sums whose gradients are in closed form have those of the formulas themselves."""

from __future__ import annotations

import contextlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar.nn.batch import Batch
from nearfar.nn.selection import IndexSelection, Selection
from nearfar_pair import few_rows, pair_distances, pair_pass, plugin, row_pass, sides, soft_ranks, triplet_terms
from nearfar_pair.end_losses import BothEndsLoss
from nearfar_pair.losses import decoupled_contrastive
from nearfar_pair.miners.multi_similarity import MultiSimilarityMiner

LABELS = torch.tensor([5, 5, 1, 5, 2, 5, 7, 2, 5, 1, 5, 9, 5])
REFERENCE_LABELS = torch.tensor([5, 1, 0, 0, 2, 9, 2, 5, 5, 1, 8])
#: Losses with a closed form, each form of those that have several.
LOSSES = [
    "arcface_triplet",
    "circle",
    "contrastive",
    'contrastive(hinge="linear")',
    "contrastive(distance=cosine, neg_margin=0.3)",
    "contrastive(distance=squared_euclidean(normalize=False))",
    "decoupled_contrastive",
    "decoupled_contrastive(sigma=0.3)",
    "dynamic_soft_margin(momentum=1)",
    "fast_ap",
    "generalized_lifted",
    "hinge_pair",
    "hinge_pair(distance=squared_euclidean)",
    "info_nce",
    'info_nce(positives="mean")',
    "info_nce(learned=True)",
    "intra_pair_variance",
    "lifted_structure",
    'lifted_structure(form="hard")',
    "margin_beta",
    "margin_beta(num_classes=10, nu=0.1)",
    "margin_beta(distance=cosine, beta=0.3)",
    "multi_similarity",
    "multi_similarity(distance=euclidean)",
    "n_pair",
    "nca",
    'nca(objective="probability")',
    "nt_xent",
    'nt_xent(others="all")',
    *("pnp", 'pnp("O")', 'pnp("Iu", temperature=0.3)', 'pnp("Ib", b=3, temperature=0.3)', 'pnp("Ds")'),
    "pnp(alpha=2, temperature=0.3)",
    "ranked_list",
    "recall_at_k",
    "recall_at_k(ks=[1, 3], rank_temperature=[0.3, 2], temperature=0.3)",
    "siglip",
    "smooth_ap",
    "smooth_ap(temperature=0.3)",
    "snr_contrastive",
    "sup_con",
    "threshold_consistent_margin",
    "triplet",
    "triplet(margin=1.0, distance=squared_euclidean(normalize=False))",
    "tuplet_margin",
]
#: Those of them whose hinges of triplets declare slopes, not they themselves.
OF_TRIPLETS = {"triplet", "arcface_triplet"}
#: Those that look at what is between positives and negatives too.
OF_PAIRS = [
    *("triplet(swap=True)", "triplet(smooth=True, margin=0)", "triplet(smooth=True, miner=semihard)"),
    *("triplet(miner=angular)", "triplet(miner=batch_hard)", "arcface_triplet(miner=semihard(margin=0.2))"),
    *("quadruplet", "angular", "hinge_pair", "centroid_triplet", "histogram", "dynamic_soft_margin"),
]


def embeddings(size: int, seed: int, *, ties: bool) -> Tensor:
    x = torch.randn(size, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = (2 * x).round() / 2 if ties else x
    x[:, 0] += 2.25  # none is zero
    return x


def gradients(loss: Any, batch: Batch, x: Tensor, *, whole: bool) -> tuple[Tensor, ...]:
    """Those of the sums of a loss's sides, each with a factor of its own."""
    terms = loss.terms(batch)
    named = terms if isinstance(terms, Mapping) else {"loss": terms}
    sums = [part.values.sum() if whole else part.sum() for part in named.values()]
    total = sum((i + 0.5) * value for i, value in enumerate(sums))
    leaves = [x, *loss.parameters()]
    return total.detach(), *torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)


def selected(given: str, x: Tensor) -> Selection | None:
    """By a rule on distances, or some of all pairs one by one, a few of them twice."""
    if given == "rule":
        return MultiSimilarityMiner().select(x.detach(), LABELS)
    if given != "pairs":
        return None
    a1, p, a2, n = Batch.of(x, LABELS).pairs()
    some, others = (torch.randint(len(a), (len(a) // 2,), generator=torch.Generator().manual_seed(3)) for a in (a1, a2))
    return IndexSelection((a1[some], p[some], a2[others], n[others]))


#: By masks of the whole matrix, by a table of positives beside it, and a few rows after another.
WAYS: dict[str, list[tuple[Any, str, int]]] = {
    "masks": [],
    "table": [(row_pass, "WIDE", 0)],
    "rows": [(row_pass, "SMALL", 0), (sides, "SMALL", 0), *((m, "CPU_ELEMENTS", 40) for m in (few_rows, soft_ranks))],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", ["itself", "references", "one reference", "rule", "pairs"])
@pytest.mark.parametrize("name", LOSSES)
def test_closed_forms_are_the_gradients_of_the_formulas(name: str, given: str, way: str) -> None:
    assert_agree(name, given, WAYS[way])


@pytest.mark.parametrize("given", ["itself", "references", "rule", "pairs"])
def test_so_are_those_of_few_positives_that_are_fetched_one_by_one(given: str) -> None:
    small = [(module, "SMALL", 0) for module in (row_pass, sides, pair_distances)]
    with mock.patch.object(decoupled_contrastive, "pair_distances", wraps=pair_distances.pair_distances) as fetched:
        assert_agree("decoupled_contrastive(sigma=0.3)", given, [*small, (sides, "FEWER", 0)])
    assert fetched.called == (given != "rule")  # a rule chooses by distances


def assert_agree(name: str, given: str, patched: Iterable[tuple[Any, str, int]]) -> None:
    """Sums and their gradients are those of the values, once some modules have other numbers."""
    loss = nearfar.compose(name, num_classes=10, embedding_size=6).double()
    (loss,) = loss.losses.values()
    for ties in (False, True):
        x = embeddings(len(LABELS), 0, ties=ties).requires_grad_()
        r = embeddings(len(REFERENCE_LABELS), 1, ties=ties)
        references = (r, REFERENCE_LABELS) if given == "references" else (None, None)
        if given == "one reference":
            references = r[:1], REFERENCE_LABELS[:1]
        batch = Batch.of(x, LABELS, selected(given, x), *references)
        expected = gradients(loss, batch, x, whole=True)
        with contextlib.ExitStack() as stack:
            for module, number, value in patched:
                stack.enter_context(mock.patch.object(module, number, value))
            found = gradients(loss, batch, x, whole=False)
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12 * max(1.0, float(two.abs().max())))


def test_the_list_is_whole() -> None:
    """Every loss that declares slopes is in the list above."""
    classes = {spec.name: _class(spec.name) for spec in plugin.nearfar_losses()}
    sloped = {name for name, of in classes.items() if hasattr(of, "sloped") or issubclass(of, BothEndsLoss)}
    assert sloped | OF_TRIPLETS == {name.partition("(")[0] for name in LOSSES}


def _class(name: str) -> Any:
    (target,) = (spec.target for spec in plugin.nearfar_losses() if spec.name == name)
    return pkgutil.resolve_name(target)


def test_backward_may_be_called_twice() -> None:
    x = embeddings(len(LABELS), 0, ties=False).requires_grad_()
    for name in ("contrastive", "sup_con", "siglip", "ranked_list"):
        value = nearfar.create_loss(f"pair.{name}").double()(x, LABELS)
        first, second = (torch.autograd.grad(value, x, retain_graph=True)[0] for _ in range(2))
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_what_was_written_to_meanwhile_is_refused() -> None:
    x = embeddings(len(LABELS), 0, ties=False).requires_grad_()
    y = x * 1
    value = nearfar.create_loss("pair.sup_con").double()(y, LABELS)
    with torch.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


#: Every loss as it is by default, and those that look at pairs of what they are given in ways of their own.
EVERY = sorted({*(name for name in LOSSES if "(" not in name), *OF_PAIRS})


@contextlib.contextmanager
def by_rows() -> Iterator[None]:
    """A few rows, or pairs, after another, as in a large batch."""
    small = [(module, "SMALL", 0) for module in (row_pass, sides, pair_distances, triplet_terms)]
    few = [(module, "CPU_ELEMENTS", 40) for module in (few_rows, soft_ranks, pair_pass)]
    with contextlib.ExitStack() as stack:
        for module, number, value in (*small, *few):
            stack.enter_context(mock.patch.object(module, number, value))
        yield


@pytest.mark.parametrize("way", ["at once", "by rows"])
@pytest.mark.parametrize("name", EVERY)
def test_statistics_change_no_gradient(name: str, way: str) -> None:
    x = embeddings(len(LABELS), 0, ties=False)
    found = []
    with by_rows() if way == "by rows" else contextlib.nullcontext():
        for collect in (False, True):
            loss = nearfar.compose(name, num_classes=10, embedding_size=6).double()
            loss.collect_stats(collect)
            leaf = x.clone().requires_grad_()
            loss(leaf, LABELS).backward()
            assert leaf.grad is not None
            found.append(leaf.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_a_backward_pass_under_autocast_is_in_full_precision(name: str) -> None:
    x = embeddings(len(LABELS), 0, ties=False).float()
    found = []
    with by_rows():
        for enabled in (False, True):
            loss = nearfar.compose(name, num_classes=10, embedding_size=6)
            leaf = x.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss(leaf, LABELS).backward()
            assert leaf.grad is not None
            found.append(leaf.grad)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5 * float(found[0].abs().max()))


#: Who has no positive, no negative, or neither.
LONELY = {
    "one alone": torch.tensor([0, 0, 1, 1, 2]),
    "one class": torch.zeros(5, dtype=torch.long),
    "all alone": torch.arange(5),
}


@pytest.mark.parametrize("given", ["itself", "references"])
@pytest.mark.parametrize("labels", LONELY)
@pytest.mark.parametrize("name", [*EVERY, 'nt_xent(others="all")'])
def test_second_derivatives_are_finite_where_an_anchor_has_nobody(name: str, labels: str, given: str) -> None:
    x = embeddings(5, 0, ties=False).requires_grad_()
    references = (embeddings(4, 1, ties=False), LONELY[labels][:4]) if given == "references" else (None, None)
    loss = nearfar.compose(name, num_classes=10, embedding_size=6).double()
    first = torch.autograd.grad(loss(x, LONELY[labels], None, *references), x, create_graph=True)[0]
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.square().sum(), x, materialize_grads=True, allow_unused=True)
        assert second.isfinite().all()
