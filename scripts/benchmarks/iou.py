"""Box losses, forward and backward: nearfar's, by torch alone and compiled, against torchvision's.

Each turn times every way once, by as many calls in a row as take some milliseconds; ratios are the medians of those
within a turn. The floor is a copy of as many bytes as have to be read and written: 52 a box where gradients are wanted
of predictions alone (two boxes in, a loss and a gradient out), 68 where they are wanted of both. Last comes the table
of every GIoU of 1,000 boxes with 8,400.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import peak_memory, pin

LOSSES = ("giou", "ciou")
WANTED = {"pred": 52, "both": 68}
WAYS = ("torchvision", "eager", "fast", "composed", "floor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 10_000, 1_000_000], help="boxes")
    parser.add_argument("--repeats", type=int, default=25, help="turns")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: one thread's own time")
    parser.add_argument("--json", type=Path, help="where to write the figures as well")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    pin(2 if args.clock == "wall" else 1)
    if args.peak:
        way, loss, wanted, n = args.peak
        make = (lambda n: tables(n, 8 * n + 2 * n // 5)) if loss == "table" else (lambda n: ways(loss, wanted, n))
        small = make(100)[way]
        for _ in range(3):
            small()
        print(peak_memory(make(int(n))[way]))
        return
    report: dict[str, Any] = {"machine": machine(), "clock": args.clock, "repeats": args.repeats, "rows": []}
    head = ("loss", "boxes", "grad", "tv ms", "eager ×", "fast ×", "composed ×", "of floor", "memory: eager", "fast")
    print(" ".join(f"{each:>10}" for each in head))
    for loss in LOSSES:
        for n in args.n:
            for wanted in WANTED:
                row = measured(args, loss, n, wanted)
                report["rows"].append(row)
                times, memory = row["times_faster"], row["memory"] or {"eager": "", "fast": ""}
                cells = (loss, n, wanted, row["milliseconds"]["torchvision"], *times.values(), row["times_floor"])
                print(" ".join(f"{each:>10}" for each in (*cells, *memory.values())), flush=True)
    report["table"] = tabled(args)
    print(f"\nGIoU of 1,000 boxes with 8,400: {json.dumps(report['table'])}")
    report["load"] = os.getloadavg()[0]
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def measured(args: argparse.Namespace, loss: str, n: int, wanted: str) -> dict[str, Any]:
    """The figures of one size of one loss."""
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    made = ways(loss, wanted, n)
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(args.repeats + 2):
        for name, way in made.items():
            calls = max(1, 20_000 // n)
            way()  # what the way before it has left in the caches is not what is measured
            start = clock()
            for _ in range(calls):
                way()
            if turn >= 2:
                times[name].append(1e3 * (clock() - start) / calls)

    def ratio(one: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(times[one], times[other], strict=True)), 2)

    megabytes = {way: peak(way, loss, wanted, n) for way in WAYS[:3]} if n >= 100_000 else {}
    return {
        "loss": loss,
        "boxes": n,
        "gradients": wanted,
        "milliseconds": {name: round(statistics.median(values), 4) for name, values in times.items()},
        "times_faster": {name: ratio("torchvision", name) for name in ("eager", "fast", "composed")},
        "times_floor": ratio("fast", "floor"),
        "megabytes": megabytes,
        "memory": {way: round(megabytes[way] / megabytes["torchvision"], 3) for way in ("eager", "fast") if megabytes},
    }


def ways(loss: str, wanted: str, n: int) -> dict[str, Callable[[], object]]:
    import torch
    from torchvision import ops

    import nearfar
    from nearfar.nn.compiled import eager_only
    from nearfar_iou.ciou import CIoU
    from nearfar_iou.compiled import tier
    from nearfar_iou.giou import GIoU

    torch.manual_seed(0)
    corner = torch.rand(n, 2)
    target = torch.cat([corner, corner + 0.1 + torch.rand(n, 2)], 1)
    pred = (target + 0.01 * torch.randn(n, 4)).requires_grad_()
    target.requires_grad_(wanted == "both")
    theirs = {"giou": ops.generalized_box_iou_loss, "ciou": ops.complete_box_iou_loss}[loss]
    ours = {"giou": GIoU, "ciou": CIoU}[loss]()
    criterion = nearfar.compose(loss)
    assert tier.kernels() is not None, "numba is missing: pip install nearfar-iou[fast]"
    source = torch.rand(n * WANTED[wanted] // 8)
    copy = torch.empty_like(source)

    def step(value: Callable[..., torch.Tensor], context: Callable[[], object]) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            pred.grad = target.grad = None
            with context():
                result = value()
            result.backward()
            return result

        return run

    made = {
        "torchvision": step(lambda: theirs(pred, target, reduction="mean"), contextlib.nullcontext),
        "eager": step(lambda: ours(pred, target), eager_only),
        "fast": step(lambda: ours(pred, target), contextlib.nullcontext),
        "composed": step(lambda: criterion(pred, target), contextlib.nullcontext),
        "floor": lambda: copy.copy_(source),
    }
    if n <= 10_000:
        assert (made["fast"]() / made["torchvision"]() - 1).abs() < 1e-4
        assert (made["fast"]() / made["eager"]() - 1).abs() < 1e-6
    return made


def tables(n: int, m: int) -> dict[str, Callable[[], Any]]:
    """A table of GIoUs."""
    import torch
    from torchvision import ops

    import nearfar
    from nearfar.nn.compiled import eager_only

    torch.manual_seed(0)
    corner = 100 * torch.rand(n + m, 2)
    rows, columns = torch.cat((corner, corner + 0.1 + 30 * torch.rand(n + m, 2)), 1).split((n, m))
    giou = nearfar.create_distance("giou")

    def eager() -> torch.Tensor:
        with eager_only():
            return giou(rows, columns)

    made = {
        "torchvision": lambda: ops.generalized_box_iou(rows, columns),
        "eager": eager,
        "fast": lambda: giou(rows, columns),
    }
    if n <= 100:
        torch.testing.assert_close(made["fast"](), made["torchvision"](), rtol=0, atol=1e-5)
    return made


def tabled(args: argparse.Namespace) -> dict[str, object]:
    """The figures of the table."""
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    n, m = 1000, 8400
    times: dict[str, list[float]] = {"torchvision": [], "eager": [], "fast": []}
    made = tables(n, m)
    for turn in range(args.repeats + 2):
        for name, way in made.items():
            start = clock()
            way()
            if turn >= 2:
                times[name].append(1e3 * (clock() - start))
    megabytes = {name: peak(name, "table", "none", n) for name in times}

    def faster(name: str) -> float:
        return round(statistics.median(a / b for a, b in zip(times["torchvision"], times[name], strict=True)), 1)

    return {
        "milliseconds": {name: round(statistics.median(values), 2) for name, values in times.items()},
        "times_faster": {name: faster(name) for name in ("eager", "fast")},
        "megabytes": megabytes,
        "megabytes_of_the_result": round(4e-6 * n * m, 1),
    }


def peak(way: str, loss: str, wanted: str, n: int) -> float:
    """MB that one step adds, in a process of its own; the less of two, as code that is paged in would count."""
    command = [sys.executable, __file__, "--peak", way, loss, wanted, str(n)]
    return min(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(2))


def machine() -> dict[str, object]:
    import numba
    import torch
    import torchvision

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = {each.__name__: each.__version__ for each in (torch, torchvision, numba)}
    return {"processor": name, "cores": len(os.sched_getaffinity(0))} | versions


if __name__ == "__main__":
    main()
