"""The compiled tier: the same results as torch's, in every case it takes, and torch in every other."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import ops

import nearfar
from nearfar.nn import Terms
from nearfar.nn.compiled import eager_only
from nearfar.nn.reducers import AvgNonZero, Mean, NoReduction, Reducer, Sum
from nearfar_iou.alpha_iou import AlphaIoU
from nearfar_iou.bounded_iou import BoundedIoU
from nearfar_iou.box_loss import BoxLoss
from nearfar_iou.ciou import CIoU
from nearfar_iou.compiled import passes, tier
from nearfar_iou.compiled.passes import CompiledTerms
from nearfar_iou.diou import DIoU
from nearfar_iou.eiou import EIoU
from nearfar_iou.focal_iou import FocalIoU
from nearfar_iou.giou import GIoU
from nearfar_iou.inner_iou import InnerIoU
from nearfar_iou.iou import IoU
from nearfar_iou.mpdiou import MPDIoU
from nearfar_iou.siou import SIoU
from nearfar_iou.wiou import WIoU

pytest.importorskip("numba", reason="the compiled tier needs numba: pip install nearfar-iou[fast]")

LOSSES: dict[str, Callable[..., BoxLoss]] = {
    "iou": lambda **kw: IoU("linear", **kw),
    "iou_log": lambda **kw: IoU("log", **kw),
    "iou_square": lambda **kw: IoU("square", **kw),
    "giou": GIoU,
    "diou": DIoU,
    "ciou": CIoU,
    "ciou_gated": lambda **kw: CIoU(alpha_gate=0.5, **kw),
    "ciou_unit": lambda **kw: CIoU("unit", **kw),
    "eiou": EIoU,
    "siou": SIoU,
    "mpdiou": lambda **kw: MPDIoU((30, 40), **kw),
    "bounded_iou": BoundedIoU,
    "wiou_v1": lambda **kw: WIoU("v1", **kw),
    "wiou_v3": lambda **kw: WIoU(**kw).eval(),
    "alpha": lambda box_format="xyxy", **kw: AlphaIoU(CIoU(box_format=box_format), **kw),
    "focal": lambda box_format="xyxy", **kw: FocalIoU(EIoU(box_format=box_format), **kw),
    "inner": lambda box_format="xyxy", **kw: InnerIoU(GIoU(box_format=box_format), **kw),
}
every_loss = pytest.mark.parametrize("kind", LOSSES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
EACH = NoReduction()


def boxes(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pairs of every sort: apart, overlapping, tied, thin, points, inverted, equal, nearly equal, vast and minute."""
    random = torch.Generator().manual_seed(0)

    def proper(n: int) -> Tensor:
        corner = 10 * torch.rand(n, 2, generator=random, dtype=torch.float64)
        return torch.cat((corner, corner + 0.1 + 8 * torch.rand(n, 2, generator=random, dtype=torch.float64)), 1)

    grid = torch.randint(-3, 4, (600, 8), generator=random).double()
    pred, target = proper(300), proper(300)
    near = target + 1e-3 * torch.randn(300, 4, generator=random, dtype=torch.float64)
    preds = torch.cat((pred, grid[:, :4], target, near, pred * 1e15, pred * 1e-12, torch.zeros(1, 4)))
    targets = torch.cat((target, grid[:, 4:], target, target, target * 1e15, target * 1e-12, torch.zeros(1, 4)))
    return preds.to(dtype), targets.to(dtype)


def value_and_gradients(loss: nn.Module, pred: Tensor, target: Tensor, *more: Any) -> tuple[Tensor, Tensor, Tensor]:
    pred, target = pred.clone().requires_grad_(), target.clone().requires_grad_()
    value = loss(pred, target, *more)
    return value.detach(), *torch.autograd.grad(value.sum(), (pred, target))


