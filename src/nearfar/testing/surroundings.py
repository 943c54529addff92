"""What is global to torch: kept as it is around what a part is tried out with, so that one check spoils no other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

__all__ = ["defaults", "restored"]


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Every global mode of torch as it was, whatever is left of it in the block."""
    threads, dtype, device = torch.get_num_threads(), torch.get_default_dtype(), torch.get_default_device()
    gradients, anomalies = torch.is_grad_enabled(), torch.is_anomaly_enabled()
    deterministic = _determinism()
    autocast = torch.is_autocast_enabled("cpu")
    try:
        with np.errstate():
            yield
    finally:
        if torch.get_num_threads() != threads:  # setting it forgets what kernels were prepared
            torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        torch.set_autocast_enabled("cpu", autocast)
        if torch.is_anomaly_enabled() != anomalies:
            torch.autograd.set_detect_anomaly(anomalies)
        if _determinism() != deterministic:
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        if torch.get_default_device() != device:
            torch.set_default_device(device)


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@contextlib.contextmanager
def defaults() -> Iterator[None]:
    """One thread and torch's own modes in the block, and what was before it afterwards.

    On tensors as small as those of checks threads only wait for each other, and what is summed in parts depends on
    their number.
    """
    with restored():
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.autograd.set_detect_anomaly(False)
        torch.use_deterministic_algorithms(False)
        torch.set_autocast_enabled("cpu", False)
        yield
