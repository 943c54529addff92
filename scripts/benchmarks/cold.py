"""What ``nearfar list`` costs beside the bare interpreter, importing torch, and ``timm.list_models()``."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

CASES = {
    "python": "pass",
    "nearfar list": "from nearfar.cli import main; main(['list'])",
    "nearfar list '*face*'": "from nearfar.cli import main; main(['list', '*face*'])",
    "import nearfar": "import nearfar",
    "import torch": "import torch",
    "timm.list_models()": "import timm; timm.list_models()",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    wall: dict[str, list[float]] = {name: [] for name in CASES}
    cpu: dict[str, list[float]] = {name: [] for name in CASES}
    for round_number in range(repeats + 1):  # interleaved, the first round to warm the disk cache
        for name, code in CASES.items():
            before, start = os.times(), time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
            elapsed, after = time.perf_counter() - start, os.times()
            if round_number:
                wall[name].append(1e3 * elapsed)
                spent = after.children_user + after.children_system - before.children_user - before.children_system
                cpu[name].append(1e3 * spent)
    result = {
        name: {
            "wall_ms": round(statistics.median(wall[name]), 1),
            "cpu_ms": round(statistics.median(cpu[name]), 1),
            "over_bare_ms": round(statistics.median(wall[name]) - statistics.median(wall["python"]), 1),
        }
        for name in CASES
    }
    print(json.dumps(result, indent=2))


main()