def by_torch(loss: nn.Module, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    with eager_only():
        return value_and_gradients(loss, *inputs)


def assert_same_gradients(
    found: Tensor, expected: Tensor, pred: Tensor, target: Tensor, tolerance: float, steep: bool = False
) -> None:
    """To a share of the greatest of the four, or of what cancels: terms of 1 / side and, where ``steep``, of side."""
    size = torch.maximum(pred.abs().amax(1), target.abs().amax(1)).clamp_min(torch.finfo(pred.dtype).tiny)
    scale = torch.maximum(expected.abs().amax(1), 1 / size + steep * size)
    assert ((found - expected).abs().amax(1) <= tolerance * scale).all()


def is_compiled(terms: Any) -> bool:
    return isinstance(terms, CompiledTerms)


@every_loss
@every_dtype
def test_values_and_gradients_are_those_of_torch(kind: str, dtype: torch.dtype) -> None:
    pred, target = boxes(dtype)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-12
    for box_format in ("xyxy", "xywh", "cxcywh", "ltrb"):
        loss = LOSSES[kind](reducer=EACH, box_format=box_format)
        assert is_compiled(loss.terms(pred, target))
        value, *gradients = value_and_gradients(loss, pred, target)
        expected, *expected_gradients = by_torch(loss, pred, target)
        assert value.dtype == dtype
        torch.testing.assert_close(value, expected, rtol=tolerance / 2, atol=tolerance / 2)
        for found, wanted in zip(gradients, expected_gradients, strict=True):
            assert_same_gradients(found, wanted, pred, target, tolerance, kind == "ciou_unit")


@every_loss
@every_dtype
def test_a_perfect_prediction_costs_exactly_nothing(kind: str, dtype: torch.dtype) -> None:
    sides = torch.tensor([10.0**e for e in range(-4, 5)] + [0.0, 0.3, 49.0, 300.0, 640.0])
    w, h = (grid.flatten() for grid in torch.meshgrid(sides, sides, indexing="ij"))
    for corner in (0.0, -3.7, 0.123, 5000.0):
        start = torch.full_like(w, corner)
        same = torch.stack((start, start, start + w, start + h), 1).to(dtype)
        value, by_pred, by_target = value_and_gradients(LOSSES[kind](reducer=EACH), same, same)
        for found in (value, by_pred, by_target):
            assert torch.equal(found, torch.zeros_like(found))


@every_loss
def test_no_box_makes_a_loss_negative_or_infinite(kind: str) -> None:
    for dtype in (torch.float32, torch.float64):
        pred, target = boxes(dtype)
        value, by_pred, by_target = value_and_gradients(LOSSES[kind](reducer=EACH), pred, target)
        assert (value >= 0).all()
        assert all(found.isfinite().all() for found in (value, by_pred, by_target))


@pytest.mark.parametrize("kind", ["giou", "iou_log", "siou"])
def test_what_is_not_a_number_stays_none(kind: str) -> None:
    pred, target = boxes(torch.float32)
    pred, target = pred[:40].clone(), target[:40].clone()
    for i in range(8):
        (pred if i < 4 else target)[i, i % 4] = float("nan")
    value, by_pred, by_target = value_and_gradients(LOSSES[kind](reducer=EACH), pred, target)
    assert value.isnan().tolist() == [i < 8 for i in range(40)]
    for gradient in (by_pred, by_target):
        assert gradient.isnan().any(1).tolist() == [i < 8 for i in range(40)]


def test_the_arctangent_is_as_exact_as_its_type() -> None:
    from nearfar_iou.compiled.scalars import arctan  # it is numba's, which another test has to be missing

    random = torch.Generator().manual_seed(0)
    y = torch.cat((10.0 ** (40 * torch.rand(2000, generator=random, dtype=torch.float64) - 20), torch.zeros(1)))
    x = torch.cat((torch.ones(2000, dtype=torch.float64), torch.ones(1)))
    for sign in (1, -1):
        found = [arctan(sign * a, b, float) for a, b in zip(y.tolist(), x.tolist(), strict=True)]
        torch.testing.assert_close(
            torch.tensor(found, dtype=torch.float64), torch.atan2(sign * y, x), rtol=4e-16, atol=0
        )
    assert arctan(1.0, 0.0, float) == pytest.approx(torch.pi / 2, rel=1e-16)


@pytest.mark.parametrize(("wanted", "weighted"), [("pred", False), ("target", True), ("both", True), ("none", False)])
@pytest.mark.parametrize("reducer", [Mean(), Sum(), AvgNonZero(), EACH], ids=lambda each: type(each).__name__)
def test_whatever_is_asked_for_is_what_torch_has(wanted: str, weighted: bool, reducer: Reducer) -> None:
    pred, target = boxes(torch.float32)
    weights = torch.rand(len(pred), generator=torch.Generator().manual_seed(1)) - 0.2 if weighted else None
    loss = GIoU(reducer=reducer)
    found = []
    for context in (None, eager_only()):
        p, t = pred.clone(), target.clone()
        inputs = [box.requires_grad_() for box, name in ((p, "pred"), (t, "target")) if wanted in (name, "both")]
        if context is None:
            value = loss(p, t, weights)
        else:
            with context:
                value = loss(p, t, weights)
        assert value.requires_grad == bool(inputs)
        found.append((value.detach(), *(torch.autograd.grad(value.sum(), inputs) if inputs else ())))
    for ours, theirs in zip(*found, strict=True):
        if ours.ndim == 2:
            assert_same_gradients(ours, theirs, pred, target, 2e-6)
        else:
            torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=1e-6)


