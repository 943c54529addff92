"""How the weights of face recognition's code bases want their pixels: scaled and ordered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pixels:
    """What happens to pixels before a backbone sees them.

    Attributes
    ----------
    mean, std : float
        Of each channel, for pixels in [0, 1].
    bgr : bool
        Whether the backbone has blue first.
    source : str
        Whose convention it is.
    """

    mean: float
    std: float
    bgr: bool
    source: str


#: By name. In units of pixels from 0 to 255 all subtract 127.5, and divide by 127.5 or by 128.
PIXELS: Mapping[str, Pixels] = {
    "insightface": Pixels(0.5, 0.5, False, "insightface's networks in PyTorch: (x − 127.5)/127.5, RGB"),
    "mxnet": Pixels(0.5, 128 / 255, False, "insightface's networks in MXNet: (x − 127.5)/128, RGB"),
    "sphereface": Pixels(0.5, 128 / 255, True, "SphereFace (arXiv:1704.08063), in Caffe: (x − 127.5)/128, BGR"),
    "adaface": Pixels(0.5, 0.5, True, "AdaFace (arXiv:2204.00964): (x − 127.5)/127.5, BGR"),
}
