"""From uint8 pixels to what a model takes: resized, scaled to [0, 1], normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.data.size import Size, height_width
from nearfar.errors import InputError


def resize(images: Tensor, size: Size) -> Tensor:
    """Resize float images (N, C, h, w) to (N, C, H, W), bilinear and without aliasing."""
    wanted = height_width(size)
    if images.shape[-2:] == wanted:
        return images
    return F.interpolate(images, size=wanted, mode="bilinear", align_corners=False, antialias=True)


class Normalise(nn.Module):
    """``(x − mean) / std`` for each channel.

    Parameters
    ----------
    mean, std : sequence of 3 floats
        In units of pixels scaled to [0, 1]; a model's own come with its weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)) -> None:
        super().__init__()
        # Not persistent: the constants belong to the model's description, not to the weights that are saved.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (N, 3, H, W) floats in [0, 1]."""
        return (images - self.mean) / self.std


class Prepare(nn.Module):
    """What evaluation does to a batch: scale to [0, 1], resize, normalise.

    Parameters
    ----------
    size : int or (height, width)
        The model's input size in pixels.
    mean, std : sequence of 3 floats
        See :class:`Normalise`.
    """

    def __init__(
        self, size: Size, *, mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)
    ) -> None:
        super().__init__()
        self.size = height_width(size)
        self.normalise = Normalise(mean, std)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, h, w) uint8 to (N, 3, H, W) float32."""
        pixels: Tensor = self.normalise(resize(unit_floats(images), self.size))
        return pixels


def unit_floats(images: Tensor) -> Tensor:
    """Scale a batch (N, 3, H, W) of uint8 to float32 in [0, 1]."""
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        raise InputError(f"images are {tuple(images.shape)} of {images.dtype}: give (N, 3, H, W) of torch.uint8")
    return images.to(torch.float32) / 255
