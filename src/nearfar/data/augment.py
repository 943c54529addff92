"""Training augmentation of a whole batch on its device, each image by its own counted random numbers.

What happens to an image depends on its key alone: not on the other images of the batch, not on the worker that
loaded it, not on any generator. To keep that exact to the bit the arithmetic is elementwise throughout (no matrix
product, no mean over an image, no sine), because the rounding of other operations depends on the batch's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nearfar.data.prepare import Normalise, resize, unit_floats
from nearfar.data.size import Size, height_width
from nearfar.errors import ArgumentError, InputError
from nearfar.nn import counted

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Augment(nn.Module):
    """Random affine map and colour jitter, then the model's size and normalisation.

    One bilinear sampling does zoom, aspect, rotation, shift, mirror and the enlargement to the model's size. The
    colour of every pixel x with luma L becomes ``b (c (s x + (1 − s) L) + (1 − c) / 2)``, for brightness b, contrast
    c and saturation s. Hue is left alone: it often tells classes apart.

    Parameters
    ----------
    size : int or (height, width)
        The model's input size in pixels.
    mean, std : sequence of 3 floats
        See :class:`~nearfar.data.prepare.Normalise`.
    zoom : (float, float)
        The magnification, uniform between the two; above 1 the borders are cut off.
    aspect : float
        Width against height changes by a factor of at most this, either way; at least 1.
    rotation : float
        At most this many degrees, either way; under 180.
    shift : float
        At most this share of the width and of the height, either way, across and down.
    flip : float
        The probability of a mirror image. 0 by default: a mirrored arrow, letter or left shoe is another class.
    brightness, contrast, saturation : float
        Each factor is uniform in 1 ± this; at most 1.
    fill : float, optional
        The grey in [0, 1] of what comes into the picture from outside; by default its border is continued.
    """

    def __init__(
        self,
        size: Size,
        *,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        zoom: tuple[float, float] = (0.8, 1.2),
        aspect: float = 1.15,
        rotation: float = 15.0,
        shift: float = 0.1,
        flip: float = 0.0,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        fill: float | None = None,
    ) -> None:
        super().__init__()
        _require(0 < zoom[0] <= zoom[1], "zoom", zoom, "two positive numbers, the smaller one first")
        _require(aspect >= 1, "aspect", aspect, "at least 1")
        _require(0 <= rotation < 180, "rotation", rotation, "from 0 to under 180 degrees")
        _require(0 <= shift <= 1, "shift", shift, "from 0 to 1")
        _require(0 <= flip <= 1, "flip", flip, "a probability from 0 to 1")
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            _require(0 <= value <= 1, name, value, "from 0 to 1")
        _require(fill is None or 0 <= fill <= 1, "fill", fill, "from 0 to 1, or None")
        self.size = height_width(size)
        self.zoom, self.aspect, self.rotation, self.shift, self.flip = zoom, aspect, rotation, shift, flip
        self.brightness, self.contrast, self.saturation, self.fill = brightness, contrast, saturation, fill
        self.normalise = Normalise(mean, std)

    @torch.no_grad()
    def forward(self, images: Tensor, keys: Tensor) -> Tensor:
        """Augment a batch.

        Parameters
        ----------
        images : (N, 3, H, W) uint8
            The pixels.
        keys : (N,) int64
            One for each image, from :func:`nearfar.nn.counted.key`.

        Returns
        -------
        Tensor
            (N, 3, height, width) float32, normalised.
        """
        if keys.shape != images.shape[:1] or keys.dtype != torch.int64:
            raise InputError(
                f"keys are {tuple(keys.shape)} of {keys.dtype} for {len(images)} images: give one int64 for each"
            )
        numbers = counted.uniform(keys, 9).unbind(1)
        pixels = unit_floats(images)
        if pixels.shape[-2] > self.size[0] or pixels.shape[-1] > self.size[1]:
            pixels = resize(pixels, self.size)  # sampling alone would alias
        pixels = self._moved(pixels, *numbers[:6])
        normal: Tensor = self.normalise(self._coloured(pixels, *numbers[6:]))
        return normal

    def _moved(
        self, pixels: Tensor, turn: Tensor, zoom: Tensor, aspect: Tensor, across: Tensor, down: Tensor, mirror: Tensor
    ) -> Tensor:
        """Sample (N, 3, h, w) at (N, height, width) places; the arguments are numbers in [0, 1)."""
        # Uniform in the tangent of half the angle, nearly so in the angle, and sine and cosine are rational in it.
        half = _about(0.0, turn, math.tan(math.radians(self.rotation) / 2))
        cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
        magnified = self.zoom[0] + (self.zoom[1] - self.zoom[0]) * zoom
        stretch = 1 + (math.sqrt(self.aspect) - 1) * torch.abs(2 * aspect - 1)
        stretch = torch.where(aspect < 0.5, 1 / stretch, stretch)
        x_unit, y_unit = 1 / (magnified * stretch), stretch / magnified
        x_unit = torch.where(mirror < self.flip, -x_unit, x_unit)
        # Coordinates run from −1 to 1, so that a shift by the whole side is 2.
        x_shift, y_shift = _about(0.0, across, 2 * self.shift), _about(0.0, down, 2 * self.shift)

        height, width = self.size
        x = _places(width, pixels.device)[None, None, :]
        y = _places(height, pixels.device)[None, :, None]
        # A step of one in y is not as long as one in x where images are no squares: turning has to know.
        from_x = _each(x_unit * cos) * x + _each(x_unit * sin * (height / width)) * y + _each(x_shift)
        from_y = _each(y_unit * cos) * y - _each(y_unit * sin * (width / height)) * x + _each(y_shift)
        grid = torch.stack((from_x, from_y), dim=-1)
        if self.fill is None:
            return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
        # Sampling continues with zeros, which stand for the fill.
        moved = F.grid_sample(pixels - self.fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return moved + self.fill

    def _coloured(self, pixels: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
        """Jitter the colours of (N, 3, H, W); the arguments are numbers in [0, 1)."""
        b = _about(1.0, brightness, self.brightness)
        c = _about(1.0, contrast, self.contrast)
        s = _about(1.0, saturation, self.saturation)
        red, green, blue = pixels.unbind(1)
        luma = red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]
        grey = luma * _each(b * c * (1 - s)) + _each(b * (1 - c) / 2)
        coloured = pixels * _each(b * c * s)[:, None]
        coloured += grey[:, None]
        return coloured.clamp_(0, 1)


def _places(count: int, device: torch.device) -> Tensor:
    """The centres of pixels, where the first and the last end at −1 and 1."""
    return (torch.arange(count, device=device, dtype=torch.float32) * 2 + 1) / count - 1


def _about(centre: float, number: Tensor, reach: float) -> Tensor:
    """Map [0, 1) to centre ± reach."""
    return centre + (2 * number - 1) * reach


def _each(value: Tensor) -> Tensor:
    """Give one number an image (N,) the shape (N, 1, 1)."""
    return value[:, None, None]


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ArgumentError(f"Augment cannot use {name}={value!r}: it must be {wanted}")
