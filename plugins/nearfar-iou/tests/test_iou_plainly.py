"""The plain definitions agree with the losses where a formula of areas says nothing: boxes that are none, or alike.

That they agree on proper boxes, for every preset and format, is a law that the conformance checks hold them to.
"""

from __future__ import annotations

import pytest
import torch

from nearfar.registry import default_registry
from nearfar.testing.definition import definition_of
from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject
from nearfar_iou import plugin
from nearfar_iou.specs.shared import BOXES

#: Predictions and targets, xyxy.
PAIRS = [
    ([0, 0, 10, 8], [0, 0, 10, 10]),  # shared edges
    ([0, 0, 5, 5], [5, 1, 9, 4]),  # touching
    ([1, 2, 5, 5], [1, 2, 5, 5]),  # equal
    ([1, 1, 1, 4], [0, 0, 5, 5]),  # a line within
    ([7, 1, 7, 4], [0, 0, 5, 5]),  # a line apart
    ([3, 3, 3, 3], [0, 0, 5, 5]),  # a point within
    ([3, 3, 3, 3], [3, 3, 3, 3]),  # equal points
    ([2, 1, 2, 4], [2, 1, 2, 4]),  # equal lines
    ([10, 10, 0, 0], [0, 0, 10, 10]),  # inverted over the target
    ([20, 1, 12, 6], [0, 0, 7, 7]),  # inverted in one axis, apart
    ([1, 1, 3, 3], [6, 0, 2, 5]),  # an inverted target
    ([5, 0, 2, 3], [4, 1, 1, 2]),  # both inverted
]
#: The same of rotated boxes, cxcywhr.
ROTATED = [
    ([0, 0, 2, 1, 0.3], [0, 0, 2, 1, 0.3]),  # equal
    ([0, 0, 2, 1, 0.3], [0, 0, 1, 2, 0.3 + torch.pi / 2]),  # equal, with the axes named the other way round
    ([0, 0, 2, 0, 0.3], [1, 0, 2, 1, 0.1]),  # without width
    ([0, 0, 0, 2, 0.3], [1, 0, 2, 1, 0.1]),
    ([0, 0, 0, 0, 0.3], [1, 0, 2, 1, 0.1]),  # a point
    ([0, 0, -2, 1, 0.3], [1, 0, 2, 1, 0.1]),  # inverted
    ([0, 0, 2, 1, 0.3], [1, 0, 2, 0, 0.1]),  # a target without width
    ([0, 0, 2, 1, 0.3], [400, 0, 1, 2, 0.1]),  # far apart
]
ON_BOXES = [spec.name for spec in plugin.nearfar_losses() if spec.inputs == BOXES]
FAMILY = {spec.name: spec.family for spec in plugin.nearfar_losses()}


@pytest.mark.parametrize("name", ON_BOXES)
def test_a_definition_agrees_on_boxes_that_are_none_or_alike(name: str) -> None:
    registry = default_registry()
    subject = Subject(registry.resolve("loss", f"iou.{name}"), registry)
    for pred, target in ROTATED if FAMILY[name] == "rotated" else PAIRS:
        scene = Scene(
            {
                "pred_boxes": torch.tensor([pred], dtype=torch.float64),
                "target_boxes": torch.tensor([target], dtype=torch.float64),
            }
        )
        kept = {"running_mean": torch.ones(())} if name == "wiou" else {}
        expected = float(definition_of(subject, {}, **kept)(*scene.inputs.values()))
        found = float(subject.value(scene, subject.make()))
        # The roots of nearly equal matrices lose half their digits, in the definition alone.
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-6 if name in ("gwd", "probiou") else 1e-12), (
            pred,
            target,
        )
