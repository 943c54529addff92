"""Aerial images with boxes, cut into tiles: the 951 trees that the package deepforest carries, or drawn crowns."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nearfar.errors import DataError

#: The side of a tile in pixels of an image; half as many in the tile, as crowns are some 40 pixels wide.
TILE = 256


@dataclass(frozen=True)
class Tile:
    """A piece of an image, and the boxes whose centre is in it.

    ``image`` is (3, 128, 128) in 0..1, ``boxes`` (n, 4) xyxy in its pixels; a box may reach beyond the tile.
    """

    image: Tensor
    boxes: Tensor


def folder_of_deepforest() -> Path:
    """Where the package's images are, found without importing it: it needs much that this example does not.

    Raises
    ------
    DataError
        It is not installed.
    """
    spec = importlib.util.find_spec("deepforest")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "the images of deepforest are not installed: pip install --no-deps deepforest==2.1.0, "
            "or give --data the folder deepforest/data of its wheel, or --synthetic for drawn crowns"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def trees(folder: Path) -> list[Tile]:
    """The tiles of every image in a folder that has boxes beside it: ``name.png`` and ``name.xml``, of Pascal VOC.

    Raises
    ------
    DataError
        There is none, or a file cannot be read.
    """
    tiles: list[Tile] = []
    for notes in sorted(folder.glob("*.xml")):
        try:
            image = np.asarray(Image.open(notes.with_suffix(".png")).convert("RGB"))
            boxes = [
                [float(found.findtext(f"bndbox/{side}", "nan")) for side in ("xmin", "ymin", "xmax", "ymax")]
                for found in ElementTree.parse(notes).getroot().iter("object")
            ]
        except (OSError, ValueError, ElementTree.ParseError) as error:
            raise DataError(f"{notes} or its image cannot be read: {error}") from error
        tiles += cut(torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255, torch.tensor(boxes).reshape(-1, 4))
    if not tiles:
        raise DataError(f"{folder} has no image with boxes: name.png with name.xml beside it")
    return tiles


def cut(image: Tensor, boxes: Tensor) -> list[Tile]:
    """An image (3, height, width) in tiles side by side, at half its resolution; what is left over is padded."""
    height, width = image.shape[1:]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    tiles = []
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            piece = image[:, top : top + TILE, left : left + TILE]
            padded = torch.zeros(3, TILE, TILE)
            padded[:, : piece.shape[1], : piece.shape[2]] = piece
            corner = torch.tensor([left, top])
            inside = ((centres >= corner) & (centres < corner + TILE)).all(1)
            if inside.any():
                own = (boxes[inside] - corner.repeat(2)) / 2
                tiles.append(Tile(torch.nn.functional.avg_pool2d(padded, 2), own))
    return tiles


def crowns(count: int, seed: int) -> list[Tile]:
    """Tiles with drawn crowns on a mottled ground: not trees, but something to be found where there are no images."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    tiles = []
    for _ in range(count):
        image = 0.25 + 0.05 * torch.randn(3, 128, 128, generator=generator)
        number = int(torch.randint(3, 9, (1,), generator=generator))
        centre = 12 + 104 * torch.rand(number, 2, generator=generator)
        half = 5 + 9 * torch.rand(number, 2, generator=generator)
        for (cx, cy), (a, b) in zip(centre.tolist(), half.tolist(), strict=True):
            inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1
            image[:, inside] = image[:, inside] + torch.tensor([[0.1], [0.45], [0.1]])
        tiles.append(Tile(image.clamp(0, 1), torch.cat([centre - half, centre + half], 1)))
    return tiles


def split(tiles: list[Tile]) -> tuple[list[Tile], list[Tile]]:
    """Every fourth tile for testing, the others for training; tiles share no pixel and no box."""
    return [tile for i, tile in enumerate(tiles) if i % 4], tiles[::4]
