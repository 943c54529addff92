"""What cannot be trained is told in one sentence, with exit code 2, before anything is trained or written."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from nearfar.cli import main
from nearfar.models import create_model, save_model
from nearfar.train.folder import RunFolder


@pytest.fixture(autouse=True)
def _own_warnings() -> Iterator[None]:
    before = warnings.showwarning
    yield
    warnings.showwarning = before


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight classes of two images."""
    from PIL import Image

    root = tmp_path / "photos"
    for number in range(8):
        (root / f"class{number}").mkdir(parents=True)
        for view in range(2):
            Image.new("RGB", (16, 16), (20 * number, 100 * view, 0)).save(root / f"class{number}" / f"{view}.png")
    return root


Refusal = Callable[..., str]


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refusal:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        err = capsys.readouterr().err
        assert ended.value.code == 2, err
        lines = err.strip().splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("nearfar: ")
        assert not (tmp_path / "runs").exists()
        return lines[0]

    return run


SMALL = ("--set", "model.image_size=32", "--set", "batch.classes_per_batch=2", "--device", "cpu")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("model: {nam: resnet18}", "run.yaml: unknown key model.nam; did you mean model.name?"),
        ("epochs: ten", "run.yaml: epochs is 'ten', but must be a whole number"),
        ("epochs: [", "run.yaml, line 1: this is not YAML"),
        ("- epochs", "run.yaml: a configuration is a mapping"),
    ],
)
def test_a_wrong_file(refusal: Refusal, tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "run.yaml").write_text(content)
    assert sentence in refusal("train", "run.yaml")


def test_a_missing_file(refusal: Refusal) -> None:
    assert "there is no configuration file nothere.yaml" in refusal("train", "nothere.yaml")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "nothere"], "there is no data set 'nothere'"),
        (["--model", "resnet81"], "timm has no model named 'resnet81'; did you mean resnet"),
        (["--criterion", "arcfase"], "did you mean"),
        (["--criterion", "triplet(margn=1)"], "no parameter 'margn'; did you mean 'margin'?"),
        (["--criterion", "triplet(margin"], "triplet(margin"),
        (["--criterion", "none.yaml"], "the recipe none.yaml cannot be read: No such file"),
        (["--criterion", "giou"], "criterion giou wants pred_boxes, target_boxes, and a training run gives embeddings"),
        (["--criterion", "triplet(miner=semihard) + giou"], "wants pred_boxes, target_boxes"),
        (["--set", "batch.classes_per_batch=1000"], "lower classes_per_batch to 468 or fewer"),
        (["--set", "augment.zoom=[2, 1]"], "zoom=(2.0, 1.0)"),
        (["--set", "model.options={global_pol: max}"], "timm cannot build test_resnet"),
        (
            ["--set", "model.options={output_stride: 3}"],
            "test_resnet with these arguments: AssertionError",
        ),
        (["--set", "model.options={drop_rate: 5}"], "cannot take images of (3, 64, 64): ValueError: dropout"),
        (["--model", "test_vit", "--set", "model.image_size=[8, 90]"], "cannot take images of (8, 90): AssertionError"),
        (["--set", "model.options={global_pool: avg}"], "so it takes no global_pool: leave one out"),
        (["--set", "model.options={head: none}"], "set model.head instead"),
        (["--set", "model.checkpoint=nothere.safetensors"], "there is no file nothere.safetensors"),
        (["--precision", "16", "--device", "cpu"], "precision 16 needs a GPU"),
        (["--resume", "nothere"], "there is no run folder nothere"),
        (["--resume"], "there is no run folder runs/latest"),
        (["--epochs", "0"], "epochs is 0, but must be at least 1"),
        (["--set", "optimizer.lr"], "--set takes key=value"),
    ],
)
def test_a_wrong_flag(refusal: Refusal, arguments: list[str], sentence: str) -> None:
    assert sentence in refusal("train", *arguments)


def test_a_gpu_that_is_not_there(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device is cuda, and torch finds no GPU here" in refusal("train", "--device", "cuda")


def test_a_class_with_one_image(refusal: Refusal, photos: Path) -> None:
    (photos / "class3" / "1.png").unlink()
    assert "the class 'class3' has only one image" in refusal("train", "--data", photos, *SMALL)


def test_an_unreadable_image(refusal: Refusal, photos: Path) -> None:
    (photos / "class5" / "0.png").write_bytes(b"no image")
    assert str(photos / "class5" / "0.png") in refusal("train", "--data", photos, *SMALL)


def test_weights_of_another_model(refusal: Refusal, tmp_path: Path) -> None:
    save_model(create_model("test_convnext", 8), tmp_path / "other.safetensors")
    sentence = refusal("train", "--set", "model.checkpoint=other.safetensors", *SMALL)
    assert "other.safetensors does not fit test_resnet" in sentence


def test_a_run_folder_that_cannot_be_written(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sentence = refusal("train", "--output", "file/run", *SMALL)
    assert "the run folder file/run cannot be written: Not a directory" in sentence


def test_a_run_without_a_checkpoint_or_a_model(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert "run is not the folder of a run" in refusal("train", "--resume", "run")
    (tmp_path / "run" / "config.yaml").write_text("epochs: 3\n")
    assert "run has no checkpoint.pt to go on from" in refusal("train", "--resume", "run")
    assert "run has no model.safetensors yet" in refusal("evaluate", "run")


def test_a_run_that_another_process_goes_on_with(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("epochs: 3\n")
    with RunFolder(tmp_path / "run").held():
        assert "another process is training in run, and two would overwrite" in refusal("train", "--resume", "run")
        assert "another process is training in run" in refusal("train", "--output", "run", *SMALL)


@pytest.mark.parametrize("missing", ["filelock", "lightning", "pydantic", "tensorboard"])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_missing_extra(refusal: Refusal, monkeypatch: pytest.MonkeyPatch, missing: str, command: str) -> None:
    for name in [name for name in sys.modules if name.startswith("nearfar.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    sentence = refusal(command, "run.yaml")
    assert sentence == "nearfar: training needs an optional part of nearfar: pip install 'nearfar[train]'"


@pytest.mark.parametrize("content", [b"PK\x03\x04 and then nothing", b"epoch: 3\n", b""])
def test_a_damaged_checkpoint(refusal: Refusal, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("epochs: 3\n")
    (tmp_path / "run" / "checkpoint.pt").write_bytes(content)
    assert "checkpoint.pt is damaged" in refusal("train", "--resume", "run")
