"""Small pictures inside a page."""

from __future__ import annotations

import base64
import io

from PIL import Image
from torch import Tensor

from nearfar.data.prepare import resize

#: Pixels a side, at most: sharp on a phone at half as many.
SIDE = 64
_QUALITY = 75


def thumbnail(image: Tensor) -> str:
    """Write an image as a ``data:`` address of a JPEG.

    Parameters
    ----------
    image : Tensor
        (3, H, W) uint8; one with a side larger than :data:`SIDE` is scaled to that.
    """
    pixels = image.float()[None]
    scale = SIDE / max(image.shape[-2:])
    if scale < 1:
        pixels = resize(pixels, [max(1, round(scale * side)) for side in image.shape[-2:]])
    array = pixels[0].round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
