"""``nearfar init`` looks at images, writes what to begin with and why, and what it writes trains."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from nearfar.cli import cli, main
from nearfar.discovery import Selector, discover
from nearfar.errors import ConfigError, DataError
from nearfar.registry import Registry
from nearfar.train import Config
from nearfar.train.advice import advise, document, remarks
from nearfar.train.survey import MOST_HEADERS, Survey, survey

REGISTRY = Registry(discover(selector=Selector(allow=frozenset({"margin", "pair"}))))


def registry_of(*plugins: str) -> Registry:
    return Registry(discover(selector=Selector(allow=frozenset(plugins))))


def found(counts: tuple[int, ...], side: int = 300, **more: object) -> Survey:
    base = Survey(
        source="photos", divided=False, counts=counts, classes=2 * len(counts), images=2 * sum(counts), sides=(side,)
    )
    return dataclasses.replace(base, **more)


def settings(survey: Survey, registry: Registry = REGISTRY) -> dict[str, object]:
    return {choice.key: choice.value for choice in advise(survey, registry)}


def reason(survey: Survey, key: str, registry: Registry = REGISTRY) -> str:
    return next(choice.why for choice in advise(survey, registry) if choice.key == key)


def paint(root: Path, classes: int, views: int, size: tuple[int, int] = (40, 36)) -> None:
    from PIL import Image

    for number in range(classes):
        (root / f"class{number}").mkdir(parents=True)
        for view in range(views):
            Image.new("RGB", size, (20 * number, 60 * view, 0)).save(root / f"class{number}" / f"{view}.png")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight classes of three images of 40 × 36 pixels; the working directory is the one they are in."""
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "photos", classes=8, views=3)
    return tmp_path / "photos"


@pytest.fixture
def own_warnings() -> Iterator[None]:
    before = warnings.showwarning
    yield
    warnings.showwarning = before


# ---- what is found


def test_a_folder_is_counted_by_its_training_classes_and_measured_by_its_shorter_sides(photos):
    seen = survey(photos)
    assert (seen.classes, seen.images, seen.counts, seen.divided) == (8, 24, (3, 3, 3), False)
    assert set(seen.sides) == {36}
    assert len(seen.sides) == 24


def test_a_divided_folder_is_found_to_be_divided(tmp_path):
    for split, classes in (("train", 5), ("val", 2), ("test", 3)):
        paint(tmp_path / "parts" / split, classes=classes, views=2)
    seen = survey(tmp_path / "parts")
    assert (seen.divided, seen.classes, seen.counts) == (True, 10, (2,) * 5)


