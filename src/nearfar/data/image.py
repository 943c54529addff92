"""Images as files, PIL images, arrays or tensors become uint8 tensors of one size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nearfar.data.prepare import resize
from nearfar.data.size import Size, height_width
from nearfar.errors import DataError

_MOST_PIXELS = 2**26
_MOST_BYTES = 2**29


def read(path: Path, size: Size | None = None) -> Image.Image:
    """Decode a file to RGB: upright as its EXIF data says, transparency over white, the first frame of an animation.

    Parameters
    ----------
    path : Path
        The file.
    size : int or (height, width), optional
        What the image will be cut to: a large JPEG is then decoded at a fraction of its size, but never smaller than
        twice this.

    Raises
    ------
    DataError
        The file cannot be decoded to its end.
    """
    # Both ways the larger side: it may yet be turned upright.
    side = None if size is None else 2 * max(height_width(size))
    try:
        if (size_in_bytes := path.stat().st_size) > _MOST_BYTES:
            raise ValueError(f"it has {size_in_bytes} bytes, and {_MOST_BYTES} are the most")
        # From memory: of a file, Pillow asks for as many bytes at once as a chunk's header says that it has.
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            _refuse_bomb(image)
            if side is not None:
                image.draft("RGB", (side, side))
            # Conversion decodes the whole file, so that a truncated one fails here and not later.
            return _over_white(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise DataError(f"there is no image {path}") from error
    except Exception as error:  # decoders raise nearly anything: OSError, SyntaxError, struct.error, zlib.error …
        raise DataError(f"cannot read the image {path}: {reason(error)}; replace or remove it") from error


def dimensions(image: Path | bytes, name: str = "") -> tuple[int, int]:
    """Return (width, height) as the header of a file, or of one in memory, says, without decoding it.

    Raises
    ------
    DataError
        It is no image; ``name`` says which, where it is no file.
    """
    try:
        if isinstance(image, bytes):
            with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as opened:
                _refuse_bomb(opened)
                return opened.size
        with Image.open(image) as opened:
            _refuse_bomb(opened)
            return opened.size
    except Exception as error:
        what = name or f"the image {image!s}"
        raise DataError(f"cannot read {what}: {reason(error)}; replace or remove it") from error


def decode(encoded: bytes, name: str) -> Image.Image:
    """Decode a JPEG or PNG in memory to RGB; ``name`` says in messages which.

    Raises
    ------
    DataError
        It is none of these, has more than 2^26 pixels, or cannot be decoded to its end.
    """
    try:
        # Other formats run decoders that a face never needs, some of them programs outside.
        with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")) as image:
            _refuse_bomb(image)
            return _over_white(ImageOps.exif_transpose(image))
    except Exception as error:
        raise DataError(f"cannot read {name}: {reason(error)}") from error


def _refuse_bomb(image: Image.Image) -> None:
    """A header of a few bytes can ask for gigabytes."""
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise ValueError(f"its header asks for {width} × {height} pixels, and {_MOST_PIXELS} are the most")


def reason(error: Exception) -> str:
    """Say in a few words why an image could not be decoded."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "it is not an image that Pillow knows" if "cannot identify image file" in text else text.rstrip(".")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips 16 bits at 255, which turns nearly all of the image white.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def cut(image: Image.Image, size: Size) -> Tensor:
    """Scale an image until it covers (height, width) and cut the middle out; returns (3, height, width) uint8."""
    height, width = height_width(size)
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).contiguous()


def to_tensor(image: Any, size: Size) -> Tensor:
    """Turn a PIL image, an array (h, w[, 3]) or a tensor (1 | 3, h, w) into (3, height, width) uint8, as :func:`cut`.

    Raises
    ------
    DataError
        The image is none of these.
    """
    if isinstance(image, Image.Image):
        return cut(_over_white(image), size)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        image = torch.from_numpy(image if image.ndim == 3 else image[:, :, None]).permute(2, 0, 1)
    if not isinstance(image, Tensor) or image.dim() != 3 or image.shape[0] not in (1, 3):
        shape = f" {tuple(image.shape)} of {image.dtype}" if hasattr(image, "shape") and hasattr(image, "dtype") else ""
        raise DataError(
            f"an image is a {type(image).__name__}{shape}: give a PIL image, a uint8 array (H, W, 3), "
            "or a tensor (3, H, W) of uint8 or of floats in [0, 1]"
        )
    pixels = image.float() if image.dtype == torch.uint8 else _scaled(image)
    middle = pixels[None, :, *_middle(pixels.shape[1:], height_width(size))]
    return resize(middle, size)[0].round().clamp(0, 255).to(torch.uint8).expand(3, -1, -1).contiguous()


def _middle(there: Sequence[int], wanted: tuple[int, int]) -> tuple[slice, slice]:
    """The largest part in the middle of (h, w) pixels that has the shape of the wanted ones."""
    scale = min(there[0] / wanted[0], there[1] / wanted[1])
    kept = [max(1, round(scale * side)) for side in wanted]
    starts = [(side - part) // 2 for side, part in zip(there, kept, strict=True)]
    rows, columns = (slice(start, start + part) for start, part in zip(starts, kept, strict=True))
    return rows, columns


def _scaled(image: Tensor) -> Tensor:
    """Bring floats in [0, 1] to [0, 255]; anything else was normalised before, or is not an image."""
    if not image.is_floating_point() or not bool(torch.isfinite(image).all()):
        raise DataError(f"an image tensor of {image.dtype} is not usable: give uint8, or finite floats in [0, 1]")
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        raise DataError(
            f"an image tensor has values from {low:.3g} to {high:.3g}: give uint8, or floats in [0, 1] that are "
            "not normalised yet"
        )
    return image.float() * 255
