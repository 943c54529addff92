"""The laws of cost catch what is wrong with it, and what measures it measures what it says."""

from __future__ import annotations

import gc

import pytest
import torch

from kit.sound import (
    SOUND_BOX_LOSS,
    SOUND_DISTANCE,
    SOUND_LOSS,
    SOUND_MINER,
    SOUND_REDUCER,
    SPECS,
    SoundBoxLoss,
    SoundDistance,
    SoundLoss,
    SoundMiner,
    SoundReducer,
    broken_laws,
)
from nearfar.discovery import Selector, discover
from nearfar.nn.terms import element_terms
from nearfar.registry import Registry
from nearfar.testing.check import Check
from nearfar.testing.law import LAWS
from nearfar.testing.laws.cost import Growth
from nearfar.testing.meter import allocations, left_in_cycles, peak_bytes, readable
from nearfar.testing.subject import Subject
from nearfar.testing.waiting import waits


def result(law, kind, target, spec, **changed):
    registry = Registry(discover(selector=Selector(allow=frozenset({"core", "pml"}))))
    entry = registry.register(SPECS[kind](**{**spec, **changed}), target)
    return Check(Subject(entry, registry), LAWS[law]).run()


# ---- memory


class EveryBoxWithEvery(SoundBoxLoss):
    def terms(self, *inputs):
        found = super().terms(*inputs)
        prediction, target = inputs
        return element_terms(found.values + 0 * (prediction[:, None] - target).sum())


def test_a_matrix_where_a_vector_was_declared_is_found():
    found = broken_laws("loss", EveryBoxWithEvery, SOUND_BOX_LOSS)
    assert set(found) == {"memory"}
    assert "memory=1" in found["memory"]
    assert "power 2.0" in found["memory"]
    assert "at test_laws_cost.py:" in found["memory"]  # who allocates


@pytest.mark.parametrize("declared", [1, 2, 4])
def test_any_power_but_the_measured_one_is_refused(declared):
    assert set(broken_laws("loss", SoundLoss, SOUND_LOSS, memory=declared)) == {"memory"}


class InBlocks(SoundBoxLoss):
    # Up to 256 boxes, the first that keep a megabyte, the memory grows with their square.
    def terms(self, *inputs):
        for prediction, target in zip(*(x.detach().split(256) for x in inputs), strict=True):
            (prediction[:, None] - target).abs().sum()
        return super().terms(*inputs)


def test_work_in_blocks_is_judged_at_batches_of_many_blocks():
    assert result("memory", "loss", InBlocks, SOUND_BOX_LOSS).status == "passed"
    assert result("memory", "loss", InBlocks, SOUND_BOX_LOSS, memory=3).status == "failed"


def test_where_time_ends_as_the_way_of_working_changes_the_declared_power_stands():
    rows = [12 * 2**k for k in range(5)]
    whole_then_blocks = Growth(dict(zip(rows, [10, 40, 160, 640, 1300], strict=True)))
    assert not whole_then_blocks.agrees(2)
    assert whole_then_blocks.may_agree(2)
    assert not whole_then_blocks.may_agree(0)
    linear = Growth(dict(zip(rows, [10, 20, 40, 80, 160], strict=True)))
    assert not linear.may_agree(2)


def test_what_is_not_declared_is_measured_and_said():
    found = result("memory", "loss", SoundLoss, SOUND_LOSS, memory=None)
    assert found.status == "skipped"
    assert "grows with the power 3." in found.reason


@pytest.mark.parametrize(
    ("kind", "target", "spec", "memory", "synchronizations"),
    [
        ("miner", SoundMiner, SOUND_MINER, 2, 1),
        ("reducer", SoundReducer, SOUND_REDUCER, 1, 0),
        ("distance", SoundDistance, SOUND_DISTANCE, 2, 0),
    ],
)
def test_every_kind_is_measured(kind, target, spec, memory, synchronizations):
    assert result("memory", kind, target, spec, memory=memory).status == "passed"
    assert result("memory", kind, target, spec, memory=memory + 1).status == "failed"
    assert result("synchronizations", kind, target, spec, synchronizations=synchronizations).status == "passed"
    assert result("synchronizations", kind, target, spec, synchronizations=synchronizations + 1).status == "failed"


