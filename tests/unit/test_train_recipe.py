"""``nearfar train --recipe``: a criterion by its name, with the settings of a run that were published with it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from nearfar import RecipeSpec
from nearfar.cli import cli, main
from nearfar.cli.complete import recipes
from nearfar.errors import RegistrationError, UnknownPart
from nearfar.registry import default_registry


@pytest.fixture(autouse=True)
def _own_warnings() -> Iterator[None]:
    before = warnings.showwarning
    yield
    warnings.showwarning = before


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight classes of three images; the working directory is the one they are in."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for number in range(8):
        (tmp_path / "photos" / str(number)).mkdir(parents=True)
        for view in range(3):
            Image.new("RGB", (32, 32), (30 * number, 60 * view, 0)).save(tmp_path / f"photos/{number}/{view}.png")
    return tmp_path / "photos"


SHORT = ("--data", "photos", "--epochs", "1", "--device", "cpu", "--set", "model.image_size=32", "--set")
TWO_STEPS = (*SHORT, "steps_per_epoch=2", "--set", "batch.classes_per_batch=2", "--set", "data.workers=0", "-o", "run")


def train(*arguments: str) -> Any:
    """The resolved configuration of a run of two steps."""
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments, *TWO_STEPS])
    assert ended.value.code == 0
    assert Path("run/metrics.json").exists()
    return yaml.safe_load(Path("run/config.yaml").read_text())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_recipe_brings_its_criterion_and_its_settings(photos):
    config = train("--recipe", "arcface_casia")
    assert config["criterion"] == "arcface(margin=0.5, scale=64.0)"
    assert (config["optimizer"]["name"], config["optimizer"]["lr"]) == ("sgd", 0.1)
    assert config["model"]["embedding_size"] == 512
    assert config["schedule"]["milestones"] == pytest.approx([20 / 32, 28 / 32])


def test_a_recipe_wins_over_the_file_and_what_is_said_wins_over_the_recipe(photos):
    Path("run.yaml").write_text("criterion: triplet\noptimizer: {lr: 0.5, momentum: 0.5}\nseed: 3\n")
    config = train("run.yaml", "--recipe", "margin.arcface_casia", "--set", "optimizer.lr=0.01")
    assert config["criterion"] == "arcface(margin=0.5, scale=64.0)"
    assert (config["optimizer"]["lr"], config["optimizer"]["momentum"], config["seed"]) == (0.01, 0.9, 3)


def test_a_name_that_no_recipe_has_is_refused_with_the_closest(capsys):
    err = refused(capsys, "--recipe", "arcface_casa")
    assert err.startswith("nearfar: no plugin shows a recipe 'arcface_casa'; did you mean 'arcface_casia'")
    assert err.endswith("nearfar show recipes lists them\n")
    assert len(err.splitlines()) == 1


def test_a_loss_is_no_recipe_with_a_name(capsys):
    err = refused(capsys, "--recipe", "arcface")
    assert err == "nearfar: 'arcface' is a loss and no recipe with a name: train with it by --criterion arcface\n"


def test_a_recipe_and_a_criterion_are_not_given_together(capsys):
    err = refused(capsys, "--recipe", "facenet", "--criterion", "triplet")
    assert "--recipe and --criterion both say what is minimised" in err


def test_a_recipe_that_judges_something_else_than_embeddings_is_refused(photos, capsys):
    assert "wants logits" in refused(capsys, "--recipe", "dense_detector", *TWO_STEPS)
    assert not Path("run").exists()


def test_the_closest_names_are_on_the_error():
    with pytest.raises(UnknownPart) as caught:
        default_registry().recipe("facent")
    assert caught.value.suggestions[0] == "facenet"
    assert default_registry().recipe("pair.facenet") is default_registry().recipe("facenet")


def test_settings_are_shown_and_given_as_data():
    shown = CliRunner().invoke(cli, ["show", "reid_baseline"]).output
    assert "trained with: batch.classes_per_batch=16, batch.samples_per_class=4" in " ".join(shown.split())
    row = json.loads(CliRunner().invoke(cli, ["show", "reid_baseline", "--json"]).output)
    assert row["settings"]["schedule"]["milestones"] == [0.3333, 0.5833]
    assert json.loads(CliRunner().invoke(cli, ["show", "facenet", "--json"]).output)["settings"] == {}


@pytest.mark.parametrize("settings", [{"lr": 0.1}, ("optimizer",), "optimizer.lr=0.1"])
def test_settings_that_are_no_sections_are_refused(settings):
    with pytest.raises(RegistrationError, match="recipe 'mine': settings must be sections with their keys"):
        RecipeSpec(name="mine", recipe="triplet", summary="Mine.", source="here", settings=settings)


def test_settings_cannot_be_changed_afterwards():
    given = {"optimizer": {"lr": 0.1}}
    spec = RecipeSpec(name="mine", recipe="triplet", summary="Mine.", source="here", settings=given)
    given["optimizer"]["lr"] = 7.0
    assert spec.settings["optimizer"]["lr"] == 0.1
    with pytest.raises(TypeError):
        spec.settings["optimizer"]["lr"] = 7.0  # type: ignore[index]


def test_names_of_recipes_are_completed():
    assert [item.value for item in recipes(None, None, "reid_")] == ["reid_baseline"]  # type: ignore[arg-type]


def test_the_recipe_that_a_run_wrote_is_a_criterion_of_the_next(photos: Path) -> None:
    train("--criterion", "0.5 * triplet(margin=0.3, miner=semihard) + sup_con")
    written = Path("run").rename("first") / "recipe.yaml"
    config = train("--criterion", str(written))
    assert config["criterion"] == yaml.safe_load(written.read_text())
    assert Path("run/recipe.yaml").read_text() == written.read_text()
    said = CliRunner().invoke(cli, ["recipe", "convert", "--to", "string", str(written)]).output
    assert said.strip() == "0.5 * triplet(margin=0.3, miner=semihard) + sup_con"
