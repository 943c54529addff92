"""How large images are: a height and a width in pixels, or one number for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nearfar.errors import ArgumentError, ConfigError

#: The side of squares, or (height, width), in pixels.
Size = int | Sequence[int]


def height_width(size: Size) -> tuple[int, int]:
    """(height, width) in pixels.

    >>> height_width(112), height_width([256, 128])
    ((112, 112), (256, 128))

    Raises
    ------
    ArgumentError
        It is neither one positive integer nor two.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in pair):
        raise ArgumentError(f"an image size is {size!r}, but must be a positive integer or (height, width)")
    return pair[0], pair[1]


def told(size: Size) -> str:
    """As a person writes it: ``112``, or ``256 × 128``, the height first."""
    height, width = height_width(size)
    return str(height) if height == width else f"{height} × {width}"


def input_size(data_config: Mapping[str, Any]) -> tuple[int, int]:
    """The (height, width) of the RGB images that a model takes.

    Parameters
    ----------
    data_config : dict
        As :class:`~nearfar.models.EmbeddingModel` has it.

    Raises
    ------
    ConfigError
        It takes images of other channels, which those of files and data sets are not.
    """
    channels, height, width = data_config["input_size"]
    if channels != 3:
        raise ConfigError(
            f"the model takes images of {channels} × {height} × {width}, and images of files and data sets are RGB: "
            "make it with in_chans=3, or call it on images of your own"
        )
    return int(height), int(width)