class InTwelves(SoundBoxLoss):
    def terms(self, *inputs):
        assert len(inputs[0]) == 12, "twelve at a time"
        return super().terms(*inputs)


def test_a_part_that_takes_no_such_batch_is_not_measured():
    found = result("memory", "loss", InTwelves, SOUND_BOX_LOSS)
    assert found.status == "skipped"
    assert "a batch of 24 rows does not run: AssertionError: twelve at a time" in found.reason


def test_the_peak_is_the_most_that_is_kept_at_once():
    def call():
        first = torch.empty(1000)
        del first
        second, third = torch.empty(500), torch.empty(250, dtype=torch.float64)
        return second, third

    assert peak_bytes(call) == 4000
    assert peak_bytes(lambda: (torch.empty(1000), torch.empty(1000))) == 8000
    assert peak_bytes(lambda: None) == 0


def test_what_an_operator_needs_while_it_runs_counts_too():
    # A selection by mask makes the indices first, 8 bytes each, and half of the values.
    x, mask = torch.randn(4096), torch.arange(4096) % 2 == 0
    assert peak_bytes(lambda: x[mask]) >= 2048 * (8 + 4)


def test_the_profiler_says_nothing_on_the_terminal(capfd):
    peak_bytes(lambda: torch.empty(10))
    assert capfd.readouterr() == ("", "")


def test_allocations_come_by_line_the_largest_first():
    def call():
        torch.zeros(10)
        x = torch.zeros(1000)
        return x.view(10, 100), x + 1

    first, second, third = allocations(call)
    assert [first.bytes, second.bytes, third.bytes] == [4000, 4000, 40]
    assert str(third).startswith("40 bytes by aten.zeros at test_laws_cost.py:")


@pytest.mark.parametrize(("size", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e9, "2.5 GB")])
def test_sizes_are_readable(size, said):
    assert readable(size) == said


# ---- waiting


class ReadsTheMean(SoundBoxLoss):
    def terms(self, *inputs):
        found = super().terms(*inputs)
        self.mean = found.values.mean().item()
        return found


def test_a_number_read_from_the_device_is_found():
    found = broken_laws("loss", ReadsTheMean, SOUND_BOX_LOSS, synchronizations=0)
    assert set(found) == {"synchronizations"}
    assert "waited for once: aten._local_scalar_dense at test_laws_cost.py:" in found["synchronizations"]


def test_declaring_a_wait_that_is_none_is_refused():
    found = broken_laws("loss", SoundBoxLoss, SOUND_BOX_LOSS, synchronizations=1)
    assert set(found) == {"synchronizations"}
    assert "waited for never" in found["synchronizations"]


class ReadsEach(SoundBoxLoss):
    def terms(self, *inputs):
        found = super().terms(*inputs)
        self.seen = [float(value) for value in found.values]
        return found


def test_waits_that_grow_with_the_batch_are_no_number():
    found = result("synchronizations", "loss", ReadsEach, SOUND_BOX_LOSS, synchronizations=12)
    assert found.status == "failed"
    assert "12 times for 12 rows and 24 for twice as many" in found.reason


class ChecksOnTheCPU(SoundBoxLoss):
    def terms(self, *inputs):
        for x in inputs:
            if x.device.type == "cpu" or not x.is_cuda:
                assert bool(x.isfinite().all())
        return super().terms(*inputs)


def test_what_is_looked_at_on_the_cpu_alone_does_not_count():
    assert result("synchronizations", "loss", ChecksOnTheCPU, SOUND_BOX_LOSS, synchronizations=0).status == "passed"


