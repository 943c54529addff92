"""Cross-validation of classes: what is trained on, validated on and tested on have none in common."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from nearfar.data import Adapted, ClassUnion, Emoji, ImageSource, fold_classes
from nearfar.errors import ConfigError, DataError
from nearfar.train.sources import loader_workers, open_sources, validates


class Coded(ImageSource):
    """Two images a class, each of which says which one it is."""

    def __init__(self, names: str, first: int) -> None:
        self.class_names = tuple(names)
        self.labels = torch.arange(len(names)).repeat_interleave(2)
        self.first = first
        self.checked = 0

    def image(self, index: int) -> Tensor:
        return torch.full((3, 2, 2), self.first + index, dtype=torch.uint8)

    def check(self) -> None:
        self.checked += 1


def test_a_union_has_the_images_of_each_with_labels_that_go_on() -> None:
    union = ClassUnion([Coded("ab", 0), Coded("cde", 100)])
    assert union.class_names == ("a", "b", "c", "d", "e")
    assert union.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [int(union[place][0][0, 0, 0]) for place in range(10)] == [0, 1, 2, 3, 100, 101, 102, 103, 104, 105]
    assert int(union[-1][0][0, 0, 0]) == 105
    with pytest.raises(IndexError):
        union[10]


def test_what_is_known_of_the_images_of_all_sources_is_known_of_the_union() -> None:
    parts = [Coded("ab", 0), Coded("cd", 0)]
    for number, part in enumerate(parts):
        part.cameras = torch.arange(4) + number
    parts[0].queries = torch.tensor([True, False, True, False])
    union = ClassUnion(parts)
    assert union.cameras is not None
    assert union.cameras.tolist() == [0, 1, 2, 3, 1, 2, 3, 4]
    assert union.queries is None


def test_the_images_of_a_union_are_checked() -> None:
    parts = [Coded("ab", 0), Coded("cd", 0)]
    ClassUnion(parts).check()
    assert [part.checked for part in parts] == [1, 1]


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_class_validates_once_and_trains_else(folds: int) -> None:
    names = "abcdefghijkl"
    divided = fold_classes(Coded(names, 0), folds)
    assert len(divided) == folds
    assert sorted(name for _, validation in divided for name in validation.class_names) == list(names)
    for train, validation in divided:
        assert sorted({*train.class_names, *validation.class_names}) == list(names)
        assert not {*train.class_names} & {*validation.class_names}
        assert abs(len(validation.class_names) - len(names) / folds) < 1


def test_folds_go_by_the_names_of_classes_and_not_by_their_order() -> None:
    there, back = (fold_classes(Coded(names, 0), 3) for names in ("abcdefgh", "hgfedcba"))
    assert [{*v.class_names} for _, v in there] == [{*v.class_names} for _, v in back]


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(DataError, match="7 classes cannot be divided into fold 1, fold 2, fold 3, fold 4"):
        fold_classes(Coded("abcdefg", 0), 4)


def test_a_fold_of_the_emoji_leaves_the_test_classes_alone() -> None:
    own = open_sources("emoji", None, image_size=32)
    seen: set[str] = set()
    for part in range(1, 5):
        crossed = open_sources("emoji", None, image_size=32, fold=f"{part}/4")
        crossed.check()
        assert crossed.test.class_names == own.test.class_names
        assert {*crossed.train.class_names, *crossed.validation.class_names} == {
            *own.train.class_names,
            *own.validation.class_names,
        }
        seen |= {*crossed.validation.class_names}
    assert seen == {*own.train.class_names, *own.validation.class_names}


def test_a_fold_has_the_images_that_its_classes_have() -> None:
    crossed = open_sources("emoji", None, image_size=32, fold="2/4")
    whole = {name: split for split in ("train", "validation") for name in Emoji(split).class_names}
    for place in range(0, len(crossed.validation), 37):
        image, label = crossed.validation[place]
        name = crossed.validation.class_names[label]
        source = Emoji(whole[name])
        own = source.images[source.labels == source.class_names.index(name)]
        assert any(torch.equal(image, one) for one in own)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(16):
        (tmp_path / f"class{number}").mkdir()
        for view in range(2):
            Image.new("RGB", (8, 8), (number, view, 0)).save(tmp_path / f"class{number}" / f"{view}.png")
    return tmp_path


def test_a_folder_that_is_not_divided_has_folds_too(photos: Path) -> None:
    crossed = open_sources(str(photos), None, image_size=8, fold="1/2")
    crossed.check()
    assert sorted(name for part in crossed for name in part.class_names) == sorted(f"class{n}" for n in range(16))
    assert loader_workers(None, crossed.train) > 0


def test_images_are_loaded_by_no_more_processes_than_there_are_cores_for_this_one(photos: Path, monkeypatch) -> None:
    monkeypatch.setattr("nearfar.cores.os.cpu_count", lambda: 64)
    monkeypatch.setattr("nearfar.cores.os.sched_getaffinity", lambda pid: {3}, raising=False)
    train = open_sources(str(photos), None, image_size=8).train
    assert loader_workers(None, train) == 1
    assert loader_workers(5, train) == 5


def test_data_from_python_has_folds_too(photos: Path) -> None:
    pairs = [(Image.new("RGB", (8, 8)), number // 2) for number in range(40)]
    crossed = open_sources("", Adapted(pairs, image_size=8), image_size=8, fold="3/3")
    assert sum(part.num_classes for part in crossed) == 20


@pytest.mark.parametrize("fold", ["3/2", "1/1"])
def test_a_fold_that_there_is_not_is_refused(fold: str) -> None:
    with pytest.raises(ConfigError, match=rf"data.fold is {fold}, but must be a part of two or more, such as 2/4"):
        open_sources("emoji", None, image_size=32, fold=fold)


def test_a_class_that_two_parts_of_a_folder_share_is_refused(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        for name in ("a", "b", split):
            (tmp_path / split / name).mkdir(parents=True)
            for view in range(2):
                Image.new("RGB", (8, 8)).save(tmp_path / split / name / f"{view}.png")
    with pytest.raises(DataError, match="2 classes are in train and in validation"):
        open_sources(str(tmp_path), None, image_size=8, fold="1/2")


def test_data_without_a_split_for_validation_is_divided_by_a_fold(
    photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("divided")
    names = sorted(path.name for path in photos.iterdir())
    rows = ["path,label,split"]
    for place, name in enumerate(names):
        split = "test" if place % 2 else "train"
        rows += [f"{path},{name},{split}" for path in sorted((photos / name).iterdir())]
        (root / "folders" / split).mkdir(parents=True, exist_ok=True)
        (root / "folders" / split / name).symlink_to(photos / name)
    (root / "all.csv").write_text("\n".join(rows))
    for source in (str(root / "all.csv"), str(root / "folders")):
        assert not validates(source)
        with pytest.raises(DataError, match=r"has no validation: add it, have .* --set data.fold=1/5"):
            open_sources(source, None, image_size=8)
        parts = [open_sources(source, None, image_size=8, fold=f"{part}/2") for part in (1, 2)]
        for found in parts:
            found.check()
            assert set(found.test.class_names) == {*names[1::2]}
            assert {*found.train.class_names, *found.validation.class_names} == {*names[::2]}
        assert set(parts[0].validation.class_names) == set(parts[1].train.class_names)
    assert validates("emoji")
    assert validates(str(photos))
    with pytest.raises(DataError, match="data has no train: give a dataset for each of train, test"):
        open_sources("", {}, image_size=8, fold="1/2")
