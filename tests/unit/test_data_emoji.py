"""The embedded data set is whole, divided by classes, and credited."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from nearfar.data import SPLITS, Emoji, emoji
from nearfar.errors import DataError

FOLDER = files("nearfar.data.emoji")
INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))


def test_the_sheet_is_the_one_its_index_describes():
    content = (FOLDER / "sheet.png").read_bytes()
    assert hashlib.sha256(content).hexdigest() == INDEX["sha256"]
    assert len(content) <= 3_000_000


def test_every_split_has_its_classes_and_four_views_of_each():
    counts = {split: Emoji(split).num_classes for split in SPLITS}
    assert counts == {"train": 468, "validation": 116, "test": 529}
    for split in SPLITS:
        data = Emoji(split)
        assert len(data) == 4 * data.num_classes == len(data.images) == len(data.labels)
        assert torch.equal(torch.bincount(data.labels), torch.full((data.num_classes,), 4))
        assert len(data.class_names) == len(data.codes) == data.num_classes


def test_no_class_is_in_two_splits():
    codes = [code for split in SPLITS for code in Emoji(split).codes]
    names = [name for split in SPLITS for name in Emoji(split).class_names]
    assert len(set(codes)) == len(codes) == len(INDEX["classes"])
    assert len(set(names)) == len(names)


def test_no_class_is_a_skin_tone_variant_or_told_apart_by_the_variation_selector():
    points = {point for one in INDEX["classes"] for point in one["code"].split("-")}
    assert points.isdisjoint({"fe0f", "1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})


def test_a_class_is_placed_by_a_hash_of_its_code_points():
    for one in INDEX["classes"]:
        place = int(hashlib.sha256(one["code"].encode()).hexdigest()[:16], 16) / 16**16
        assert one["split"] == ("train" if place < 0.4 else "validation" if place < 0.5 else "test")


def test_no_two_classes_look_nearly_the_same_in_any_drawing():
    images = torch.cat([Emoji(split).images for split in SPLITS]).flatten(1).float()
    pixels = F.normalize(images - images.mean(dim=1, keepdim=True), dim=1)
    similarity = pixels @ pixels.T
    classes = torch.arange(len(images)) // 4
    similarity[classes[:, None] == classes] = -1
    # The limit of 0.98 was applied before the palette; reducing the colours moves correlations by less than 0.01.
    assert similarity.max() < 0.99


@pytest.mark.parametrize(
    ("name", "view", "colour"),
    [("red-heart", 3, "red"), ("green-heart", 0, "green"), ("blue-heart", 2, "blue"), ("four-leaf-clover", 1, "green")],
)
def test_names_belong_to_their_pictures(name, view, colour):
    data = next(data for data in map(Emoji, SPLITS) if name in data.class_names)
    label = data.class_names.index(name)
    image = data.images[4 * label + view].float()
    middle = image[:, 12:20, 12:20].mean(dim=(1, 2))
    assert ("red", "green", "blue")[int(middle.argmax())] == colour


def test_an_item_is_an_image_and_its_label():
    data = Emoji("validation")
    image, label = data[5]
    assert image.dtype == torch.uint8
    assert image.shape == (3, 32, 32)
    assert label == 1
    assert torch.equal(image, data.images[5])
    with pytest.raises(IndexError):
        data[len(data)]


def test_pictures_stand_on_white():
    corners = Emoji("test").images[:, :, 0, 0].float().mean()
    assert corners > 240


def test_an_unknown_split_is_refused_with_the_splits_there_are():
    with pytest.raises(DataError, match="emoji has no split 'val': ask for train, validation or test"):
        Emoji("val")


def test_a_damaged_sheet_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("sheet.png", "index.json"):
        shutil.copy(str(FOLDER / name), tmp_path / name)
    content = bytearray((tmp_path / "sheet.png").read_bytes())
    content[1000] ^= 1
    (tmp_path / "sheet.png").write_bytes(content)
    monkeypatch.setattr(emoji, "files", lambda _: tmp_path)
    emoji._tiles.cache_clear()
    with pytest.raises(DataError, match="install nearfar again"):
        Emoji("train")
    emoji._tiles.cache_clear()


def test_the_notice_credits_every_vendor_under_its_licence():
    notice = (FOLDER / "NOTICE").read_text(encoding="utf-8")
    for package, version in INDEX["packages"].items():
        assert f"{package}, version {version}" in notice
    assert set(INDEX["licences"].values()) == {"Apache-2.0", "MIT", "CC-BY-4.0"}
    for words in (
        "Google Inc",
        "Copyright (c) Microsoft Corporation",
        "Twitter, Inc and other contributors",
        "https://creativecommons.org/licenses/by/4.0/",
        "Permission is hereby granted, free of charge",
        "Changes made here",
    ):
        assert words in notice
    apache = (FOLDER / "LICENSE-APACHE-2.0").read_text(encoding="utf-8")
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in apache
