"""Alignment: a similarity that brings the eyes, the nose and the corners of the mouth to where a network wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from nearfar.errors import InputError

_NARROW = (
    (30.2946, 51.6963),
    (65.5318, 51.5014),
    (48.0252, 71.7366),
    (33.5493, 92.3655),
    (62.7299, 92.2041),
)
#: By (width, height): where the left eye, the right eye, the nose and the left and right corners of the mouth go, in
#: pixels whose centres are whole numbers; left is where the viewer sees it. SphereFace's for 96 × 112, and the same
#: eight pixels further right for 112 × 112, which insightface and most networks since were trained with.
TEMPLATES: Mapping[tuple[int, int], tuple[tuple[float, float], ...]] = {
    (96, 112): _NARROW,
    (112, 112): tuple((x + 8, y) for x, y in _NARROW),
}


def align(
    image: Image.Image,
    landmarks: Sequence[Sequence[float]],
    size: tuple[Literal[96, 112], Literal[112]] = (112, 112),
) -> Image.Image:
    """Turn, scale and shift a face so that its five landmarks come closest to the template's.

    The similarity is the least-squares one without a reflection (Umeyama 1991); pixels are interpolated linearly, and
    what lies outside is black.

    Parameters
    ----------
    image : PIL.Image.Image
        With one or more faces.
    landmarks : sequence of five (x, y)
        In pixels of the image: left eye, right eye, nose, left and right corner of the mouth, left and right as seen.
    size : {(112, 112), (96, 112)}
        Width and height of the result.

    Returns
    -------
    PIL.Image.Image

    Raises
    ------
    InputError
        There are not five finite points, they are all one point, or the size has no template.
    """
    if size not in TEMPLATES:
        known = " and ".join(f"{width} × {height}" for width, height in TEMPLATES)
        raise InputError(f"there is no template for faces of {size}: there are those for {known}")
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise InputError(f"landmarks are five finite points (x, y); got {points.shape}")
    found, wanted = points @ (1, 1j), np.asarray(TEMPLATES[size]) @ (1, 1j)
    spread = wanted - wanted.mean()
    if not np.abs(found - found.mean()).max() > 0:
        raise InputError("the five landmarks are one point: a face cannot be aligned to it")
    # From the template back to the image, as pixels are fetched; but fitted forwards, as Umeyama's is.
    centred = found - found.mean()
    forward = np.vdot(centred, spread) / np.vdot(centred, centred)
    if abs(forward) == 0:
        raise InputError("the landmarks do not resemble a face: look at their order")
    back = 1 / forward
    shift = found.mean() - back * wanted.mean()
    # Pillow counts from the corner of a pixel, landmarks from its centre.
    shift += 0.5 * (1 + 1j) - back * 0.5 * (1 + 1j)
    matrix = (back.real, -back.imag, shift.real, back.imag, back.real, shift.imag)
    return image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
