"""Kernels on a GPU: written from the formulas of the compiled tier, and the same results as torch's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nearfar.nn.compiled import eager_only
from nearfar.nn.reducers import NoReduction
from nearfar_iou.ciou import CIoU
from nearfar_iou.compiled.tier import Formula
from nearfar_iou.fused import launch
from nearfar_iou.giou import GIoU

XYXY = (-1.0, 0.0, 0.0, 1.0)

#: Run where kernels are interpreted, which Triton has to be told before it is imported.
INTERPRETED = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
from test_iou_compiled import EACH, LOSSES, assert_same_gradients, boxes, by_torch
from nearfar_iou.compiled.passes import EXTENTS
from nearfar_iou.fused import launch

launch.BLOCK = 1024  # a program is interpreted by numpy, at a price for each: here three, the last in part

for kind in sys.argv[2:]:
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        pred, target = boxes(dtype)
        for box_format in ("xyxy", "cxcywh"):
            loss = LOSSES[kind](reducer=EACH, box_format=box_format)
            expected, *wanted = by_torch(loss, pred, target)
            value, found = torch.empty(len(pred), dtype=dtype), [torch.empty_like(pred), torch.empty_like(target)]
            assert launch.launch(loss.own_formula(), EXTENTS[box_format], pred, target, value, found)
            torch.testing.assert_close(value, expected, rtol=tolerance / 2, atol=tolerance / 2)
            for ours, theirs in zip(found, wanted):
                assert_same_gradients(ours, theirs, pred, target, tolerance, kind == "ciou_unit")
        sides = torch.tensor([10.0**e for e in range(-4, 5)] + [0.0, 0.3, 49.0, 300.0], dtype=dtype)
        w, h = (grid.flatten() for grid in torch.meshgrid(sides, sides, indexing="ij"))
        start = torch.full_like(w, 0.123)
        same = torch.stack((start, start, start + w, start + h), 1)
        loss = LOSSES[kind](reducer=EACH)
        value, found = torch.ones(len(same), dtype=dtype), [torch.ones_like(same), None]
        assert launch.launch(loss.own_formula(), EXTENTS["xyxy"], same, same, value, found)
        assert not value.any() and not found[0].any(), kind
    print(kind)
"""
#: A few at every run, as an interpreter takes its time; together they have every operation that kernels are made of.
FEW = ("giou", "ciou", "siou", "focal")
OTHERS = (
    ("iou", "iou_log", "iou_square", "diou", "ciou_gated", "ciou_unit", "eiou"),
    ("mpdiou", "bounded_iou", "wiou_v1", "wiou_v3", "alpha", "inner"),
)


@pytest.mark.parametrize(
    "kinds",
    [FEW, *(pytest.param(each, marks=pytest.mark.long) for each in OTHERS)],
    ids=lambda kinds: kinds[0],
)
def test_interpreted_kernels_have_the_results_of_torch(kinds: tuple[str, ...]) -> None:
    pytest.importorskip("triton", reason="kernels on a GPU need triton")
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED, str(Path(__file__).parent), *kinds],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert tuple(done.stdout.split()) == kinds


@pytest.mark.parametrize("double", [False, True])
def test_kernels_compile_to_the_code_of_a_gpu_without_one(
    double: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = pytest.importorskip("triton", reason="kernels on a GPU need triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = launch._kernel(Formula("siou", (4.0, 0.0, 0.0)), XYXY, double, True, False)
    numbers = dict.fromkeys(("preds", "targets", "values", "by_preds"), "*fp64" if double else "*fp32")
    signature = numbers | {"by_targets": "constexpr", "n": "i32", "BLOCK": "constexpr"}
    source = ASTSource(fn=kernel, signature=signature, constexprs={"by_targets": None, "BLOCK": 256})
    target = GPUTarget("cuda", 90, 32)
    code = triton.compile(source, target=target, options={"enable_fp_fusion": False}).asm["ptx"]
    assert "st.global" in code
    assert "fma.rn" not in code or double  # a division of float64 is made of them


def test_what_is_not_wanted_is_not_computed() -> None:
    from nearfar_iou.fused.writing import Variant, written

    both = written(Variant(Formula("giou"), XYXY, False, True, True))
    pred = written(Variant(Formula("giou"), XYXY, False, True, False))
    none = written(Variant(Formula("giou"), XYXY, False, False, False))
    assert "by_targets +" in both
    assert "by_targets +" not in pred
    assert none.count("tl.store") == 1
    assert "atan" not in both


def test_a_formula_with_a_branch_is_refused() -> None:
    from nearfar_iou.fused.symbols import Program

    program = Program(double=False)
    with pytest.raises(TypeError, match="without branches"):
        bool(program.symbol("x") > program.known(0))


def test_boxes_in_the_memory_of_the_processor_are_not_for_a_gpu() -> None:
    assert not launch.fits(torch.zeros(2, 4), torch.zeros(2, 4))


def test_what_triton_cannot_compile_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*variant: object) -> object:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(launch, "_refused", set())
    monkeypatch.setattr(launch, "_kernel", broken)
    pred = torch.zeros(2, 4)
    for _ in range(2):
        assert not launch.launch(Formula("giou"), XYXY, pred, pred, torch.zeros(2), [None, None])
    assert launch._refused == {("giou", "")}


def test_numbers_that_a_schedule_moves_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    class Kernel:
        def __getitem__(self, grid: tuple[int]) -> object:
            return lambda *args, **options: None

    monkeypatch.setattr(launch, "_numbers", {})
    monkeypatch.setattr(launch, "_kernel", lambda formula, *variant: compiled.append(formula.number) or Kernel())
    boxes, value = torch.rand(3, 4), torch.empty(3)
    powers = [1 + step / 10 for step in range(launch.MOST + 5)]
    done = [
        launch.launch(Formula("giou", around="alpha", number=power), XYXY, boxes, boxes, value, [None, None])
        for power in (*powers, powers[0])
    ]
    assert done == [True] * launch.MOST + [False] * 5 + [True]
    assert compiled == [*powers[: launch.MOST], powers[0]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and there is none")
@pytest.mark.parametrize("loss", [GIoU(reducer=NoReduction()), CIoU(reducer=NoReduction())], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_a_gpu_kernels_have_the_results_of_torch(loss: GIoU | CIoU, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    pred, target = ((20 * torch.rand(3000, 4, generator=random, dtype=dtype)).cuda().requires_grad_() for _ in range(2))
    assert launch.fits(pred, target)
    found = loss(pred, target)
    gradients = torch.autograd.grad(found.sum(), (pred, target))
    assert not launch._refused
    with eager_only():
        expected = loss(pred, target)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected.sum(), (pred, target)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=10 * tolerance, atol=10 * tolerance)
    same = torch.tensor([[0.1, 0.2, 49.3, 31.7]], dtype=dtype).cuda().requires_grad_()
    value = loss(same, same.detach())
    assert value.item() == 0
    assert not torch.autograd.grad(value.sum(), same)[0].any()