def test_the_sum_of_a_million_is_that_of_float64() -> None:
    pred, target = (boxes(torch.float32)[i].repeat(800, 1) for i in (0, 1))
    with eager_only():
        exact = GIoU(reducer=EACH)(pred, target).double().sum()
    assert GIoU(reducer=Sum())(pred, target).item() == pytest.approx(exact.item(), rel=1e-7)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_threads_change_nothing_but_who_computes_what(monkeypatch: pytest.MonkeyPatch) -> None:
    pred, target = boxes(torch.float32)
    weights = torch.rand(len(pred), generator=torch.Generator().manual_seed(1))
    loss = GIoU(reducer=EACH)
    alone = value_and_gradients(loss, pred, target, weights)
    taken: list[int] = []
    kernels = tier.kernels()

    def watched(*variant: Any) -> Callable[..., float]:
        def kernel(*arguments: Any) -> float:
            taken.append(threading.get_ident())
            return kernels.compiled(*variant)(*arguments)

        return kernel

    monkeypatch.setattr(passes, "PIECE", 100)
    monkeypatch.setattr(passes, "kernels", lambda: type("Watched", (), {"compiled": staticmethod(watched)}))
    together = value_and_gradients(loss, pred, target, weights)
    assert len(taken) == 2
    assert len(set(taken)) == 2
    for found, expected in zip(together, alone, strict=True):
        assert torch.equal(found, expected)
    total = GIoU(reducer=Sum())(pred, target, weights)
    assert total.item() == pytest.approx(alone[0].double().sum().item(), rel=1e-6)


def test_boxes_need_not_be_adjacent_in_memory() -> None:
    pred, target = (box[:200] for box in boxes(torch.float32))
    wide = torch.cat((pred, torch.zeros(200, 3)), 1).requires_grad_()
    one = target[:1].expand(200, 4)
    loss = GIoU(reducer=Sum())
    loss(wide[:, :4], one).backward()
    assert wide.grad is not None
    _, expected, _ = by_torch(loss, pred, one.clone())
    assert_same_gradients(wide.grad[:, :4], expected, pred, one, 2e-6)
    assert not wide.grad[:, 4:].any()


def test_no_boxes_cost_nothing_and_have_a_gradient() -> None:
    pred = torch.zeros(0, 4, requires_grad=True)
    for reducer in (Mean(), Sum()):
        value = GIoU(reducer=reducer)(pred, torch.zeros(0, 4))
        assert value.item() == 0
        (gradient,) = torch.autograd.grad(value, pred)
        assert gradient.shape == (0, 4)


def test_a_graph_that_is_kept_can_be_walked_again() -> None:
    pred, target = boxes(torch.float32)
    pred.requires_grad_()
    for reducer in (Mean(), EACH):
        value = GIoU(reducer=reducer)(pred, target)
        first = torch.autograd.grad(3 * value.sum(), pred, retain_graph=True)[0].clone()
        assert torch.equal(torch.autograd.grad(3 * value.sum(), pred)[0], first)


def test_a_second_derivative_is_refused() -> None:
    pred, target = boxes(torch.float32)
    value = GIoU()(pred.requires_grad_(), target)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, pred, create_graph=True)


