"""The pictures of a report where the data say which images are queries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nearfar.data import ImageSource
from nearfar.report.scenes import NEIGHBOURS, Scenes


class Numbered(ImageSource):
    """Images of one colour each: their place."""

    def __init__(self, labels: list[int], queries: list[bool] | None, cameras: list[int] | None) -> None:
        self.labels = torch.tensor(labels)
        self.class_names = tuple(f"c{label}" for label in range(max(labels) + 1))
        self.queries = None if queries is None else torch.tensor(queries)
        self.cameras = None if cameras is None else torch.tensor(cameras)

    def image(self, index: int) -> Tensor:
        return torch.full((3, 8, 8), 10 * index, dtype=torch.uint8)


LABELS = [0, 0, 0, 1, 1, 1, 2, 2]
QUERIES = [True, False, False, True, False, False, False, False]
CAMERAS = [0, 0, 1, 0, 1, 0, 0, 1]
#: At angles on a circle: the nearest of 0 are 1 and 7, those of 3 are 5 and 6.
ANGLES = torch.tensor([0.0, 0.01, 0.9, 1.5, 2.2, 1.51, 1.53, 0.05])
X = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)


def test_queries_find_in_the_gallery_what_their_camera_did_not_see() -> None:
    found = Scenes(Numbered(LABELS, QUERIES, CAMERAS), X).queries()
    shown = {query.image.name: [(near.image.name, near.right) for near in query.neighbours] for query in found}
    assert shown == {
        "c0": [("c2", False), ("c0", True), ("c1", False), ("c2", False), ("c1", False)],
        "c1": [("c2", False), ("c0", False), ("c1", True), ("c2", False), ("c0", False)],
    }
    assert all(len(query.neighbours) == NEIGHBOURS for query in found)


def test_without_queries_every_image_asks_all_others() -> None:
    found = Scenes(Numbered(LABELS, None, CAMERAS), X).queries()
    assert len(found) == 8
    cosines = (X @ X.T).fill_diagonal_(-2)
    for query in found:
        place = next(
            index for index in range(8) if Scenes(Numbered(LABELS, None, None), X)._shown(index) == query.image
        )
        expected = cosines[place].sort(descending=True, stable=True)
        values = pytest.approx(expected.values[:NEIGHBOURS].tolist(), abs=1e-6)
        assert [near.similarity for near in query.neighbours] == values
        assert [near.right for near in query.neighbours] == [
            LABELS[index] == LABELS[place] for index in expected.indices[:NEIGHBOURS]
        ]


def test_distractors_are_in_no_pair_and_on_no_map() -> None:
    scenes = Scenes(Numbered(LABELS, QUERIES, CAMERAS), X)
    positives, negatives = scenes.hardest()
    names = [image.name for pair in (*positives, *negatives) for image in (pair.first, pair.second)]
    assert set(names) == {"c0", "c1"}
    assert (positives[0].first.name, positives[0].similarity) == ("c0", pytest.approx(float((X @ X.T)[0, 2]), abs=1e-6))
    assert {placed.image.name for placed in scenes.map().images} == {"c0", "c1"}
