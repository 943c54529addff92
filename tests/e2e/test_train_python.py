"""``nearfar.train`` from Python: datasets as objects, and what a run says about its numbers."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import nearfar
from nearfar.errors import CheckpointError, CollapseWarning, ConfigError, Diverged
from nearfar.train import Run, evaluate, resume, train

TINY: dict[str, Any] = {
    "epochs": 2,
    "steps_per_epoch": 6,
    "device": "cpu",
    "log_every": 2,
    "checkpoint_every": 4,
    "model": {"name": "test_resnet", "image_size": 32, "embedding_size": 8},
    "batch": {"classes_per_batch": 3, "samples_per_class": 2},
    "validation": {"every": 1},
    "data": {"workers": 0},
}


class Squares(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Twelve classes of three noisy images."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        colours = torch.rand(12, 1, 3, 1, 1, generator=generator)
        self.images = (0.8 * colours + 0.2 * torch.rand(12, 3, 3, 20, 20, generator=generator)).flatten(0, 1)
        self.labels = torch.arange(12).repeat_interleave(3) * 10

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Batches this small are slower on several threads, much so beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = {**TINY, "criterion": "triplet(margin=0.2, miner=semihard)"}
    return train(config, data=Squares(), output=tmp_path_factory.mktemp("runs") / "squares", quiet=True)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_folder_holds_everything(run: Run) -> None:
    found = {path.name for path in run.path.iterdir()}
    assert found - {".lock"} == {
        "config.yaml",
        "recipe.yaml",
        "model.safetensors",
        "checkpoint.pt",
        "metrics.json",
        "logs",
    }
    assert {path.name for path in (run.path / "logs").iterdir()} == {"train.csv", "validation.csv", "tensorboard"}
    recipe = (run.path / "recipe.yaml").read_text()
    assert "part: triplet" in recipe
    assert "pair: " in recipe
    assert "classes_per_batch: 3" in (run.path / "config.yaml").read_text()


def test_a_run_keeps_what_stands_for_the_classes_by_their_names(tmp_path: Path) -> None:
    config = {**TINY, "criterion": "proxy_anchor + softmax + triplet", "validation": {"every": 2}}
    run = train(config, data=Squares(), output=tmp_path / "run", quiet=True)
    found = run.class_vectors()
    assert set(found.names) < {str(10 * number) for number in range(12)}
    shape = (run.metrics["data"]["train_classes"], run.config.model.embedding_size)
    assert {name: tuple(each.shape) for name, each in found.vectors.items()} == {
        "proxy_anchor.weight": shape,
        "softmax.weight": shape,
    }
    # Those of the last step, as the only validation is there.
    state = torch.load(run.path / "checkpoint.pt", weights_only=True)["criterion"]
    assert all(torch.equal(each, state[f"losses.{name}"]) for name, each in found.vectors.items())


def test_a_criterion_without_classes_keeps_none(run: Run) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        run.class_vectors()


def test_the_metrics_are_those_of_the_file(run: Run) -> None:
    assert json.loads((run.path / "metrics.json").read_text()) == run.metrics
    assert run.metrics["data"]["test_classes"] == 6
    assert 0 <= run.metrics["test"]["trained"]["recall@1"] <= 1
    assert Run.open(run.path).metrics == run.metrics
    assert "trained network" in run.table()


def test_the_model_that_is_kept_has_the_best_validation(run: Run) -> None:
    validations = rows(run.path / "logs" / "validation.csv")
    assert [row["step"] for row in validations] == ["6", "12"]
    best = max(validations, key=lambda row: float(row["map@r"]))
    assert run.metrics["validation"]["map@r"] == float(best["map@r"])
    assert run.metrics["validation"]["step"] == int(best["step"])


def test_the_log_has_the_share_of_active_triplets_and_the_spread(run: Run) -> None:
    log = rows(run.path / "logs" / "train.csv")
    assert [row["step"] for row in log] == ["2", "4", "6", "8", "10", "12"]
    assert all(0 < float(row["spread"]) <= 1 for row in log)
    active = [name for name in log[0] if name.endswith("/active")]
    assert active
    assert all(0 <= float(row[name]) <= 1 for row in log for name in active)


def test_tensorboard_has_the_same_losses(run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "logs" / "tensorboard"))
    events.Reload()
    losses = [float(row["loss"]) for row in rows(run.path / "logs" / "train.csv")]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses, rel=1e-6)


def test_a_run_knows_its_folder_of_images_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    for number in range(8):
        (tmp_path / "photos" / f"class{number}").mkdir(parents=True)
        for view in range(2):
            colour = (30 * number, 200 - 20 * number, 90 * view)
            Image.new("RGB", (16, 16), colour).save(tmp_path / "photos" / f"class{number}" / f"{view}.png")
    monkeypatch.chdir(tmp_path)
    made = train({**TINY, "data": {"source": "photos", "workers": 0}}, output="run", quiet=True)
    assert evaluate("run", data="photos", device="cpu")[0]["test"] == made.metrics["test"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate("../run", device="cpu")[0]["test"] == made.metrics["test"]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nearfar.train.logs import CsvTable

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CsvTable, "add", refuse)
    with pytest.raises(CheckpointError, match=r"can no longer be written: .*No space left on device"):
        train(TINY, data=Squares(), output=tmp_path / "run", quiet=True)


def test_a_run_that_finds_no_more_than_raw_pixels_do_says_so(tmp_path: Path, capsys) -> None:
    steps = {"epochs": 1, "steps_per_epoch": 2, "optimizer": {"lr": 1e-9}, "criterion": "sup_con"}
    quiet = train(TINY | steps, data=Squares(), output=tmp_path / "run").metrics["test"]
    assert quiet["trained"]["map@r"] <= max(quiet["raw"]["map@r"], quiet["untrained"]["map@r"])
    assert "\n\nthe trained network is no better than " in capsys.readouterr().out


def test_the_model_embeds(run: Run) -> None:
    assert run.model()(torch.zeros(2, 3, 32, 32)).shape == (2, 8)


def test_a_run_on_an_object_is_evaluated_with_the_object(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"an object of Python \(Squares\)"):
        evaluate(run.path, device="cpu")
    # All twelve classes, of which only the table over the six unseen ones is the run's.
    metrics, text = evaluate(run.path, data=Squares(), device="cpu")
    assert "36 images of 12" in text
    assert metrics["test"]["raw"] != run.metrics["test"]["raw"]


def test_a_finished_run_that_goes_on_is_finished(run: Run, tmp_path: Path) -> None:
    from nearfar.train.progress import Narrator

    again = resume(run.path, data=Squares(), narrator=Narrator(quiet=True))
    assert again.metrics["test"] == run.metrics["test"]


def test_a_run_on_other_data_does_not_go_on(run: Run) -> None:
    from nearfar.train.progress import Narrator

    other = Squares()
    other.labels = other.labels.roll(1)
    with pytest.raises(CheckpointError, match="the training data is not what"):
        resume(run.path, data=other, narrator=Narrator(quiet=True))


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train({**TINY, "epochs": 1, "steps_per_epoch": 1}, data=Squares(), output=tmp_path / "run", quiet=True)
    assert torch.equal(torch.rand(3), expected)


def test_bfloat16_trains(tmp_path: Path) -> None:
    config = {**TINY, "precision": "bf16", "criterion": "arcface"}
    made = train(config, data=Squares(), output=tmp_path / "run", quiet=True)
    assert all(value.dtype == torch.float32 for value in made.model().parameters())
    assert all(float(row["loss"]) < 100 for row in rows(tmp_path / "run" / "logs" / "train.csv"))


class Telling(nearfar.EmbeddingLoss):
    """Tells in which dtype its formula multiplies."""

    seen: ClassVar[set[torch.dtype]] = set()

    def default_distance(self) -> None:
        return None

    def terms(self, batch: Any) -> nearfar.Terms:
        from nearfar.nn.terms import element_terms

        cosines = batch.embeddings @ batch.embeddings.T
        self.seen.add(cosines.dtype)
        return element_terms((cosines - 1).square().mean(1))


@pytest.fixture
def telling() -> Iterator[None]:
    nearfar.register("telling", Telling)
    Telling.seen.clear()
    yield
    nearfar.unregister("telling")


@pytest.mark.usefixtures("telling")
@pytest.mark.parametrize(("precision", "products"), [("bf16", torch.bfloat16), ("32", None)])
def test_in_bfloat16_large_heads_multiply_in_it_and_no_other_formula_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, products: torch.dtype | None
) -> None:
    from nearfar_margin import engine

    asked, chunked = [], engine.chunked

    def noted(*args: Any, products: torch.dtype | None, **kwargs: Any) -> torch.Tensor:
        asked.append(products)
        return chunked(*args, products=products, **kwargs)

    monkeypatch.setattr(engine, "chunked", noted)
    config = {**TINY, "precision": precision, "criterion": "arcface(engine='chunked') + 0.1 * telling"}
    train(config, data=Squares(), output=tmp_path / "run", quiet=True)
    # The first call is the rehearsal.
    assert set(asked[1:]) == {products}
    assert Telling.seen == {torch.float32}


# ---- when it goes wrong


class ToAPoint(nearfar.EmbeddingLoss):
    """Pulls every embedding to one vector."""

    def default_distance(self) -> None:
        return None

    def terms(self, batch: Any) -> nearfar.Terms:
        from nearfar.nn.terms import element_terms

        return element_terms((batch.embeddings - 1).square().sum(1))


class NotANumber(ToAPoint):
    """Becomes not a number in the ninth call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def terms(self, batch: Any) -> nearfar.Terms:
        from nearfar.nn.terms import element_terms

        self.calls += 1
        return element_terms(batch.embeddings.sum(1) * (float("nan") if self.calls == 9 else 1.0))


