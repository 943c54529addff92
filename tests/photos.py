"""Folders of images that a small network can tell apart, if not at once."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

__all__ = ["noisy_photos"]


def noisy_photos(root: Path, *, classes: int, views: int, noise: float) -> Path:
    """``class0/0.png`` … of 24 pixels a side: by class four coloured fields a side, by view noise on each."""
    generator = torch.Generator().manual_seed(0)
    for number in range(classes):
        (root / f"class{number}").mkdir()
        base = torch.rand(3, 4, 4, generator=generator)
        for view in range(views):
            noisy = (base + noise * torch.rand(3, 4, 4, generator=generator)).clamp(0, 1)
            pixels = torch.nn.functional.interpolate(noisy[None], size=24)[0].permute(1, 2, 0)
            Image.fromarray((pixels * 255).byte().numpy()).save(root / f"class{number}" / f"{view}.png")
    return root
