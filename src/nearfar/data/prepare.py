"""From uint8 pixels to what a model takes: resized, scaled to [0, 1], normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.errors import ConfigError, InputError


def resize(images: Tensor, size: int) -> Tensor:
    """Resize float images (N, C, H, W) to (N, C, size, size), bilinear and without aliasing."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


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
    size : int
        The model's input size in pixels.
    mean, std : sequence of 3 floats
        See :class:`Normalise`.
    """

    def __init__(
        self, size: int, *, mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)
    ) -> None:
        super().__init__()
        self.size = size
        self.normalise = Normalise(mean, std)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) uint8 to (N, 3, size, size) float32."""
        pixels: Tensor = self.normalise(resize(unit_floats(images), self.size))
        return pixels


def side(data_config: Mapping[str, Any]) -> int:
    """The side of the square RGB images that a model takes.

    Parameters
    ----------
    data_config : dict
        As :class:`~nearfar.models.EmbeddingModel` has it.

    Raises
    ------
    ConfigError
        It takes others. Images of a source are squares; of a network for faces of 112 × 96, whose template
        :func:`~nearfar.data.faces.align` has, feed the aligned images to the model itself.
    """
    channels, height, width = data_config["input_size"]
    if channels != 3 or height != width:
        raise ConfigError(
            f"the model takes images of {channels} × {height} × {width}, and images of files and data sets are square "
            "RGB ones: make it with another image_size, or call it on images of your own"
        )
    return int(height)


def unit_floats(images: Tensor) -> Tensor:
    """Scale a batch (N, 3, H, W) of uint8 to float32 in [0, 1]."""
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        raise InputError(f"images are {tuple(images.shape)} of {images.dtype}: give (N, 3, H, W) of torch.uint8")
    return images.to(torch.float32) / 255
