"""Margin softmax over many classes, forward and backward: nearfar's engines beside pytorch-metric-learning's losses, a
head as insightface writes it, a linear classifier with cross entropy and no margin, and the matrix products alone.

Times are taken in turn in one process and compared turn by turn; memory is what a step adds at its highest in a process
of its own, less the gradient of the class weights, which every way but the products has to make. A table is printed,
and JSON written where ``--json`` says.

``--training`` measures whole steps of SGD with momentum instead: the update after the backward pass, fused into it,
and of a sampled tenth of the classes. Memory is then what a step adds to weights and momentum, the gradient included.
"""

from __future__ import annotations

import argparse
import contextlib
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

OURS = ("least memory", "fastest")
PEERS = ("pytorch-metric-learning", "insightface style", "linear, no margin")
PRODUCTS = "matrix products alone"
AFTERWARDS, FUSED, SAMPLED = TRAININGS = ("update afterwards", "update fused", "a tenth of the classes")
DTYPES = ("float32", "bfloat16")
#: Enough for every kernel to be loaded, and next to nothing beside what is measured.
FEW = 512


def ways(args, classes, dtype, tiny=False):
    """Name → one step. Weights are shared where their layout is, so that a million classes fit."""
    import torch
    import torch.nn.functional as F
    from pytorch_metric_learning import losses as pml

    import nearfar

    torch.manual_seed(0)
    n, classes, dim = args.n, FEW if tiny else classes, args.dim
    x, y = torch.randn(n, dim), torch.randint(classes, (n,))
    ours = nearfar.compose(f"{args.loss}(preset='pml')" if args.loss == "arcface" else f"{args.loss}(scale=64)",
                           num_classes=classes, embedding_size=dim)  # fmt: skip
    loss = ours.losses[args.loss]
    weight = loss.weight
    theirs = {"arcface": pml.ArcFaceLoss, "cosface": pml.CosFaceLoss}[args.loss]
    made = []

    def engine(budget):
        def value(e):
            loss.engine, loss.memory_budget = "chunked", budget
            return ours(e, y)

        return value

    def library(e):
        if not made:
            made.append(theirs(classes, dim))
            made[0].W.data = weight.data.T.contiguous()
        return made[0](e, y)

    def head(e):
        """Cosines clamped, the target's angle widened under no_grad, scaled, cross entropy."""
        c = F.linear(F.normalize(e), F.normalize(weight)).clamp(-1, 1)
        rows = torch.arange(n)
        with torch.no_grad():
            t = c[rows, y]
            margin = torch.cos(torch.arccos(t) + loss.margin) - t if args.loss == "arcface" else -loss.margin
        return F.cross_entropy((c + torch.zeros_like(c).index_put((rows, y), torch.as_tensor(margin).to(c))) * 64, y)

    def linear(e):
        return F.cross_entropy(F.linear(e, weight), y)

    def step(value):
        def run():
            for each in (weight, *(m.W for m in made)):
                each.grad = None
            e = x.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext():
                result = value(e)
            result.backward()
            return result.item()

        return run

    kind = getattr(torch, dtype)
    rooms = []

    def products():
        if not rooms:
            w = weight.detach().to(kind)
            rooms.extend([x.to(kind), w, torch.empty(n, classes, dtype=kind), torch.empty_like(w)])
        a, w, g, to_weight = rooms
        torch.mm(a, w.T, out=g)
        torch.mm(g, w)
        torch.mm(g.T, a, out=to_weight)

    values = (engine(0.0), engine(float("1e9")), library, head, linear)
    every = dict(zip((*OURS, *PEERS), map(step, values), strict=True)) | {PRODUCTS: products}
    return {name: way for name, way in every.items() if name in args.ways}


def trainings(args, classes, dtype, tiny=False):
    """Name → one step of training, momentum and all; each has a head of its own."""
    import torch

    import nearfar
    from nearfar_margin.fused import FusedSGD
    from nearfar_margin.row_optimizers import RowSGD
    from nearfar_margin.sampling import sample

    torch.manual_seed(0)
    n, classes, dim = args.n, FEW if tiny else classes, args.dim
    x, y = torch.randn(n, dim), torch.randint(classes, (n,))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}

    def training(name):
        recipe = f"{args.loss}(engine='chunked', memory_budget=0)"
        criterion = nearfar.compose(recipe, num_classes=classes, embedding_size=dim)
        loss = criterion.losses[args.loss]
        if name == FUSED:
            optimizer = FusedSGD(loss, **settings)
        elif name == SAMPLED:
            optimizer = RowSGD([sample(loss, 0.1).weight], **settings)
        else:
            optimizer = torch.optim.SGD([loss.weight], **settings)
        # Written to, so that its memory is there before the step is.
        optimizer.state[loss.weight]["momentum_buffer"] = torch.full_like(loss.weight, 1e-9, requires_grad=False)

        def run():
            e = x.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext():
                value = criterion(e, y)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            return value.item()

        return run

    return {name: training(name) for name in TRAININGS if name in args.ways}