def test_a_reducer_that_asks_for_all_sees_one_set_of_values() -> None:
    class Centred(Reducer):
        def reduce(self, terms: Terms) -> Tensor:
            return (terms.values - terms.sum().detach() / terms.count()).square().sum()

    pred, target = boxes(torch.float32)
    loss = GIoU(reducer=Centred())
    value, by_pred, _ = value_and_gradients(loss, pred, target)
    expected, expected_by_pred, _ = by_torch(loss, pred, target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(by_pred, expected_by_pred, rtol=1e-5, atol=1e-6)


def test_terms_say_where_they_come_from() -> None:
    pred, target = boxes(torch.float32)
    terms = GIoU().terms(pred, target)
    assert is_compiled(terms)
    assert terms.size == terms.count().item() == len(pred) == terms.num_anchors
    assert torch.equal(terms.indices[0], torch.arange(len(pred)))
    assert torch.equal(terms.sum_by_anchor(), terms.values)
    assert torch.equal(terms.count_by_anchor(), torch.ones(len(pred), dtype=torch.int64))


def test_half_precision_is_computed_in_float32() -> None:
    pred, target = (box[:300].half() for box in boxes(torch.float32))
    pred.requires_grad_()
    value = GIoU()(pred, target)
    value.backward()
    assert value.dtype == torch.float32
    assert pred.grad is not None
    assert pred.grad.dtype == torch.float16
    with torch.autocast("cpu", torch.bfloat16):
        assert GIoU()(pred, target) == value


class Watching(torch.utils._python_dispatch.TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Own(Tensor):
    """A tensor that may be more than its memory says."""


def test_torch_computes_what_a_kernel_cannot_read() -> None:
    pred, target = (box[:50] for box in boxes(torch.float32))
    loss = GIoU(reducer=EACH)
    assert is_compiled(loss.terms(pred, target))
    assert not is_compiled(loss.terms(pred.as_subclass(Own), target))
    assert not is_compiled(loss.terms(pred.to("meta"), target.to("meta")))
    negated = torch.complex(pred, pred).conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(loss(negated, target), loss(-pred, target))
    with Watching():
        assert not is_compiled(loss.terms(pred, target))
    assert not is_compiled(loss.terms(pred, target, torch.ones(50, requires_grad=True)))
    with eager_only():
        assert not is_compiled(loss.terms(pred, target))
    assert is_compiled(loss.terms(pred, target))


def test_weights_that_learn_get_their_gradient() -> None:
    pred, target = boxes(torch.float32)
    weights = torch.ones(len(pred), requires_grad=True)
    GIoU(reducer=Sum())(pred, target, weights).backward()
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, GIoU(reducer=EACH)(pred, target))


def test_a_loss_that_learns_from_its_boxes_is_computed_by_torch() -> None:
    pred, target = boxes(torch.float32)
    loss = WIoU()
    assert not is_compiled(loss.terms(pred, target))
    loss(pred, target)
    assert loss.running_mean != 1
    assert is_compiled(loss.eval().terms(pred, target))


def test_a_subclass_that_measures_otherwise_is_computed_as_it_says() -> None:
    class Doubled(GIoU):
        def penalties(self, pairs: Any, *, slopes: bool) -> Any:
            return 2 * super().penalties(pairs, slopes=slopes)

    pred, target = boxes(torch.float32)
    loss = Doubled(reducer=EACH)
    assert not is_compiled(loss.terms(pred, target))
    assert not is_compiled(FocalIoU(loss).terms(pred, target))
    assert loss(pred, target).sum() > GIoU(reducer=Sum())(pred, target)


def test_losses_round_losses_round_losses_are_computed_by_torch() -> None:
    pred, target = boxes(torch.float32)
    loss = FocalIoU(AlphaIoU(GIoU()), reducer=EACH)
    assert not is_compiled(loss.terms(pred, target))
    assert loss(pred, target).isfinite().all()


def test_what_cannot_be_compiled_is_computed_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        passes, "kernels", lambda: type("Broken", (), {"compiled": staticmethod(lambda *variant: None)})
    )
    pred, target = boxes(torch.float32)
    for reducer in (Mean(), EACH):
        loss = GIoU(reducer=reducer)
        weights = torch.linspace(0, 1, len(pred))
        for found, expected in zip(
            value_and_gradients(loss, pred, target, weights), by_torch(loss, pred, target, weights), strict=True
        ):
            assert torch.equal(found, expected)


def corners(boxes: Tensor) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(1)
    width, height = x2 - x1, y2 - y1
    return torch.stack((x1, y1, x2, y2, width, height, width * height, torch.atan2(width, height) * 2 / torch.pi))


THEIRS = {
    "iou": ops.box_iou,
    "giou": ops.generalized_box_iou,
    "diou": ops.distance_box_iou,
    "ciou": ops.complete_box_iou,
}


