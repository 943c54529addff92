"""Two or more ways to do the same, measured side by side: times taken in turn, peak memory in processes of their own.

A benchmark is a function that returns its ways by name, ours first::

    def ways(args, tiny): return {"nearfar": …, "torchvision": …}
    main(__doc__, ways, {"--n": 1000})

``tiny`` asks for the same code on next to no data, which loads it before memory is measured. Ways agree: that is
asserted where they are made, but not under ``args.peak``, when the first step at full size is the one measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

Ways = Mapping[str, Callable[[], Any]]

#: How long a way is called in a row in its turn.
MILLISECONDS = 20


def main(
    description: str, ways: Callable[[argparse.Namespace, bool], Ways], options: Mapping[str, Any], repeats: int = 15
) -> None:
    """Read the command line, measure, print one JSON object."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for flag, default in options.items():
        kind = {"nargs": "+"} if isinstance(default, list) else {"type": type(default)}
        parser.add_argument(flag, default=default, **kind)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: one thread's own time")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    pin(2 if args.clock == "wall" else 1)
    if args.peak:
        for way in [ways(args, True)[args.peak]] * 3:
            way()
        print(peak_memory(ways(args, False)[args.peak]))
        return
    report = {key: value for key, value in vars(args).items() if key != "peak"}
    print(json.dumps(report | {"load": os.getloadavg()[0]} | compare(args, ways(args, False)), indent=2))


def pin(threads: int) -> None:
    """Settle threads before torch is loaded: unpinned, both may share one processor and wait for each other."""
    processors = sorted(os.sched_getaffinity(0))[:threads]
    os.environ["OMP_NUM_THREADS"] = str(len(processors))
    if threads > 1:
        os.environ.setdefault("GOMP_CPU_AFFINITY", " ".join(map(str, processors)))


def compare(args: argparse.Namespace, ways: Ways) -> dict[str, Any]:
    """Median milliseconds and peak megabytes of each way, and how many times the first is better."""
    times = take_times(ways, args.repeats, args.clock)
    # The least of three: code that is paged in meanwhile would count.
    return report(times, {name: min(_peak_in_child(name) for _ in range(3)) for name in ways})


def take_times(ways: Ways, repeats: int, clock: str) -> dict[str, list[float]]:
    """Milliseconds of each way, taken in turn: the mean of as many calls in a row as take some milliseconds.

    Of a short step one call measures what the way before has left in the caches.
    """
    _settle_heap()
    now = time.perf_counter if clock == "wall" else time.process_time

    def measured(way: Callable[[], Any], calls: int) -> float:
        start = now()
        for _ in range(calls):
            way()
        return 1e3 * (now() - start) / calls

    # Twice, as what is first called is loaded and set up.
    first = [{name: measured(way, 1) for name, way in ways.items()} for _ in range(2)][-1]
    calls = {name: math.ceil(MILLISECONDS / max(first[name], 1e-2)) for name in ways}
    turns = [{name: measured(way, calls[name]) for name, way in ways.items()} for _ in range(repeats)]
    return {name: [turn[name] for turn in turns] for name in ways}


def _settle_heap() -> None:
    """Bring the C library to where it is in a process that trains a network: what a step frees, the next one finds.

    Glibc keeps at hand twice the largest block that was freed, of up to 32 MB. A process that has freed none as large
    as a network's activations gives the memory of each step back to the kernel, and has it faulted in again in the next
    one, which takes as long as the work itself.
    """
    import torch

    torch.empty(31 * 2**20, dtype=torch.uint8)


def report(times: Mapping[str, list[float]], peaks: Mapping[str, float]) -> dict[str, Any]:
    """Medians, and how many times the first way is better than each other."""
    milliseconds = {name: round(statistics.median(values), 3) for name, values in times.items()}
    megabytes = {name: round(peak, 2) for name, peak in peaks.items()}
    ours, *others = times
    return {
        "milliseconds": milliseconds,
        "peak_megabytes": megabytes,
        "times_faster": {name: round(milliseconds[name] / milliseconds[ours], 2) for name in others},
        # What other work on the machine disturbs least: the fastest turn of each.
        "times_faster_at_best": {name: round(min(times[name]) / min(times[ours]), 2) for name in others},
        "times_smaller": {name: round(peaks[name] / peaks[ours], 2) for name in others},
    }


def forked(work: Callable[[], Any]) -> Any:
    """What ``work`` gives in a process of its own that begins as a copy of this one, imports and all.

    This one must not have computed anything on several threads yet: a copy has the one that made it alone.
    """
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.write(writer, json.dumps(work()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as file:
        written = file.read()
    _, status = os.waitpid(child, 0)
    return json.loads(written) if status == 0 else None


def _peak_in_child(name: str) -> float:
    command = [sys.executable, *sys.argv, "--peak", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_memory(way: Callable[[], Any]) -> float:
    """MB that one turn adds to the resident memory at its highest; Linux only."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest so far is forgotten
    before = _resident("VmRSS")
    way()
    return max(_resident("VmHWM") - before, 4) / 1024  # at least a page


def _resident(field: str) -> int:
    """A line of /proc/self/status, in kB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))