def trained(args, classes, dtype):
    """Median milliseconds and megabytes of steps of training."""
    each = trainings(args, classes, dtype)
    times = timed(args, each, dtype)
    return {
        "classes": classes,
        "dtype": dtype,
        "milliseconds": {name: round(1e3 * statistics.median(values), 1) for name, values in times.items()},
        "ratio": {
            name: round(statistics.median(a / b for a, b in zip(values, times[AFTERWARDS], strict=True)), 3)
            for name, values in times.items()
            if AFTERWARDS in times
        },
        "megabytes": {name: round(peak(args, classes, dtype, name), 1) for name in each},
    }


def timed(args, each, dtype):
    """Seconds of each way in each turn, the first left out."""
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    times = {name: [] for name in each}
    values = {}
    for turn in range(args.repeats + 1):
        for name, way in each.items():
            start = clock()
            value = way()
            if turn:
                times[name].append(clock() - start)
            elif name in (*OURS, PEERS[0]):  # the rest has another margin, or none
                values[name] = value
        if values and not turn:
            tolerance = 1e-4 if dtype == "float32" else 1e-2
            assert max(values.values()) / min(values.values()) - 1 < tolerance, values
    return times


def measured(args, classes, dtype):
    """Median milliseconds, megabytes, and the median over the turns of ours / theirs."""
    each = ways(args, classes, dtype)
    times = timed(args, each, dtype)
    gradient = classes * args.dim * 4 / 2**20
    return {
        "classes": classes,
        "dtype": dtype,
        "milliseconds": {name: round(1e3 * statistics.median(values), 1) for name, values in times.items()},
        "ratio": {
            ours: {
                name: round(statistics.median(a / b for a, b in zip(times[ours], times[name], strict=True)), 3)
                for name in each
                if name not in OURS
            }
            for ours in OURS
            if ours in each
        },
        "megabytes": {name: round(peak(args, classes, dtype, name) - gradient, 1) for name in each if name != PRODUCTS},
    }


def peak(args, classes, dtype, name):
    """Megabytes in a process of its own; the least of two, as code that is paged in meanwhile would count."""
    command = [sys.executable, __file__, "--peak", name, "--classes", str(classes), "--dtypes", dtype]
    for option in ("loss", "n", "dim", "clock"):
        command += [f"--{option}", str(getattr(args, option))]
    runs = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(args.processes))
    return min(map(float, runs))


def table(rows):
    """Markdown: a row a size and dtype; of each of ours, time and memory beside the others'."""
    whats = ("time", "memory", "MB", "time / no margin", "time / products", "µs / class")
    head = ["classes", "dtype", *(f"{ours}: {what}" for ours in OURS for what in whats)]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---:|" * len(head)
    for row in rows:
        cells, mb = [f"{row['classes']:,}", row["dtype"]], row["megabytes"]
        for ours in OURS:
            ratio = row["ratio"].get(ours, {})
            memory = round(mb[ours] / mb[PEERS[0]], 4) if {ours, PEERS[0]} <= mb.keys() else None
            each = round(1e3 * row["milliseconds"][ours] / row["classes"], 2) if ours in row["milliseconds"] else None
            cells += [ratio.get(PEERS[0]), memory, mb.get(ours), ratio.get(PEERS[2]), ratio.get(PRODUCTS), each]
        yield "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"


def training_table(rows):
    """Markdown: a row a size, dtype and way."""
    yield "| classes | dtype | update | milliseconds | time / afterwards | MB |"
    yield "|---:|---|---|---:|---:|---:|"
    for row in rows:
        for name, mb in row["megabytes"].items():
            cells = (f"{row['classes']:,}", row["dtype"], name, row["milliseconds"][name], row["ratio"].get(name), mb)
            yield "| " + " | ".join(map(str, cells)) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--loss", choices=("arcface", "cosface"), default="arcface")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--processes", type=int, default=2, help="of each way, for its memory")
    every = (*OURS, *PEERS, PRODUCTS)
    choices, some = (*every, *TRAININGS), "where not all of them fit in memory"
    parser.add_argument("--ways", nargs="+", choices=choices, default=choices, help=some)
    parser.add_argument("--training", action="store_true", help="whole steps of SGD with momentum")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: one thread's own time")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    pin(2 if args.clock == "wall" else 1)
    if args.peak:
        args.ways, made = (args.peak,), trainings if args.peak in TRAININGS else ways
        for _ in range(3):
            made(args, args.classes[0], args.dtypes[0], tiny=True)[args.peak]()
        # Else what the first steps have left would serve the measured one.
        ctypes.CDLL(None).malloc_trim(0)
        step = made(args, args.classes[0], args.dtypes[0])[args.peak]
        print(peak_memory(step))
        return
    measure, show = (trained, training_table) if args.training else (measured, table)
    rows = [measure(args, classes, dtype) for classes in args.classes for dtype in args.dtypes]
    print("\n".join(show(rows)))
    if args.json:
        machine = {"processors": os.cpu_count(), "architecture": platform.machine(), "load": os.getloadavg()[0]}
        options = {key: getattr(args, key) for key in ("loss", "n", "dim", "repeats", "clock")}
        args.json.write_text(json.dumps({"machine": machine, "options": options, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