X = torch.arange(6.0)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(lambda: X + 1, 0, id="arithmetic"),
        pytest.param(lambda: float(X.sum()), 1, id="float"),
        pytest.param(lambda: bool((X > 0).any()), 1, id="bool"),
        pytest.param(lambda: X.max().item(), 1, id="item"),
        pytest.param(lambda: X.tolist(), 1, id="tolist"),
        pytest.param(lambda: X.cpu().numpy(), 1, id="numpy"),
        pytest.param(lambda: X.to("cpu").tolist(), 1, id="to the CPU"),
        pytest.param(lambda: torch.where(X > 2), 1, id="where"),
        pytest.param(lambda: torch.where(X > 2, X, 0), 0, id="where, of three"),
        pytest.param(lambda: X[X > 2], 1, id="mask"),
        pytest.param(lambda: X[torch.tensor([0, 1], device=X.device)], 1, id="index from a list"),
        pytest.param(lambda: X[X.long()], 0, id="index"),
        pytest.param(lambda: X.clone().index_put_((X > 2,), torch.tensor(1.0)), 0, id="mask filled"),
        pytest.param(lambda: X.masked_fill(X > 2, 0), 0, id="masked_fill"),
        pytest.param(lambda: X.masked_select(X > 2), 1, id="masked_select"),
        pytest.param(lambda: X.unique(), 1, id="unique"),
        pytest.param(lambda: torch.equal(X, X), 1, id="equal"),
        pytest.param(lambda: X.long().bincount(), 2, id="bincount"),
        pytest.param(lambda: X.repeat_interleave(2), 0, id="repeat_interleave"),
        pytest.param(lambda: X.repeat_interleave(X.long()), 1, id="repeat_interleave by a tensor"),
        pytest.param(lambda: X.repeat_interleave(X.long(), output_size=15), 0, id="repeat_interleave to a size"),
        pytest.param(lambda: torch.zeros(3, device=X.device) + X[:3], 0, id="made on the device"),
        pytest.param(lambda: torch.tensor([1.0, 2.0], device=X.device), 1, id="numbers sent there"),
        pytest.param(lambda: torch.tensor(data=[1.0, 2.0], device=X.device), 1, id="numbers sent by keyword"),
        pytest.param(lambda: torch.tensor([1.0, 2.0]).to(X.device), 1, id="numbers sent later"),
        pytest.param(lambda: torch.tensor([1.0, 2.0]).to(X), 1, id="numbers sent after another"),
        pytest.param(lambda: X.to(X), 0, id="sent where it is"),
        pytest.param(lambda: X.to(X.device, torch.float64), 0, id="cast where it is"),
        pytest.param(lambda: torch.as_tensor(X, device=X.device), 0, id="a tensor as a tensor"),
        pytest.param(lambda: X.new_tensor([1.0, 2.0]), 1, id="numbers like others"),
        pytest.param(lambda: torch.tensor([1.0, 2.0]).tolist(), 0, id="numbers that never left"),
        pytest.param(lambda: X.cpu().cpu().tolist(), 1, id="taken to the CPU once"),
        pytest.param(lambda: torch.tensor(1.0).item(), 1, id="a number from the CPU counts, for want of knowing"),
    ],
)
def test_what_waits(call, expected):
    assert len(waits(call)) == expected


def test_waits_of_a_backward_pass_count():
    x = torch.ones(4, requires_grad=True)
    assert len(waits(lambda: x[x > 0].sum().backward())) == 2
    assert waits(lambda: x[x > 0].sum().backward())[1] == "aten.index_put in the backward pass"


def test_what_needs_a_real_gpu_is_counted_as_it_runs_on_the_cpu():
    def call():
        if X.is_cuda:
            torch.empty(1, device=X.device).cuda(1).record_stream(None)
        return X.max().item()

    assert len(waits(call)) == 1


def test_it_is_where_it_was_afterwards():
    waits(lambda: X.sum())
    assert X.device.type == "cpu"
    assert not X.is_cuda


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none")
def test_a_gpu_says_the_same():
    from nearfar.testing.waiting import waits_on_a_gpu

    x = torch.arange(6.0, device="cuda")
    assert waits_on_a_gpu(lambda: x.sum().item()) == 1
    assert waits_on_a_gpu(lambda: x + 1) == 0
    assert peak_bytes(lambda: torch.empty(2**20, device="cuda"), "cuda") >= 2**22


# ---- freed


class KeptInACircle(SoundBoxLoss):
    def terms(self, *inputs):
        found = super().terms(*inputs)
        found.itself = found
        return found


def test_what_only_the_cycle_collector_would_free_is_found():
    found = result("freed", "loss", KeptInACircle, SOUND_BOX_LOSS)
    assert found.status == "failed"
    assert "of a call on 12 rows: (12,) float64" in found.reason
    assert result("freed", "loss", SoundBoxLoss, SOUND_BOX_LOSS).status == "passed"


def test_what_was_garbage_before_a_call_is_not_its():
    circle = [torch.empty(1)]
    circle.append(circle)
    del circle
    assert left_in_cycles(lambda: torch.empty(3)) == []
    assert gc.garbage == []
