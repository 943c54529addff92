"""Counted randomness: every random number is a pure function of integers that say where it is used.

A generator that is consumed has a state that must be saved and restored, one for every worker process. A counted
number needs neither: ``key(seed, step, position)`` gives the same key in any process, on any device, in a run that
was interrupted and in one that was not. Keys are integers and are mixed by the finaliser of SplitMix64 (Steele, Lea,
Flood: Fast splittable pseudorandom number generators, 2014), so that they do not depend on a library's version.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _mix_int(value: int) -> int:
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask makes the shift a logical one.
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix(values: Tensor) -> Tensor:
    # Multiplication of int64 wraps round in torch, on every device, which is what the algorithm asks for.
    values = (values ^ _shifted(values, 30)) * _signed(_FIRST)
    values = (values ^ _shifted(values, 27)) * _signed(_SECOND)
    return values ^ _shifted(values, 31)


def mixed(values: Tensor) -> Tensor:
    """Return SplitMix64's output for each state; int64, wrapped round at 64 bits, on the device of ``values``."""
    return _mix(values + _signed(_GOLDEN))


def key(*counters: int) -> int:
    """Return the key that belongs to a sequence of integers, in the range of int64.

    >>> key(0, 1) == key(0, 1), key(0, 1) == key(1, 0)
    (True, False)
    """
    value = 0
    for counter in counters:
        value = _mix_int((value + _GOLDEN + _mix_int(counter & _MASK)) & _MASK)
    return _signed(value)


def _bits(keys: Tensor, count: int) -> Tensor:
    counter = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64)
    return _mix(keys[:, None] + counter * _signed(_GOLDEN))


def uniform(keys: Tensor, count: int) -> Tensor:
    """Draw ``count`` numbers in [0, 1) for every key.

    Parameters
    ----------
    keys : (N,) int64
        From :func:`key`; row i of the result depends on ``keys[i]`` alone.
    count : int
        How many numbers each key gives.

    Returns
    -------
    Tensor
        (N, count) float32, multiples of 2^-24, on the device of ``keys``.
    """
    return _shifted(_bits(keys, count), 40).to(torch.float32) * 2.0**-24


def permutation(count: int, at: int) -> Tensor:
    """Return the permutation of 0 … count − 1 that belongs to the key ``at``; (count,) int64."""
    return torch.argsort(_bits(torch.tensor([at]), count)[0], stable=True)
