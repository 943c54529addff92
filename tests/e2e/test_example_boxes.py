"""The example on boxes: it trains with the one recipe, reads the boxes of deepforest, and says what is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "boxes"


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return _module("data", monkeypatch)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return _module("detector", monkeypatch)


def _module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_boxes_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE / "train.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"NEARFAR_PLUGINS": "iou"},
    )


def test_it_learns_boxes_with_the_recipe_of_a_detector():
    done = train("--synthetic", "--epochs", "4", "--loss", "ciou")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^(untrained|focal \+ 2\.0 \* ciou) +([\d.]+) ", done.stdout, flags=re.MULTILINE))
    assert float(rows["focal + 2.0 * ciou"]) > float(rows["untrained"]) + 0.03


def test_what_is_not_a_loss_is_one_sentence():
    done = train("--synthetic", "--epochs", "1", "--loss", "cciou")
    assert done.returncode == 1
    assert "train.py: no loss is called 'cciou'; did you mean 'ciou'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_deepforest_it_says_what_to_install(data, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(data.DataError, match=r"pip install --no-deps deepforest==2.1.0, or give --data .* --synthetic"):
        data.folder_of_deepforest()


def test_the_boxes_of_deepforest_are_951(data):
    try:
        folder = data.folder_of_deepforest()
    except data.DataError as error:
        pytest.skip(str(error))
    training, testing = data.split(data.trees(folder))
    assert sum(len(tile.boxes) for tile in training + testing) == 951


NOTES = """<annotation>{}</annotation>"""
OBJECT = (
    "<object><name>Tree</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def test_an_image_is_cut_into_tiles_with_the_boxes_whose_centre_is_there(data, tmp_path):
    from PIL import Image

    image = Image.new("RGB", (300, 260))
    image.paste((255, 0, 0), (260, 10, 290, 50))
    image.save(tmp_path / "trees.png")
    boxes = [(260, 10, 290, 50), (240, 100, 290, 120), (20, 20, 60, 60)]
    (tmp_path / "trees.xml").write_text(NOTES.format("".join(OBJECT.format(*box) for box in boxes)), encoding="utf-8")
    left, right = data.trees(tmp_path)
    assert left.boxes.tolist() == [[10, 10, 30, 30]]
    assert right.boxes.tolist() == [[2, 5, 17, 25], [-8, 50, 17, 60]]  # of 256 on, and in half as many pixels
    assert left.image.shape == right.image.shape == (3, 128, 128)
    red = right.image[0] > 0.9
    assert red[5:25, 2:17].all()
    assert red.sum() == 20 * 15


@pytest.mark.parametrize(
    ("files", "said"),
    [({}, "has no image with boxes"), ({"trees.xml": "<annotation>"}, r"trees\.xml or its image cannot be read")],
)
def test_a_folder_that_holds_no_boxes_says_so(data, tmp_path, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(data.DataError, match=said):
        data.trees(tmp_path)


def test_a_place_learns_the_smallest_box_whose_middle_it_is_in(detector):
    boxes = torch.tensor([[0.0, 0.0, 60.0, 60.0], [24.0, 24.0, 40.0, 40.0]])
    owner = detector.assign(boxes, 32)
    places = detector.places(32)
    assert owner[7, 7] == 1  # (30, 30), in the middle of both
    assert owner[0, 0] == -1  # within the large box, and far from its middle
    near = (places - 32).abs().amax(0) <= detector.RADIUS * detector.STRIDE
    assert torch.equal(owner == 1, near)
    assert (detector.assign(torch.zeros(1, 4), 32) == -1).all()
