"""Proxy losses over many classes, forward and backward: nearfar's beside pytorch-metric-learning's.

Times are taken in turn in one process and compared turn by turn; memory is what a step adds at its highest in a process
of its own, less the gradient of the proxies, which either has to make. A table is printed, and JSON written where
``--json`` says.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import peak_memory, pin

#: Name → ours, and what a class has of proxies.
LOSSES = {
    "proxy_nca": ("proxy_nca(preset='pml')", 1),
    "proxy_anchor": ("proxy_anchor", 1),
    "soft_triple": ("soft_triple(preset='pml')", 10),
}
#: So many proxies that a batch has them in blocks.
FEW = 4_200
WAYS = ("nearfar", "pytorch-metric-learning")


def ways(args, name, proxies, only=WAYS, tiny=False):
    """Name → one step; all start from the same proxies."""
    import torch
    from pytorch_metric_learning import losses as pml

    import nearfar

    recipe, centers = LOSSES[name]
    # Enough for every kernel to be loaded, and next to nothing beside what is measured.
    n, classes, dim = args.n, (FEW if tiny else proxies) // centers, args.dim
    torch.manual_seed(0)
    x, y = torch.randn(n, dim), torch.randint(classes, (n,))
    y = y[: -(-n // args.each)].repeat_interleave(args.each)[:n]
    theirs = {"proxy_nca": pml.ProxyNCALoss, "proxy_anchor": pml.ProxyAnchorLoss, "soft_triple": pml.SoftTripleLoss}
    makers = {
        WAYS[0]: lambda: nearfar.compose(recipe, num_classes=classes, embedding_size=dim),
        WAYS[1]: lambda: theirs[name](classes, dim),
    }

    def step(way):
        module = makers[way]()
        (weight,) = module.parameters()
        drawn = torch.randn(classes * centers, dim, generator=torch.Generator().manual_seed(1))
        # SoftTripleLoss has its centres in columns.
        weight.data = drawn.T.contiguous() if weight.shape == drawn.T.shape else drawn.view(weight.shape)

        def run():
            module.zero_grad(set_to_none=True)
            result = module(x.clone().requires_grad_(), y)
            result.backward()
            return result.item()

        return run

    return {way: step(way) for way in only}


def measured(args, name, proxies):
    """Median milliseconds, the median over the turns of theirs / ours, and megabytes."""
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    each = ways(args, name, proxies)
    values = {way: run() for way, run in each.items()}
    assert abs(values[WAYS[0]] / values[WAYS[1]] - 1) < 1e-3, values
    times = {way: [] for way in each}
    for turn in range(args.repeats + 1):
        for way, run in each.items():
            start = clock()
            run()
            if turn:
                times[way].append(clock() - start)
    gradient = proxies * args.dim * 4 / 2**20
    megabytes = {way: round(peak(args, name, proxies, way) - gradient, 1) for way in each}
    return {
        "loss": name,
        "proxies": proxies,
        "milliseconds": {way: round(1e3 * statistics.median(found), 1) for way, found in times.items()},
        "times_faster": round(statistics.median(b / a for a, b in zip(*times.values(), strict=True)), 2),
        "megabytes": megabytes,
        "times_less": round(megabytes[WAYS[1]] / max(megabytes[WAYS[0]], 0.1), 1),
    }


def peak(args, name, proxies, way):
    """Megabytes in a process of its own; the least of several, as code that is paged in meanwhile would count."""
    command = [sys.executable, __file__, "--peak", way, "--losses", name, "--proxies", str(proxies)]
    for option in ("n", "dim", "each", "clock"):
        command += [f"--{option}", str(getattr(args, option))]
    runs = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(args.processes))
    return min(map(float, runs))


def table(rows):
    head = ["loss", "proxies", "ours, ms", "theirs, ms", "times faster", "ours, MB", "theirs, MB", "times less"]
    yield "| " + " | ".join(head) + " |"
    yield "|---" + "|---:" * (len(head) - 1) + "|"
    for row in rows:
        ms, mb = row["milliseconds"], row["megabytes"]
        cells = [f"`{row['loss']}`", f"{row['proxies']:,}", *ms.values(), row["times_faster"], *mb.values()]
        yield "| " + " | ".join(str(cell) for cell in [*cells, row["times_less"]]) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES))
    parser.add_argument("--proxies", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--n", type=int, default=256, help="samples in a batch")
    parser.add_argument("--each", type=int, default=4, help="samples of a class")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7, help="turns")
    parser.add_argument("--processes", type=int, default=2, help="processes to take memory in")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    pin(2 if args.clock == "wall" else 1)
    if args.peak:
        name, proxies = args.losses[0], args.proxies[0]
        for _ in range(3):
            ways(args, name, proxies, (args.peak,), tiny=True)[args.peak]()
        # Else what the first steps have left would serve the measured one.
        ctypes.CDLL(None).malloc_trim(0)
        print(peak_memory(ways(args, name, proxies, (args.peak,))[args.peak]))
        return
    rows = [measured(args, name, proxies) for name in args.losses for proxies in args.proxies]
    print("\n".join(table(rows)))
    if args.json:
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "n": args.n, "dim": args.dim}
        args.json.write_text(json.dumps(machine | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
