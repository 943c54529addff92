"""The embedded data set: the same Unicode emoji drawn four times.

One class is one emoji, one view is one drawing of it: Noto Emoji, its first version ("blobs"), Fluent Emoji and
Twemoji. They are vendors' drawings, not photographs; results on them say nothing about photographs. The classes of
the three splits are disjoint, as retrieval asks: the test emoji are never trained on. ``NOTICE`` beside this file
credits the artists; ``scripts/build_emoji`` made the sheet and says which emoji were left out and why.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nearfar.data.source import ImageSource
from nearfar.errors import DataError

SPLITS = ("train", "validation", "test")


class Emoji(ImageSource):
    """The emoji of one split, four drawings each.

    >>> data = Emoji("train")
    >>> image, label = data[0]
    >>> image.shape, image.dtype, data.class_names[label]
    (torch.Size([3, 32, 32]), torch.uint8, 'double-exclamation-mark')

    Images are ordered by class; those of one class are in the order of ``views``.

    Parameters
    ----------
    split : {"train", "validation", "test"}
        Which classes: about 40, 10 and 50 per cent of all.

    Attributes
    ----------
    images : Tensor
        (n, 3, 32, 32) uint8, all images of the split.
    labels : Tensor
        (n,) int64, class ids that count from 0 within the split.
    class_names : tuple of str
        The emoji's names, such as "red-heart".
    codes : tuple of str
        The emoji's code points, such as "1f468-200d-1f680".
    views : tuple of str
        The names of the four sets of drawings.

    Raises
    ------
    DataError
        There is no such split, or the installed files are damaged.
    """

    def __init__(self, split: Literal["train", "validation", "test"] = "train") -> None:
        if split not in SPLITS:
            raise DataError(f"emoji has no split {split!r}: ask for {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
        index = _index()
        members = [number for number, one in enumerate(index["classes"]) if one["split"] == split]
        self.split = split
        self.views = tuple(str(view) for view in index["views"])
        self.class_names = tuple(str(index["classes"][number]["name"]) for number in members)
        self.codes = tuple(str(index["classes"][number]["code"]) for number in members)
        self.images = _tiles()[torch.tensor(members)].flatten(0, 1)
        self.labels = torch.arange(len(members)).repeat_interleave(len(self.views))

    def image(self, index: int) -> Tensor:
        """Return one image, (3, 32, 32) uint8."""
        return self.images[index]


@functools.cache
def _index() -> dict[str, Any]:
    index: dict[str, Any] = json.loads((files(__name__) / "index.json").read_text(encoding="utf-8"))
    return index


@functools.cache
def _tiles() -> Tensor:
    """Decode the sheet once for all splits: (classes, views, 3, 32, 32) uint8."""
    index = _index()
    content = (files(__name__) / "sheet.png").read_bytes()
    if hashlib.sha256(content).hexdigest() != index["sha256"]:
        raise DataError("the sheet of the embedded emoji is not the one its index describes: install nearfar again")
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content)).convert("RGB")))
    side, columns = index["tile"], index["columns"]
    classes, views = len(index["classes"]), len(index["views"])
    tiles = pixels.view(-1, side, columns, side, 3).permute(0, 2, 4, 1, 3).reshape(-1, 3, side, side)
    return tiles[: classes * views].view(classes, views, 3, side, side)