@pytest.mark.parametrize("formula", THEIRS)
@every_dtype
def test_a_table_of_similarities_is_torchvisions(formula: str, dtype: torch.dtype) -> None:
    from nearfar_iou.compiled.tables import table  # it needs numba, which other tests do without

    pred, target = (box[:300] for box in boxes(torch.float64))
    pred, target = torch.cat((pred, target[:100])).to(dtype), target.to(dtype)  # some are equal
    found = torch.full((400, 300), float("nan"), dtype=dtype)
    rows, columns = corners(pred), corners(target)
    fill = table(formula, dtype == torch.float64)
    assert fill is not None
    fill(rows.data_ptr(), columns.data_ptr(), found.data_ptr(), 400, 300)
    expected = THEIRS[formula](pred, target)
    if formula == "iou":  # so that what lies exactly at a threshold does so here
        assert torch.equal(found, expected)
    tolerance = 1e-6 if dtype == torch.float32 or formula != "iou" else 1e-12  # their 1e-7 in the denominators
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    if formula != "iou":  # what a box loses to itself is not theirs to say
        assert torch.equal(found[300:].diagonal(), torch.ones(100, dtype=dtype))


@pytest.mark.parametrize("name", THEIRS)
@every_dtype
def test_a_similarity_has_the_table_of_either_tier(name: str, dtype: torch.dtype, monkeypatch: Any) -> None:
    from nearfar_iou.compiled import tables

    filled = []
    kept = tables.table
    monkeypatch.setattr(tables, "table", lambda *variant: filled.append(variant) or kept(*variant))
    pred, target = (box[:300] for box in boxes(torch.float64))
    pred, target = torch.cat((pred, target[:100])).to(dtype), target.to(dtype)
    for box_format in ("xyxy", "cxcywh"):
        similarity = nearfar.create_distance(f"iou.{name}(box_format='{box_format}')")
        found = similarity(pred, target)
        with eager_only():
            expected = similarity(pred, target)
        assert torch.equal(found, expected) if name != "ciou" else torch.allclose(found, expected, rtol=0, atol=1e-6)
    proper = torch.cat((pred[:, :2], pred[:, :2] + 1 + pred[:, 2:].abs()), 1)
    before = len(filled)
    nearfar.create_distance(f"iou.{name}")(proper, proper)
    assert len(filled) == before + 1


def run(code: str, **environment: str) -> str:
    import os

    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOSS = "import torch; from nearfar_iou.giou import GIoU; pred = torch.rand(9, 4, requires_grad=True); "
STEP = "GIoU()(pred, torch.rand(9, 4)).backward(); from nearfar_iou.compiled import tier; "


def test_numba_is_imported_by_the_first_loss_and_nothing_else() -> None:
    code = f"import sys; {LOSS} before = 'numba' in sys.modules; {STEP} print(before, 'numba' in sys.modules)"
    assert run(code).split() == ["False", "True"]


@pytest.mark.parametrize("missing", ["import sys; sys.modules['numba'] = None; ", ""])
def test_without_numba_losses_are_torchs_in_silence(missing: str) -> None:
    environment = {} if missing else {"NUMBA_DISABLE_JIT": "1"}
    code = f"{missing}import logging; logging.basicConfig(level='INFO'); {LOSS} {STEP} print(tier.kernels())"
    assert run(code, **environment).split() == ["None"]


def test_a_kernel_is_compiled_once_and_found_by_the_next_process(tmp_path: Any) -> None:
    code = f"{LOSS} {STEP} print(pred.grad.sum().isfinite().item())"
    counts = []
    for _ in range(2):
        assert run(code, NUMBA_CACHE_DIR=str(tmp_path)).split() == ["True"]
        counts.append(len(list(tmp_path.rglob("*.nbc"))))
    assert counts == [1, 1]


def test_where_nothing_can_be_written_kernels_are_compiled_all_the_same() -> None:
    code = f"{LOSS} {STEP} print(tier.kernels() is not None, pred.grad.isfinite().all().item())"
    assert run(code, NUMBA_CACHE_DIR="/proc/nowhere").split() == ["True", "True"]


def test_a_composed_criterion_takes_the_compiled_tier() -> None:
    pred, target = boxes(torch.float32)
    criterion = nearfar.compose("giou + 2.0 * focal_iou(eiou)")
    value, *gradients = value_and_gradients(criterion, pred, target)
    expected, *expected_gradients = by_torch(criterion, pred, target)
    torch.testing.assert_close(value, expected)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        assert_same_gradients(found, wanted, pred, target, 1e-5)
