"""Proxies that are assigned to the samples of a batch as they lie, not to classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nearfar_proxy.blocks import blocks

__all__ = ["DynamicProxies"]


@dataclass(frozen=True, slots=True, eq=False)
class DynamicProxies:
    """Which proxies the samples of a batch have, and which samples belong together.

    Attributes
    ----------
    nearest
        (n,) the proxy of each sample; of several equally near the first.
    positive, negative
        (n, n) whether j is another sample of i's class, and whether it is of another class.
    """

    nearest: Tensor
    positive: Tensor
    negative: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, x: Tensor, weight: Tensor, labels: Tensor, distance: Any) -> DynamicProxies:
        """Assign ``weight`` (m, d) to ``x`` (n, d), a block of proxies at a time."""
        best = x.new_full((len(x),), torch.inf)
        nearest = torch.zeros_like(labels)
        for block in blocks(len(x), weight):
            far = distance(x, weight[block])
            least, at = (-far if distance.is_inverted else far).min(1)
            nearer = least < best
            best, nearest = torch.where(nearer, least, best), torch.where(nearer, at + block.start, nearest)
        same = labels[:, None] == labels
        return cls(nearest, same & ~torch.eye(len(x), dtype=torch.bool, device=x.device), ~same)

    def losses(self, x: Tensor, weight: Tensor, distance: Any, scale: float) -> tuple[Tensor, Tensor]:
        """The mean over a sample's positives, (n,), and whether it has a positive and a negative; 0 where not."""
        if not len(x):
            return x.sum(1) + 0 * weight.sum(), self.nearest.bool()
        far = distance(x, weight[self.nearest]) * (-scale if distance.is_inverted else scale)
        counted = self.positive.any(1) & self.negative.any(1)
        draws = (far * self.positive).sum(1) / self.positive.sum(1).clamp_min(1)
        # A proxy that several negatives have is one of the set: each of them counts for its part.
        times = self.negative.to(x) @ (self.nearest[:, None] == self.nearest).to(x)
        exponents = (-far - times.clamp_min(1).log()).masked_fill(~self.negative, -torch.inf)
        pushes = exponents.masked_fill(~counted[:, None], 0).logsumexp(1)
        return torch.where(counted, draws + pushes, 0), counted