@pytest.fixture
def registered() -> Iterator[None]:
    nearfar.register("to_a_point", ToAPoint)
    nearfar.register("not_a_number", NotANumber)
    yield
    nearfar.unregister("to_a_point")
    nearfar.unregister("not_a_number")


@pytest.mark.usefixtures("registered")
def test_a_collapse_is_told_once(tmp_path: Path) -> None:
    config = {**TINY, "criterion": "to_a_point", "epochs": 8, "validation": {"every": 8}}
    config |= {"optimizer": {"lr": 0.05}, "schedule": {"name": "constant"}}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train(config, data=Squares(), output=tmp_path / "run", quiet=True)
    (message,) = (str(one.message) for one in told if one.category is CollapseWarning)
    assert message.startswith("the embeddings are collapsing to a point: after step")


@pytest.mark.usefixtures("registered")
def test_a_loss_that_is_no_number_stops_the_run_which_keeps_its_checkpoint(tmp_path: Path) -> None:
    from nearfar.train.progress import Narrator

    config = {**TINY, "criterion": "not_a_number"}
    with pytest.raises(Diverged, match=r"not finite at step 9 \(not_a_number = nan\).*kept as of its last checkpoint"):
        train(config, data=Squares(), output=tmp_path / "run", quiet=True)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 8
    finished = resume(tmp_path / "run", data=Squares(), narrator=Narrator(quiet=True))
    assert finished.metrics["run"]["steps"] == 12


def test_an_unreduced_criterion_is_told(tmp_path: Path) -> None:
    with pytest.raises(nearfar.NearfarError, match="leaves sup_con unreduced"):
        train({**TINY, "criterion": "sup_con(reducer=none)"}, data=Squares(), output=tmp_path / "run", quiet=True)