def test_a_table_is_looked_at_as_a_folder_is(photos, tmp_path):
    rows = [f"photos/class{number}/{view}.png,{number}" for number in range(8) for view in range(3)]
    (tmp_path / "all.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    assert survey("all.csv").counts == (3, 3, 3)
    assert survey("all.csv").images == 24


def test_of_many_images_some_headers_are_read_from_the_first_to_the_last(tmp_path, monkeypatch):
    from nearfar.train import survey as module

    paint(tmp_path / "photos", classes=8, views=3)
    read: list[str] = []
    monkeypatch.setattr(module, "MOST_HEADERS", 4)
    monkeypatch.setattr(module, "dimensions", lambda path: read.append(path.parent.name) or (7, 9))
    assert survey(tmp_path / "photos").sides == (7, 7, 7, 7)
    assert len(set(read)) == 4
    assert MOST_HEADERS > 100


def test_a_record_file_is_looked_at_as_a_folder_is(tmp_path):
    import io

    from PIL import Image

    from nearfar.data.faces import write_records

    def encoded(number: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (96, 112), (10 * number, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    write_records(tmp_path / "train.rec", [(encoded(3 * who + n), who) for who in range(8) for n in range(3)])
    seen = survey(tmp_path / "train.rec")
    assert (seen.classes, seen.images, seen.counts, set(seen.sides)) == (8, 24, (3, 3, 3), {96})
    assert set(seen.shapes) == {112 / 96}
    result = CliRunner().invoke(cli, ["init", str(tmp_path / "train.rec"), "-o", str(tmp_path / "run.yaml")])
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["data"]["source"] == str(tmp_path / "train.rec")


@pytest.mark.parametrize(
    ("shape", "size"),
    [(1.0, 64), (1.4, 64), (0.7, 64), (2.0, [128, 64]), (1.6, [96, 64]), (0.5, [64, 128]), (9.0, [256, 64])],
)
def test_images_that_are_long_one_way_are_not_cut_to_squares(shape, size):
    seen = found((9,) * 50, side=64, shapes=(shape,))
    assert settings(seen)["model.image_size"] == size
    config = Config.of(("here", {"model": {"image_size": size}}))
    assert config.model.image_size == (size if isinstance(size, int) else tuple(size))
    assert ("high as wide" in reason(seen, "model.image_size")) == (shape >= 1.5)


def test_a_folder_named_like_embedded_data_is_not_taken_for_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "emoji", classes=8, views=3)
    seen = survey("emoji")
    assert seen.images == 24
    assert Path(seen.source).resolve() == tmp_path / "emoji"
    assert Config.of(("here", {"data": {"source": seen.source}})).data.source != "emoji"


def test_what_is_no_image_and_what_is_no_folder_are_told(photos):
    (photos / "class0" / "0.png").write_text("not an image")
    with pytest.raises(DataError, match=r"cannot read the image .*0\.png: it is not an image"):
        survey(photos)
    with pytest.raises(DataError, match="is not there: give a folder"):
        survey(photos / "nowhere")
    with pytest.raises(DataError, match="is a file of another kind: give a folder"):
        survey(photos / "class1" / "0.png")


# ---- what is chosen


def test_a_batch_has_about_128_images_and_never_more_classes_or_images_than_there_are():
    for counts, batch in (
        ((50,) * 1000, (32, 4)),
        ((50,) * 8, (8, 16)),
        ((5,) * 8, (8, 5)),
        ((2,) * 1000, (32, 2)),
        ((3, 3, 9), (3, 3)),
    ):
        chosen = settings(found(counts))
        assert (chosen["batch.classes_per_batch"], chosen["batch.samples_per_class"]) == batch


def test_an_epoch_shows_about_as_many_images_as_there_are():
    chosen = settings(found((64,) * 320))
    images = chosen["steps_per_epoch"] * chosen["batch.classes_per_batch"] * chosen["batch.samples_per_class"]
    assert images == 64 * 320
    assert settings(found((2,) * 5))["steps_per_epoch"] == 1


def test_few_images_are_seen_more_often_than_many():
    epochs = [settings(found((views,) * 100))["epochs"] for views in (2, 50, 5000)]
    assert epochs == [100, 51, 20]


def test_many_images_a_class_get_class_vectors_and_few_get_pairs():
    names = {views: settings(found((views,) * 50))["criterion"].partition("(")[0] for views in (2, 3, 4, 19, 20, 500)}
    assert names == {2: "triplet", 3: "triplet", 4: "sup_con", 19: "sup_con", 20: "arcface", 500: "arcface"}


def test_a_criterion_is_of_an_active_plugin_or_asked_for():
    many = found((100,) * 50)
    assert settings(many, registry_of("pair"))["criterion"].startswith("sup_con")
    assert "arcface would come first, and no active plugin has it" in reason(many, "criterion", registry_of("pair"))
    with pytest.raises(ConfigError, match="no active plugin has arcface or sup_con or triplet: install nearfar-pair"):
        advise(many, registry_of("margin_of_nobody"))


def test_the_backbone_grows_with_the_images_and_is_one_of_timm():
    import timm

    names = [settings(found((views,) * 100))["model.name"] for views in (5, 100, 1000, 10000)]
    assert names == ["test_resnet", "resnet10t", "resnet18", "resnet50"]
    for name, views in zip(names, (5, 100, 1000, 10000), strict=True):
        assert timm.is_model(name)
        said = float(reason(found((views,) * 100), "model.name").split()[0])
        millions = sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters()) / 1e6
        assert said == pytest.approx(millions, abs=0.05)


def test_images_are_not_enlarged_but_to_the_smallest_side_there_is():
    sides = {side: settings(found((9,) * 50, side=side))["model.image_size"] for side in (20, 36, 112, 159, 4000)}
    assert sides == {20: 32, 36: 32, 112: 112, 159: 112, 4000: 224}


def test_what_one_should_know_of_the_data_is_remarked():
    assert remarks(found((9,) * 50)) == []
    (uneven,) = remarks(found((9,) * 49 + (91,)))
    assert uneven.startswith("the largest class has 91 images and the middle one 9;")
    small, few = remarks(found((9,) * 5, side=20))
    assert "are 20 pixels high or wide, or less" in small
    assert few.startswith("5 classes to train on are few")


# ---- what is written


def test_every_setting_is_written_below_its_reason_and_read_back_as_chosen():
    seen = found((50,) * 40)
    choices = advise(seen, REGISTRY)
    text = document(choices, ["A title"], "nearfar train run.yaml")
    config = Config.of(("run.yaml", yaml.safe_load(text))).to_dict()
    for choice in choices:
        value = config
        for part in choice.key.split("."):
            value = value[part]
        assert value == choice.value
        lines = text.splitlines()
        place = next(n for n, line in enumerate(lines) if line.strip().startswith(f"{choice.key.split('.')[-1]}:"))
        assert lines[place - 1].lstrip().startswith("#")


def test_a_path_cannot_end_a_comment_or_a_text():
    odd = "a\nepochs: 7\n'#: \"\u2028b/" + "long name " * 30
    text = document(advise(found((9,) * 50, source=odd), REGISTRY), [f"On {odd}"], f"nearfar train {odd}")
    config = Config.of(("run.yaml", yaml.safe_load(text)))
    assert config.data.source == odd
    assert config.epochs == 100


def test_what_is_written_trains(photos, own_warnings, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["init", "photos", "-o", "run.yaml"])
    assert ended.value.code == 0
    assert "batch.classes_per_batch: 3  P, of 3 training classes: 3 × 3 images a batch" in capsys.readouterr().out
    steps = ["--epochs", "1", "--set", "steps_per_epoch=2", "--set", "data.workers=0", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main(["train", "run.yaml", *steps, "-o", "run"])
    assert ended.value.code == 0
    assert (photos.parent / "run" / "metrics.json").exists()


def test_the_command_that_trains_is_in_a_line_of_its_own_however_long(photos, own_warnings):
    output = Path("a folder", "with a long name " * 6)
    output.mkdir(parents=True)
    with pytest.raises(SystemExit):
        main(["init", "photos", "-o", str(output / "run.yaml")])
    lines = (output / "run.yaml").read_text().splitlines()
    assert f"# To train: nearfar train '{output / 'run.yaml'}'" in lines
    assert all(len(line) <= 100 for line in lines if "To train" not in line)


def test_a_folder_that_is_not_there_to_write_in_is_told_before_the_images_are_looked_at(photos):
    (photos / "class0" / "0.png").write_text("not an image")
    done = CliRunner().invoke(cli, ["init", "photos", "-o", "nowhere/run.yaml"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == "there is no folder nowhere to write run.yaml in: make it first"


def test_images_that_are_not_there_are_told_before_torch_is_imported(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nearfar", "init", "emoji"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert (
        "nearfar: there is no folder or file emoji: give images of your own; `nearfar train` by itself" in done.stderr
    )
    assert not re.search(r"\|\s+torch$", done.stderr, re.MULTILINE)


def test_a_file_that_is_there_is_not_overwritten(photos, own_warnings, capsys):
    Path("run.yaml").write_text("epochs: 1\n")
    with pytest.raises(SystemExit) as ended:
        main(["init", "photos"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "nearfar: run.yaml is there already, and is not overwritten: choose another file with --output\n"
    )
    assert Path("run.yaml").read_text() == "epochs: 1\n"


def test_nothing_is_written_for_what_cannot_be_trained_on(photos):
    done = CliRunner().invoke(cli, ["init", "nowhere"])
    assert isinstance(done.exception, DataError)
    assert not Path("run.yaml").exists()


def test_data_without_a_split_for_validation_hold_out_a_fifth_of_their_training_classes(tmp_path):
    paint(tmp_path / "parts" / "train", classes=12, views=2)
    paint(tmp_path / "parts" / "test", classes=2, views=2)
    for folder in (tmp_path / "parts" / "test").iterdir():
        folder.rename(folder.with_name(f"unseen{folder.name}"))
    seen = survey(tmp_path / "parts")
    assert (seen.divided, seen.fold, seen.classes, len(seen.sides)) == (True, "1/5", 14, 28)
    assert len(seen.counts) in (9, 10)
    assert settings(seen)["data.fold"] == "1/5"
    assert reason(seen, "data.fold").startswith("the data have no split for validation: part 1 of 5")
    assert "data.fold" not in settings(found((3,) * 8))
