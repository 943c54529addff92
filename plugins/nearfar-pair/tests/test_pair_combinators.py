"""Losses around another: a memory of earlier batches, both directions, several widths."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar.errors import ArgumentError, InputError, NearfarWarning, RecipeError
from nearfar.nn.distances import Cosine
from nearfar.testing.waiting import waits
from nearfar_pair.combinators.cross_batch_memory import CrossBatchMemory
from nearfar_pair.combinators.matryoshka import Matryoshka
from nearfar_pair.combinators.symmetric import Symmetric
from nearfar_pair.losses.info_nce import InfoNCE
from nearfar_pair.losses.sup_con import SupCon
from nearfar_pair.losses.triplet import Triplet
from nearfar_pair.miners.semihard import SemiHard

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def batch(seed: int, dim: int = 5) -> Tensor:
    return torch.randn(len(LABELS), dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- cross_batch_memory


def test_the_memory_holds_the_latest_batches_and_is_compared_with_before_the_batch_goes_in() -> None:
    loss, plain = CrossBatchMemory(Triplet(), size=15), Triplet()
    seen: list[Tensor] = []
    for step in range(5):
        x = batch(step)
        expected = plain(x, LABELS)
        if seen:
            memory, labels = torch.cat(seen)[-15:], LABELS.repeat(len(seen))[-15:]
            expected = expected + plain(x, LABELS, ref_emb=memory, ref_labels=labels)
        torch.testing.assert_close(loss(x, LABELS), expected, rtol=1e-12, atol=0)
        seen.append(x)


@pytest.mark.parametrize("size", [1, 4, 6])
def test_a_memory_no_larger_than_a_batch_keeps_its_last(size: int) -> None:
    loss = CrossBatchMemory(Triplet(), size=size)
    for step in range(3):
        loss(batch(step), LABELS)
    assert {tuple(row) for row in loss.memory.tolist()} == {tuple(row) for row in batch(2)[-size:].tolist()}


def test_a_batch_has_the_gradient_of_both_parts_and_the_memory_none() -> None:
    loss, plain = CrossBatchMemory(SupCon(), size=6, weight=0.5), SupCon()
    first = batch(0).requires_grad_()
    loss(first, LABELS)
    x = batch(1).requires_grad_()
    (found,) = torch.autograd.grad(loss(x, LABELS), x)
    value = plain(x, LABELS) + 0.5 * plain(x, LABELS, ref_emb=first.detach(), ref_labels=LABELS)
    torch.testing.assert_close(found, torch.autograd.grad(value, x)[0], rtol=1e-12, atol=1e-15)


def test_a_miner_inside_selects_from_the_memory() -> None:
    compositions = (
        "cross_batch_memory(triplet(miner=semihard), size=12)",
        "cross_batch_memory(triplet, 12, miner=semihard)",
    )
    criteria = [nearfar.compose(each) for each in compositions]
    plain, miner = Triplet(), SemiHard(margin=0.2)
    for criterion in criteria:
        criterion(batch(0), LABELS)
        x, memory = batch(1), batch(0)
        expected = plain(x, LABELS, miner(x, LABELS))
        expected = expected + plain(x, LABELS, miner(x, LABELS, memory, LABELS), ref_emb=memory, ref_labels=LABELS)
        torch.testing.assert_close(criterion(x, LABELS), expected, rtol=1e-12, atol=0)


def test_a_choice_from_outside_is_about_the_batch_whatever_the_memory_holds() -> None:
    loss, plain = CrossBatchMemory(Triplet(), size=12), Triplet()
    chosen = tuple(torch.tensor([i]) for i in (0, 1, 4))
    for step in range(4):
        x = batch(step)
        expected = plain(x, LABELS, chosen)
        if step:
            memory = torch.cat([batch(earlier) for earlier in range(max(0, step - 2), step)])
            labels = LABELS.repeat(len(memory) // len(LABELS))
            expected = expected + plain(x, LABELS, ref_emb=memory, ref_labels=labels)
        torch.testing.assert_close(loss(x, LABELS, chosen), expected, rtol=1e-12, atol=0)


def test_nothing_is_compared_with_itself() -> None:
    loss = CrossBatchMemory(Triplet(margin=0.5), size=100)
    x = torch.eye(6, dtype=torch.float64)  # every pair at one distance: each triplet costs the margin
    assert float(loss(x, LABELS)) == pytest.approx(0.5, rel=1e-12)
    assert len(loss.memory) == 6


def test_a_resumed_memory_goes_on_where_it_was() -> None:
    one = CrossBatchMemory(SupCon(), size=8, warm_up=2)
    for step in range(3):
        one(batch(step), LABELS)
    other = CrossBatchMemory(SupCon(), size=8, warm_up=2)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for step in range(3, 7):
        assert torch.equal(one(batch(step), LABELS), other(batch(step), LABELS))


def test_a_gpu_is_waited_for_to_count_the_steps_of_the_warm_up_alone() -> None:
    cold, warm = CrossBatchMemory(SupCon(), size=8), CrossBatchMemory(SupCon(), size=8, warm_up=2)
    early = copy.deepcopy(warm.state_dict())
    for step in range(5):
        plain, counted = (waits(lambda of=of, step=step: of(batch(step), LABELS)) for of in (cold, warm))
    assert len(counted) == len(plain)
    warm.load_state_dict(early)
    warm(batch(3), LABELS)
    alone = SupCon()(batch(4), LABELS)
    assert torch.equal(warm(batch(4), LABELS), alone), "a state of the warm-up warms up again"


def test_the_oldest_goes_first_also_where_a_memory_goes_on_at_a_larger_size() -> None:
    one, other = CrossBatchMemory(SupCon(), size=8), CrossBatchMemory(SupCon(), size=12)
    for step in range(3):
        one(batch(step), LABELS)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    other(batch(3), LABELS)
    latest = {tuple(row) for row in torch.cat([batch(step) for step in range(4)])[-12:].tolist()}
    assert {tuple(row) for row in other.memory.tolist()} == latest


def test_a_state_that_is_larger_than_the_memory_is_refused() -> None:
    one, other = CrossBatchMemory(SupCon(), size=8), CrossBatchMemory(SupCon(), size=4)
    one(batch(0), LABELS)
    with pytest.raises(RuntimeError, match="memory holds 6 embeddings, and there is room for 4"):
        other.load_state_dict(one.state_dict())


def test_the_memory_waits_for_so_many_steps_of_the_optimizer() -> None:
    model = torch.nn.Linear(5, 5).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    criterion = nearfar.compose("cross_batch_memory(triplet, size=64, warm_up=2)")
    criterion.follow(optimizer)
    plain = Triplet()
    for step in range(4):
        for accumulated in range(2):
            x = batch(2 * step + accumulated)
            alone = torch.equal(criterion(x, LABELS), plain(x, LABELS))
            assert alone == (step < 2)
        optimizer.step()


def test_evaluation_leaves_the_memory_as_it_is() -> None:
    loss = CrossBatchMemory(Triplet(), size=12)
    loss(batch(0), LABELS)
    before = copy.deepcopy(loss.state_dict())
    loss.eval()(batch(1), LABELS)
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())


def test_what_is_not_finite_is_not_remembered() -> None:
    loss = CrossBatchMemory(SupCon(), size=12)
    x = batch(0)
    x[2, 1] = torch.nan
    assert loss(x, LABELS).isnan()
    assert len(loss.memory) == 5
    assert loss(batch(1), LABELS).isfinite()


def test_a_foreign_loss_has_a_memory_too() -> None:
    with pytest.warns(NearfarWarning):
        criterion = nearfar.compose("cross_batch_memory(pml.contrastive_loss, size=12)")
    with pytest.warns(NearfarWarning):
        plain = nearfar.create_loss("pml.contrastive_loss")
    criterion(batch(0), LABELS)
    expected = plain(batch(1), LABELS) + plain(batch(1), LABELS, ref_emb=batch(0), ref_labels=LABELS.clone())
    torch.testing.assert_close(criterion(batch(1), LABELS), expected)


@pytest.mark.parametrize("inner", ["proxy_anchor", "margin.arcface", "gather(matryoshka(softmax, dims=[2]))"])
def test_a_loss_without_a_reference_set_is_refused_by_its_spec(inner: str) -> None:
    with pytest.raises(RecipeError, match="takes none"):
        nearfar.compose(f"cross_batch_memory({inner}, size=8)", num_classes=3, embedding_size=5)


def test_a_loss_on_other_inputs_is_refused() -> None:
    with pytest.raises(RecipeError, match="around losses on embeddings, and focal takes logits, targets"):
        nearfar.compose("gather(focal)")


def test_two_miners_are_refused() -> None:
    with pytest.raises(ArgumentError, match="one place only"):
        nearfar.compose("cross_batch_memory(triplet(miner=hard), size=8, miner=semihard)")


def test_a_reducer_goes_inside() -> None:
    with pytest.raises(RecipeError, match="reduces itself"):
        nearfar.compose("cross_batch_memory(triplet, size=8)", reducer="sum")
    with pytest.raises(InputError, match="not reduced"):
        nearfar.compose("cross_batch_memory(triplet(reducer=none), size=8)")(batch(0), LABELS)


def test_another_embedding_size_than_the_memorys_is_said() -> None:
    loss = CrossBatchMemory(Triplet(), size=8)
    loss(batch(0), LABELS)
    with pytest.raises(InputError, match="memory holds embeddings of size 5"):
        loss(batch(0, dim=4), LABELS)


# ---- symmetric


def test_both_directions_count_alike() -> None:
    a, b = batch(0), batch(1)
    loss = InfoNCE(temperature=0.2)
    rows = torch.arange(len(a))
    logits = torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(b).T / 0.2
    expected = (torch.nn.functional.cross_entropy(logits, rows) + torch.nn.functional.cross_entropy(logits.T, rows)) / 2
    torch.testing.assert_close(Symmetric(loss)(a, ref_emb=b), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(Symmetric(loss)(b, ref_emb=a), expected, rtol=1e-12, atol=0)


def test_two_towers_of_one_output_are_still_two() -> None:
    a = batch(0)
    assert torch.equal(Symmetric(InfoNCE())(a, ref_emb=a), Symmetric(InfoNCE())(a, ref_emb=a.clone()))


def test_a_foreign_loss_keeps_its_own_pairs() -> None:
    """Theirs take one tensor of labels on both sides for a batch compared with itself."""
    with pytest.warns(NearfarWarning):
        criterion = nearfar.compose("symmetric(pml.nt_xent_loss(temperature=0.1))")
    ours = Symmetric(InfoNCE(temperature=0.1))
    rows = torch.arange(6)
    found = criterion(batch(0), rows, ref_emb=batch(1), ref_labels=rows)
    torch.testing.assert_close(found, ours(batch(0), ref_emb=batch(1)))


def test_a_temperature_learns_from_both_directions() -> None:
    criterion = nearfar.compose("symmetric(info_nce(learned=True))").double()
    criterion(batch(0), LABELS, ref_emb=batch(1), ref_labels=LABELS).backward()
    (scale,) = criterion.parameters()
    assert scale.grad is not None
    assert scale.grad.abs() > 0


def test_symmetric_asks_for_both_sides() -> None:
    loss = Symmetric(InfoNCE())
    with pytest.raises(InputError, match="give the second as ref_emb"):
        loss(batch(0), LABELS)
    with pytest.raises(InputError, match="together, or neither"):
        loss(batch(0), LABELS, ref_emb=batch(1))
    with pytest.raises(InputError, match="row i belongs with row i; got 6 embeddings and 4"):
        loss(batch(0), ref_emb=batch(1)[:4])


# ---- matryoshka


def test_the_first_dimensions_are_embeddings_too() -> None:
    x, plain = batch(0), Triplet()
    expected = 2 * plain(x[:, :2], LABELS) + 0.5 * plain(x, LABELS)
    torch.testing.assert_close(Matryoshka(Triplet(), [2, 5], [2, 0.5])(x, LABELS), expected, rtol=1e-12, atol=0)
    mined = nearfar.compose("matryoshka(triplet(distance=cosine), dims=[2, 5], miner=batch_hard)")
    miner, loss = nearfar.create_miner("batch_hard", distance=Cosine()), Triplet(distance=Cosine())
    expected = loss(x[:, :2], LABELS, miner(x[:, :2], LABELS)) + loss(x, LABELS, miner(x, LABELS))
    torch.testing.assert_close(mined(x, LABELS), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["softmax", "arcface", "proxy_nca", "subcenter_arcface", "adaface"])
def test_each_width_has_class_weights_of_its_own_that_start_as_the_first_dimensions(name: str) -> None:
    torch.manual_seed(0)
    inner = nearfar.create_loss(name, num_classes=3, embedding_size=5).double()
    with torch.no_grad():
        inner.weight.normal_()
    loss = Matryoshka(copy.deepcopy(inner), [2, 5])
    narrow = nearfar.create_loss(name, num_classes=3, embedding_size=2).double()
    state = {n: v[..., :2] if v.ndim > 1 else v for n, v in inner.state_dict().items()}
    narrow.load_state_dict(state)
    x = batch(0)
    torch.testing.assert_close(loss(x, LABELS), narrow(x[:, :2], LABELS) + inner(x, LABELS), rtol=1e-12, atol=0)
    assert len(list(loss.parameters())) == 2 * len(list(inner.parameters()))


def test_the_batch_given_as_its_own_reference_is_the_batch_at_each_width() -> None:
    loss, x = Matryoshka(SupCon(), [2, 5]), batch(0)
    assert torch.equal(loss(x, LABELS, ref_emb=x, ref_labels=LABELS), loss(x, LABELS))


@pytest.mark.parametrize("recipe", ["matryoshka({}, dims=[2, 5])", "gather(matryoshka({}, dims=[2, 5]))"])
def test_a_schedule_moves_the_copy_of_each_width(recipe: str) -> None:
    criterion = nearfar.compose(recipe.format("triplet(margin=linear(0, 0.4, steps=4))"))
    for step in range(5):
        margins = {part.margin for part in criterion.modules() if isinstance(part, Triplet)}
        assert list(margins) == [pytest.approx(0.1 * step)]
        criterion(batch(step), LABELS)


def test_widths_are_checked() -> None:
    for dims, said in (([], "list of widths"), ([0], "at least 1"), ([2, 2], "twice"), ("24", "list of widths")):
        with pytest.raises(ArgumentError, match=said):
            Matryoshka(Triplet(), dims)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="2 dims and 1 weights"):
        Matryoshka(Triplet(), [2, 4], [1])
    with pytest.raises(ArgumentError, match="dims has 8, and ArcFace has embedding_size=5"):
        nearfar.compose("matryoshka(arcface, dims=[8])", num_classes=3, embedding_size=5)
    with pytest.raises(InputError, match="looks at 8 dimensions"):
        Matryoshka(Triplet(), [8])(batch(0), LABELS)
