"""Draws of a miner that depend on a seed and on how many calls there were."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from nearfar.errors import ArgumentError

__all__ = ["Draws"]


class Draws(nn.Module):
    """A part that draws, beside another base; its constructor calls :meth:`count_from`, each call :meth:`generator`."""

    calls: Tensor
    seed: int

    def count_from(self, seed: int) -> None:
        """Begin to count calls.

        Raises
        ------
        ArgumentError
            The seed is no integer of at least 0 and below 2³¹.
        """
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise ArgumentError(f"seed must be an integer of at least 0 and below 2**31; got {seed!r}")
        self.seed = seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def generator(self) -> torch.Generator:
        """What this call draws with; in training mode the next call gets another."""
        found = torch.Generator().manual_seed(_mixed(self.seed, int(self.calls)))
        if self.training:
            self.calls += 1
        return found


def _mixed(seed: int, calls: int) -> int:
    """32 bits from both: torch's generator on the CPU heeds no more, so a seed in the upper half would be none."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {calls}".encode(), digest_size=4).digest(), "little")
