"""Folders of images: what is read, how it is ordered, divided, and refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nearfar.data import FRACTIONS, Adapted, ClassSubset, Emoji, ImageFolder, open_dataset, split_classes
from nearfar.data.imagefolder import natural, split_folders
from nearfar.errors import ArgumentError, DataError


def paint(path: Path, colour=(10, 200, 30), size=(40, 30), mode="RGB", **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **how)
    return path


def folder(root: Path, classes: int = 8, images: int = 2) -> Path:
    for one in range(classes):
        for number in range(images):
            paint(root / f"class{one + 1}" / f"{number}.png", (one * 10, number * 50, 0))
    return root


# What is read ---------------------------------------------------------------------------------------------------------


def test_classes_and_files_are_in_natural_order(tmp_path):
    for name in ("b10", "b2", "a"):
        for file in ("img10.png", "img9.png"):
            paint(tmp_path / name / file)
    data = ImageFolder(tmp_path)
    assert data.class_names == ("a", "b2", "b10")
    assert [path.name for path in data.paths[:2]] == ["img9.png", "img10.png"]
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.num_classes == 3
    assert len(data) == 6


def test_natural_order_is_total_and_ignores_case():
    names = ["B1", "a10", "a9", "10", "9", "b01", "b1", "", "a"]
    assert sorted(names, key=natural) == ["", "9", "10", "a", "a9", "a10", "B1", "b01", "b1"]


def test_an_item_is_a_square_uint8_image_and_its_label(tmp_path):
    data = ImageFolder(folder(tmp_path), image_size=24)
    image, label = data[3]
    assert image.dtype == torch.uint8
    assert image.shape == (3, 24, 24)
    assert label == 1
    assert image[:, 12, 12].tolist() == [10, 50, 0]


def test_the_middle_square_is_taken_and_scaled(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    for name in ("0.png", "1.png"):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(wide).save(tmp_path / "a" / name)
    assert ImageFolder(tmp_path, image_size=20)[0][0].eq(255).all()
    assert ImageFolder(tmp_path, image_size=10)[0][0][:, 1:-1, 1:-1].eq(255).all()


@pytest.mark.parametrize("size", [(20, 20), (10, 40), (40, 10), (17, 5)])
def test_files_and_tensors_of_the_same_pixels_are_cut_to_the_same_part(tmp_path, size):
    # A ramp either way says where each pixel comes from.
    rows, columns = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    image = Image.fromarray(np.stack([4 * rows, 4 * columns, 0 * rows], 2).astype(np.uint8))
    for number in (0, 1):
        (tmp_path / "a").mkdir(exist_ok=True)
        image.save(tmp_path / "a" / f"{number}.png")
    found = ImageFolder(tmp_path, image_size=size)[0][0].float()
    height, width = size
    scale = min(40 / height, 60 / width)
    assert found.shape == (3, height, width)
    steps = (torch.arange(height) + 0.5) * scale, (torch.arange(width) + 0.5) * scale
    inner = found[:, 1:-1, 1:-1]  # at the border an enlarged picture has no ramp
    torch.testing.assert_close(inner[0, :, 0], 4 * (20 - scale * height / 2 + steps[0] - 0.5)[1:-1], rtol=0, atol=2.5)
    torch.testing.assert_close(inner[1, 0], 4 * (30 - scale * width / 2 + steps[1] - 0.5)[1:-1], rtol=0, atol=2.5)
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    adapted = Adapted(Pairs([(tensor, 0), (tensor, 0)]), image_size=size)[0][0].float()
    torch.testing.assert_close(adapted[:, 1:-1, 1:-1], inner, rtol=0, atol=3)


@pytest.mark.parametrize("size", [0, (3,), (4, 0), "64", (8, 8.0), True])
def test_a_size_that_is_none_is_told(tmp_path, size):
    folder(tmp_path, 1)
    with pytest.raises(ArgumentError, match="an image size is"):
        ImageFolder(tmp_path, image_size=size)[0]


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "bmp", "gif", "webp", "tif", "ppm"])
def test_common_formats_are_read(tmp_path, ending):
    for number in (0, 1):
        paint(tmp_path / "a" / f"{number}.{ending}", (200, 40, 90))
    image = ImageFolder(tmp_path, image_size=16)[0][0]
    colour = image.float().mean(dim=(1, 2))
    assert (colour - torch.tensor([200.0, 40.0, 90.0])).abs().max() < 6  # JPEG and the palette of GIF are inexact


def test_grey_palette_transparent_and_deep_images_become_rgb(tmp_path):
    root = tmp_path / "a"
    paint(root / "grey.png", (100, 100, 100), mode="L")
    paint(root / "palette.png", (100, 100, 100), mode="P")
    paint(root / "cmyk.jpg", (100, 100, 100), mode="CMYK")
    Image.fromarray(np.full((30, 30), 100 * 256, np.uint16)).save(root / "deep.png")
    Image.new("RGBA", (30, 30), (100, 100, 100, 255)).save(root / "opaque.png")
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(root / "transparent.png")
    data = ImageFolder(tmp_path, image_size=8)
    for index, path in enumerate(data.paths):
        expected = 255 if path.name == "transparent.png" else 100
        assert (data[index][0].int() - expected).abs().max() <= 2, path.name


def test_photographs_are_turned_upright_as_their_exif_data_says(tmp_path):
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    (tmp_path / "a").mkdir()
    for name in ("0.jpg", "1.jpg"):
        Image.fromarray(pixels).save(tmp_path / "a" / name, exif=exif)
    image = ImageFolder(tmp_path, image_size=20)[0][0].float()
    assert image[:, :8].mean() < 5
    assert image[:, 12:].mean() > 250


def test_hidden_files_and_other_kinds_are_passed_over(tmp_path):
    folder(tmp_path, classes=2)
    (tmp_path / "class1" / ".hidden.png").write_bytes(b"")
    (tmp_path / "class1" / "notes.txt").write_text("notes")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").write_text("about")
    assert len(ImageFolder(tmp_path)) == 4


def test_a_whole_folder_passes_the_check(tmp_path):
    ImageFolder(folder(tmp_path)).check()


# What is refused ------------------------------------------------------------------------------------------------------


def refusal(action, *arguments, **keywords) -> str:
    with pytest.raises(DataError) as caught:
        action(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_folder(tmp_path):
    assert refusal(ImageFolder, tmp_path / "gone") == (
        f"there is no folder {tmp_path / 'gone'}: give a folder with one sub-folder of images for each class"
    )


def test_a_file_in_place_of_a_folder(tmp_path):
    file = paint(tmp_path / "a.png")
    assert refusal(ImageFolder, file).startswith(f"{file} is a file: give a folder")


def test_no_class_folders(tmp_path):
    assert "has no class folders, and no images either: give a folder" in refusal(ImageFolder, tmp_path)
    paint(tmp_path / "a.png")
    assert "has no class folders, but 1 image beside each other" in refusal(ImageFolder, tmp_path)


def test_no_supported_image(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.psd").write_bytes(b"")
    message = refusal(ImageFolder, tmp_path)
    assert message.startswith(f"no class folder of {tmp_path} has an image of a supported kind: 1 folder searched for")
    assert ".png" in message


def test_a_class_with_one_image_is_named(tmp_path):
    folder(tmp_path)
    paint(tmp_path / "lonely" / "a.png")
    assert refusal(ImageFolder, tmp_path) == (
        f"the class 'lonely' has only one image in {tmp_path}: pairs and retrieval need two or more of each class; "
        "add images or remove the class folder"
    )


def test_a_class_without_images_and_many_such_classes_are_named(tmp_path):
    folder(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "the class 'empty' has no image in" in refusal(ImageFolder, tmp_path)
    for number in range(7):
        (tmp_path / f"empty{number}").mkdir()
    message = refusal(ImageFolder, tmp_path)
    assert "the classes 'empty', 'empty0', 'empty1', 'empty2', 'empty3' and 3 more have no image in" in message


def test_an_unreadable_image_is_named_when_it_is_loaded_and_when_all_are_checked(tmp_path):
    folder(tmp_path)
    broken = tmp_path / "class2" / "broken.png"
    broken.write_bytes(b"not an image")
    data = ImageFolder(tmp_path)
    expected = f"cannot read the image {broken}: it is not an image that Pillow knows; replace or remove it"
    assert refusal(lambda: data[data.paths.index(broken)]) == expected
    assert refusal(data.check) == (
        f"1 image of 17 cannot be read: {broken} (it is not an image that Pillow knows); replace or remove them"
    )


def test_an_image_that_has_gone_is_named_for_what_it_is(tmp_path):
    folder(tmp_path)
    data = ImageFolder(tmp_path)
    data.paths[3].unlink()
    assert refusal(lambda: data[3]) == f"there is no image {data.paths[3]}"


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_truncated_image_is_named(tmp_path, ending):
    folder(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    path = tmp_path / "class1" / f"cut.{ending}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    data = ImageFolder(tmp_path, image_size=16)
    message = refusal(lambda: data[data.paths.index(path)])
    assert message.startswith(f"cannot read the image {path}: ")
    assert str(path) in refusal(data.check)


def test_many_unreadable_images_are_counted(tmp_path):
    folder(tmp_path)
    for number in range(8):
        (tmp_path / "class1" / f"broken{number}.jpg").write_bytes(b"")
    message = refusal(ImageFolder(tmp_path).check)
    assert message.startswith("8 images of 24 cannot be read: ")
    assert message.endswith(", and 3 more; replace or remove them")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may read every folder")
def test_a_folder_that_may_not_be_listed(tmp_path):
    folder(tmp_path)
    (tmp_path / "class1").chmod(0)
    try:
        assert "cannot list the folder" in refusal(ImageFolder, tmp_path)
    finally:
        (tmp_path / "class1").chmod(0o755)


# How it is divided ----------------------------------------------------------------------------------------------------


def test_splits_share_no_class_and_lose_none(tmp_path):
    data = ImageFolder(folder(tmp_path, classes=20))
    splits = split_classes(data, {"train": 0.5, "validation": 0.2, "test": 0.3}, seed=3)
    assert [part.num_classes for part in splits.values()] == [10, 4, 6]
    names = [name for part in splits.values() for name in part.class_names]
    assert sorted(names) == sorted(data.class_names)
    for part in splits.values():
        assert part.labels.unique().tolist() == list(range(part.num_classes))
        for index in range(len(part)):
            image, label = part[index]
            original = data.class_names.index(part.class_names[label])
            assert int(image[0, 0, 0]) == original * 10


def test_a_division_is_repeatable_and_follows_the_seed_and_the_names(tmp_path):
    data = ImageFolder(folder(tmp_path, classes=12))
    first, again, other = (split_classes(data, seed=seed)["test"].class_names for seed in (0, 0, 1))
    assert first == again != other


def test_every_split_gets_two_classes_at_least(tmp_path):
    data = ImageFolder(folder(tmp_path, classes=6))
    assert [part.num_classes for part in split_classes(data).values()] == [2, 2, 2]
    few = ClassSubset(data, range(5))
    assert refusal(split_classes, few) == (
        "5 classes cannot be divided into train, validation, test: each needs at least 2 classes, 6 in all"
    )


@pytest.mark.parametrize("fractions", [{}, {"train": 0.5, "test": 0.4}, {"train": 1.5, "test": -0.5}])
def test_fractions_that_do_not_add_up_are_refused(tmp_path, fractions):
    with pytest.raises(ArgumentError, match="give positive numbers that add up to 1"):
        split_classes(ImageFolder(folder(tmp_path)), fractions)


def test_a_subset_of_classes_numbers_them_in_the_order_given(tmp_path):
    data = ImageFolder(folder(tmp_path))
    part = ClassSubset(data, [5, 2])
    assert part.class_names == ("class6", "class3")
    assert part.labels.tolist() == [1, 1, 0, 0]
    assert int(part[0][0][0, 0, 0]) == 20


def test_a_subset_checks_the_files_it_came_from(tmp_path):
    folder(tmp_path)
    (tmp_path / "class1" / "broken.png").write_bytes(b"")
    assert "broken.png" in refusal(split_classes(ImageFolder(tmp_path))["train"].check)


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_sub_folders_named_like_splits_are_the_splits(tmp_path, validation):
    for number, split in enumerate(("train", validation, "test")):
        folder(tmp_path / split, classes=number + 2)
    counts = {split: open_dataset(tmp_path, split).num_classes for split in ("train", "validation", "test")}
    assert counts == {"train": 2, "validation": 3, "test": 4}


def test_a_class_may_be_called_like_a_split(tmp_path):
    folder(tmp_path)
    paint(tmp_path / "test" / "0.png")
    paint(tmp_path / "test" / "1.png")
    assert split_folders(tmp_path) == {}
    assert "test" in ImageFolder(tmp_path).class_names


def test_a_split_that_a_divided_folder_lacks(tmp_path):
    folder(tmp_path / "train")
    folder(tmp_path / "test")
    assert refusal(open_dataset, tmp_path, "validation") == (
        f"{tmp_path} is divided into test, train and has no validation: add it, have some of the training "
        "classes validate, a fifth by --set data.fold=1/5, or put all classes together to have them divided"
    )
    folder(tmp_path / "other" / "train")
    assert refusal(open_dataset, tmp_path / "other", "test") == (
        f"{tmp_path / 'other'} is divided into train and has no test: add it, or put all classes together to have them "
        "divided"
    )


def test_two_folders_for_one_split(tmp_path):
    for split in ("train", "val", "validation"):
        folder(tmp_path / split)
    assert refusal(open_dataset, tmp_path) == (
        f"{tmp_path} has both a folder val and a folder validation: remove or rename one of them"
    )


# Any data set ---------------------------------------------------------------------------------------------------------


class Pairs:
    """What a user may bring: items by index, and a length."""

    def __init__(self, items, **attributes):
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def plain(value=120, shape=(3, 30, 50)):
    return torch.full(shape, value, dtype=torch.uint8)


@pytest.mark.parametrize(
    "image",
    [
        plain(),
        plain().float() / 255,
        plain().double() / 255,
        plain(shape=(1, 40, 40)),
        np.full((30, 50, 3), 120, np.uint8),
        np.full((30, 50), 120, np.uint8),
        Image.new("RGB", (50, 30), (120, 120, 120)),
        Image.new("L", (50, 30), 120),
    ],
    ids=["uint8", "float32", "float64", "grey", "array", "grey array", "PIL", "grey PIL"],
)
def test_any_common_form_of_image_is_adapted(image):
    out, label = Adapted(Pairs([(image, 7)]), image_size=16)[0]
    assert out.dtype == torch.uint8
    assert out.shape == (3, 16, 16)
    assert out.eq(120).all()
    assert label == 0


@pytest.mark.parametrize("attributes", [{}, {"labels": [5, 9, 5, 7]}, {"targets": torch.tensor([5, 9, 5, 7])}])
def test_labels_are_numbered_afresh_in_their_order(attributes):
    data = Adapted(Pairs([(plain(), label) for label in (5, torch.tensor(9), np.int64(5), 7)], **attributes))
    assert data.labels.tolist() == [0, 2, 0, 1]
    assert data.class_names == ("5", "7", "9")


def test_labels_in_an_attribute_spare_loading_most_of_the_items():
    labels = [index // 100 for index in range(1000)]
    loaded = []

    class Watched(Pairs):
        def __getitem__(self, index):
            loaded.append(index)
            return super().__getitem__(index)

    data = Watched([(plain(), label) for label in labels], targets=labels, classes=[f"c{label}" for label in range(10)])
    adapted = Adapted(data)
    assert adapted.class_names == tuple(data.classes)
    assert adapted.labels.tolist() == labels
    assert 10 <= len(loaded) <= 20
    assert {labels[index] for index in loaded} == set(range(10))


@pytest.mark.parametrize("name", ["labels", "targets"])
def test_labels_that_items_do_not_have_are_not_taken(name):
    # As torchvision's data sets keep what a target_transform has not seen yet.
    data = Adapted(Pairs([(plain(), label // 2) for label in range(6)], **{name: list(range(6))}))
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the data set Pairs is empty"),
        ([plain()], r"item 0 of Pairs is not a pair \(image, label\) but a Tensor"),
        ([(plain(), 1, 2)], r"item 0 of Pairs is not a pair \(image, label\) but a tuple of 3"),
        ([(plain(), 0), (plain(), "cat")], "the label of item 1 of Pairs is not a class id but 'cat': give integers"),
        ([(plain(), 0.5)], "is not a class id but 0.5"),
        ([("cat.png", 0)], "an image is a str: give a PIL image"),
        ([(torch.zeros(4, 8, 8), 0)], r"an image is a Tensor \(4, 8, 8\) of torch.float32: give a PIL image"),
        ([(torch.zeros(3, 8, 8) - 1, 0)], "an image tensor has values from -1 to -1: give uint8, or floats"),
        ([(torch.zeros(3, 8, 8) / 0, 0)], "finite floats"),
    ],
)
def test_what_cannot_be_adapted_is_described(items, message):
    with pytest.raises(DataError, match=message):
        Adapted(Pairs(items)).check()


def test_a_stream_cannot_be_adapted():
    with pytest.raises(DataError, match="a data set needs a length and items by index, and generator lacks one"):
        Adapted(iter(one for one in ()))


# open_dataset ---------------------------------------------------------------------------------------------------------


def test_the_embedded_data_open_by_name():
    data = open_dataset("emoji", "validation")
    assert isinstance(data, Emoji)
    assert data.split == "validation"


def test_a_folder_opens_by_path_and_is_divided_by_classes(tmp_path):
    folder(tmp_path, classes=20)
    parts = [open_dataset(str(tmp_path), split, image_size=20) for split in FRACTIONS]
    assert [part.num_classes for part in parts] == [8, 2, 10]
    assert parts[0][0][0].shape == (3, 20, 20)
    assert len({name for part in parts for name in part.class_names}) == 20


def test_any_data_set_opens_and_is_divided_by_classes():
    pairs = Pairs([(plain(label), label) for label in range(20) for _ in range(2)])
    test = open_dataset(pairs, "test", image_size=8)
    assert test.num_classes == 10
    image, label = test[3]
    assert int(image[0, 0, 0]) == int(test.class_names[label])


def test_an_unknown_data_set_and_an_unknown_split():
    assert refusal(open_dataset, "emojis") == (
        "there is no data set 'emojis': it is neither a folder, nor a table (.csv, .parquet) or record file (.rec), "
        "nor the name of an embedded one (emoji, orl)"
    )
    assert refusal(open_dataset, "emoji", "dev") == ("there is no split 'dev': ask for train, validation or test")


def test_the_facade_exports_exactly_what_it_names():
    import nearfar.data as facade

    assert facade.__all__ == sorted(facade.__all__, key=lambda name: (not name.isupper(), name.islower(), name))
    assert all(hasattr(facade, name) for name in facade.__all__)
