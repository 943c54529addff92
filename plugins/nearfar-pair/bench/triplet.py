"""Triplet loss with a miner: nearfar's against pytorch-metric-learning's, forward and backward.

    python plugins/nearfar-pair/bench/triplet.py --n 512 --kinds all semihard hard

Prints one JSON object: for each kind of triplets the median milliseconds of both, taken in turn in one process,
their ratio (and that of the fastest turns, which other work on the machine disturbs less), the peak memory in MB
that one step of each takes in a process of its own, and how far value and gradient of the two lie apart. With
``--clock cpu`` it runs one thread and counts its own processor time, for machines on which others are at work;
``wall`` runs two threads, each pinned to a processor.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

KINDS = ("all", "semihard", "hard")
MARGIN = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=512, help="embeddings in the batch")
    parser.add_argument("--per-class", type=int, default=4)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--memory-runs", type=int, default=3, help="processes of which the least peak counts")
    parser.add_argument("--peak", choices=("nearfar", "pytorch_metric_learning"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    pin(2 if args.clock == "wall" else 1)
    if args.peak:
        print(peak_memory(steps(args, args.kinds[0])[args.peak]))
        return
    report: dict[str, Any] = {k: getattr(args, k) for k in ("n", "per_class", "dim", "clock", "repeats")}
    report["load"] = os.getloadavg()[0]
    report["kinds"] = {kind: measure(args, kind) for kind in args.kinds}
    print(json.dumps(report, indent=2))


def pin(threads: int) -> None:
    """Settle threads before torch is loaded: unpinned, both may share one processor and wait for each other."""
    processors = sorted(os.sched_getaffinity(0))[:threads]
    os.environ["OMP_NUM_THREADS"] = str(len(processors))
    if threads > 1:
        os.environ.setdefault("GOMP_CPU_AFFINITY", " ".join(map(str, processors)))


def steps(args: argparse.Namespace, kind: str) -> dict[str, Callable[..., Any]]:
    """Name → one forward and backward, which returns the loss and the gradient."""
    import torch
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import TripletMarginMiner

    from nearfar_pair.losses.triplet import Triplet
    from nearfar_pair.miners.all import All
    from nearfar_pair.miners.hard import Hard
    from nearfar_pair.miners.semihard import SemiHard

    torch.manual_seed(0)
    classes = -(-args.n // args.per_class)
    labels = torch.arange(classes).repeat_interleave(args.per_class)[: args.n]
    # Half of the way to clusters, so that triplets of every kind are many.
    data = torch.randn(classes, args.dim)[labels] * 0.5 + torch.randn(args.n, args.dim)
    loss, miner = Triplet(MARGIN), {"all": All, "semihard": SemiHard, "hard": Hard}[kind]()
    their_loss, their_miner = TripletMarginLoss(MARGIN), TripletMarginMiner(MARGIN, type_of_triplets=kind)

    def step(
        value: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], rows: int = args.n, dtype: Any = torch.float32
    ) -> tuple[float, torch.Tensor]:
        x = data[:rows].to(dtype, copy=True).requires_grad_()
        result = value(x, labels[:rows])
        result.backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        return result.item(), x.grad

    return {
        "nearfar": lambda **kw: step(lambda x, y: loss(x, y, miner.select(x, y, loss=loss)), **kw),
        "pytorch_metric_learning": lambda **kw: step(lambda x, y: their_loss(x, y, their_miner(x, y)), **kw),
    }


def measure(args: argparse.Namespace, kind: str) -> dict[str, Any]:
    import torch

    clock = time.perf_counter if args.clock == "wall" else time.process_time
    both = steps(args, kind)
    results = {name: step(dtype=torch.float64) for name, step in both.items()}
    times: dict[str, list[float]] = {name: [] for name in both}
    for turn in range(args.repeats + 2):
        for name, step in both.items():
            start = clock()
            step()
            if turn >= 2:
                times[name].append(1e3 * (clock() - start))
    milliseconds = {name: statistics.median(values) for name, values in times.items()}
    fastest = {name: min(values) for name, values in times.items()}
    # The least of a few: code that is paged in during the step counts as the step's.
    megabytes = {name: min(peak_in_child(args, kind, name) for _ in range(args.memory_runs)) for name in both}
    (value, gradient), (their_value, their_gradient) = results.values()
    ours, theirs = both
    return {
        "milliseconds": milliseconds,
        "times_faster": milliseconds[theirs] / milliseconds[ours],
        "times_faster_at_best": fastest[theirs] / fastest[ours],
        "peak_megabytes": megabytes,
        "times_smaller": megabytes[theirs] / megabytes[ours],
        "float64_difference": {
            "value": abs(value / their_value - 1),
            "gradient": float((gradient - their_gradient).abs().max() / their_gradient.abs().max()),
        },
    }


def peak_in_child(args: argparse.Namespace, kind: str, name: str) -> float:
    command = [sys.executable, __file__, "--peak", name, "--kinds", kind, "--clock", args.clock]
    command += ["--n", str(args.n), "--per-class", str(args.per_class), "--dim", str(args.dim)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_memory(step: Callable[..., Any]) -> float:
    """MB that one step adds to the resident memory at its highest, after a tiny step has loaded the code."""
    for _ in range(3):
        step(rows=16)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest so far is forgotten
    before = resident("VmRSS")
    step()
    return max(resident("VmHWM") - before, 4) / 1024  # at least a page


def resident(field: str) -> int:
    """A line of /proc/self/status, in kB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


if __name__ == "__main__":
    main()
