"""The pictures of a run: queries with their nearest neighbours, a map, and the pairs that are hardest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nearfar.data import ImageSource
from nearfar.errors import InputError
from nearfar.evaluate import nearest
from nearfar.report.geometry import Pair, hardest_pairs, plane
from nearfar.report.thumbnail import thumbnail

QUERIES, NEIGHBOURS = 12, 5
#: Pairs of each list of the hardest.
PAIRS = 8
MAP_CLASSES, MAP_IMAGES = 24, 4
#: Images on the map that are points only.
MAP_POINTS = 1000
#: Thumbnails of a run, at most.
MOST_THUMBNAILS = QUERIES * (1 + NEIGHBOURS) + 2 * PAIRS * 2 + MAP_CLASSES * MAP_IMAGES


@dataclass(frozen=True, slots=True)
class Shown:
    """An image: its address and the name of its class."""

    address: str
    name: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An image that was found, whether it is of the query's class, and the cosine."""

    image: Shown
    right: bool
    similarity: float


@dataclass(frozen=True, slots=True)
class Query:
    """An image and what is nearest to it, nearest first."""

    image: Shown
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True)
class ShownPair:
    """Two images and their cosine."""

    first: Shown
    second: Shown
    similarity: float


@dataclass(frozen=True, slots=True)
class Placed:
    """An image on the map, and the middle of those of its class that are shown; all from 0 to 100."""

    image: Shown
    x: float
    y: float
    middle: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Map:
    """The embeddings on a plane.

    Attributes
    ----------
    images
        As :class:`Placed`.
    points
        (x, y) of other images.
    share
        [0..1] Of the variance, how much the plane has.
    """

    images: tuple[Placed, ...]
    points: tuple[tuple[float, float], ...]
    share: float


class Scenes:
    """Makes the pictures of a source; every draw is of a fixed seed, so that runs on the same images show the same.

    Parameters
    ----------
    source : ImageSource
        n images.
    embeddings : Tensor
        (n, d) finite.
    """

    def __init__(self, source: ImageSource, embeddings: Tensor) -> None:
        self.source = source
        self.labels = source.labels
        self.embeddings = embeddings
        self._addresses: dict[int, str] = {}

    def queries(self) -> tuple[Query, ...]:
        """Draw images that ask and have one of their class to find; find what is nearest to each.

        Raises
        ------
        InputError
            None has.
        """
        asks = self.source.queries
        searched = torch.ones_like(self.labels, dtype=torch.bool) if asks is None else ~asks
        sizes = self.labels[searched].bincount(minlength=int(self.labels.max()) + 1)
        able = (sizes[self.labels] > 1 if asks is None else asks & (sizes[self.labels] > 0)).nonzero()[:, 0]
        if not len(able):
            raise InputError("no class has two images, so that no query has a neighbour of its own class")
        return tuple(self._query(query, searched) for query in able[self._drawn(len(able))[:QUERIES]].tolist())

    def _query(self, query: int, searched: Tensor) -> Query:
        """An image and the nearest of those (n,) that are searched, without itself and what its camera saw of it."""
        searched = searched.clone()
        searched[query] = False
        if self.source.queries is not None and self.source.cameras is not None:
            cameras = self.source.cameras
            searched &= (self.labels != self.labels[query]) | (cameras != cameras[query])
        gallery = searched.nonzero()[:, 0]
        values, places = nearest(
            self.embeddings[query : query + 1], self.embeddings[gallery], min(NEIGHBOURS, len(gallery))
        )
        pairs = zip(gallery[places[0]].tolist(), values[0].tolist(), strict=True)
        return Query(self._shown(query), tuple(self._neighbour(query, *pair) for pair in pairs))

    def hardest(self) -> tuple[tuple[ShownPair, ...], tuple[ShownPair, ...]]:
        """The genuine pairs furthest apart, and the impostor pairs nearest together; distractors are in none."""
        kept = self.source.asked()
        found = hardest_pairs(self.embeddings[kept], self.labels[kept], PAIRS)
        positives, negatives = (
            [Pair(int(kept[pair.first]), int(kept[pair.second]), pair.similarity) for pair in pairs] for pairs in found
        )
        return tuple(map(self._pair, positives)), tuple(map(self._pair, negatives))

    def map(self) -> Map:
        """Some images of some classes, and points for others."""
        places, share = plane(self.embeddings)
        places = 100 * places
        values = torch.unique(self.labels[self.source.asked()])
        images: list[Placed] = []
        for value in values[self._drawn(len(values))[:MAP_CLASSES]]:
            members = (self.labels == value).nonzero()[:, 0][:MAP_IMAGES]
            middle = _point(places[members].mean(0))
            images += [Placed(self._shown(index), *_point(places[index]), middle) for index in members.tolist()]
        points = tuple(_point(places[index]) for index in self._drawn(len(places))[:MAP_POINTS].sort().values)
        return Map(tuple(images), points, share)

    def _drawn(self, count: int) -> Tensor:
        return torch.randperm(count, generator=torch.Generator().manual_seed(0))

    def _neighbour(self, query: int, index: int, similarity: float) -> Neighbour:
        return Neighbour(self._shown(index), bool(self.labels[index] == self.labels[query]), similarity)

    def _pair(self, pair: Pair) -> ShownPair:
        return ShownPair(self._shown(pair.first), self._shown(pair.second), pair.similarity)

    def _shown(self, index: int) -> Shown:
        if index not in self._addresses:
            self._addresses[index] = thumbnail(self.source.image(index))
        return Shown(self._addresses[index], self.source.class_names[int(self.labels[index])])


def _point(row: Tensor) -> tuple[float, float]:
    x, y = row.tolist()
    return round(x, 1), round(y, 1)
