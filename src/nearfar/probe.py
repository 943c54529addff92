"""Import the heavy packages and say what came of it, in a process that may die of it.

Run as ``python -m nearfar.probe [MODULE …]`` it writes a line of JSON before and after each import, so that whoever
reads knows which one a process died in: a broken binary ends Python rather than raising an error.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

__all__ = ["PACKAGES", "look"]

#: Distribution → module, in the order in which they are imported: each needs those before it.
PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "pytorch-metric-learning": "pytorch_metric_learning",
}


def look(modules: Sequence[str] = (), *, timeout: float = 300) -> dict[str, dict[str, Any]]:
    """What came of importing each of :data:`PACKAGES` that is installed, and then further modules.

    Parameters
    ----------
    modules
        By name, in the order in which they are imported; none is where torch cannot be.
    timeout
        [seconds] How long all of them may take.

    Returns
    -------
    dict
        Distribution, or module → ``error``, a sentence, where it cannot be imported; else what was found. What comes
        after one that ended the process, or that kept it busy for too long, is missing.
    """
    # As this process finds its modules, whatever put them on its path.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-m", "nearfar.probe", *modules]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=timeout)
        output, end = done.stdout, _ending(done.returncode)
    except subprocess.TimeoutExpired as error:
        output, end = error.stdout or b"", f"its import did not end within {timeout:g} seconds"
    found: dict[str, dict[str, Any]] = {}
    for line in output.decode(errors="replace").splitlines():
        if line.startswith('{"nearfar.probe"'):
            row = json.loads(line)
            found[row["nearfar.probe"]] = row
    for row in found.values():
        if row.get("pending"):
            row["error"] = end or "its import ended the process"
    return found


def _ending(code: int) -> str:
    if code >= 0:
        return f"its import ended the process with the exit code {code}" if code else ""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"its import ended the process with {name}"


def _tell(**row: Any) -> None:
    name = row.pop("distribution")
    # On a line of its own, whatever a package printed before it.
    print("\n" + json.dumps({"nearfar.probe": name} | row), flush=True)


def _run(modules: Sequence[str]) -> None:
    for distribution, module in PACKAGES.items():
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
        _tell(distribution=distribution, pending=True)
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                imported = importlib.import_module(module)
                found = _torch(imported) if distribution == "torch" else {}
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())
            _tell(distribution=distribution, version=version, error=f"{type(error).__name__}: {text}")
            if distribution == "torch":  # the others would say the same again
                return
        else:
            about_devices = [" ".join(str(w.message).split()) for w in told if "CUDA" in str(w.message)]
            _tell(distribution=distribution, version=version, warnings=about_devices, **found)
    for name in modules:
        _tell(distribution=name, pending=True)
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            _tell(distribution=name, error=f"{type(error).__name__}: {' '.join(str(error).split())}")
        else:
            _tell(distribution=name)


def _torch(torch: Any) -> dict[str, Any]:
    """What torch says of the machine, once it has added something up."""
    torch.ones(2).sum().item()
    cuda = torch.cuda.is_available()
    return {
        "cuda_build": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if cuda else [],
        "mps": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    _run(sys.argv[1:])
