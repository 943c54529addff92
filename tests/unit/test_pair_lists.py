"""Pairs that a table lists: read with care, judged as they are told, calibrated on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from nearfar.cli import cli
from nearfar.data.image import cut, read
from nearfar.data.pairlist import read_pair_list
from nearfar.errors import ConfigError, DataError, InputError
from nearfar.evaluate import fold_accuracy, pair_similarities
from nearfar.inference import Calibration, Embeddings, features, write_embeddings
from nearfar.train import Run, evaluate, train

TINY = {
    "epochs": 1,
    "steps_per_epoch": 1,
    "device": "cpu",
    "batch": {"classes_per_batch": 2, "samples_per_class": 2},
    "model": {"name": "test_resnet", "image_size": 32, "embedding_size": 8},
}
PEOPLE, IMAGES = 12, 4


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve folders of four images, a table of two templates each, and every pair of them, of two folds."""
    root = tmp_path_factory.mktemp("people")
    generator = np.random.default_rng(0)
    rows = ["path,label,template"]
    for person in range(PEOPLE):
        (root / f"p{person}").mkdir()
        base = generator.integers(0, 256, (5, 5, 3))
        for copy in range(IMAGES):
            noisy = (base + generator.integers(-60, 60, base.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((32, 32)).save(root / f"p{person}" / f"{copy}.png")
            rows.append(f"p{person}/{copy}.png,p{person},t{person}-{copy // 2}")
    (root / "all.csv").write_text("\n".join(rows))
    names = [f"p{person}/{copy}.png" for person in range(PEOPLE) for copy in range(IMAGES)]
    lines = [
        f"{a},{b},{int(a.split('/')[0] == b.split('/')[0])},{(i + j) % 2}"
        for i, a in enumerate(names)
        for j, b in enumerate(names[:i])
    ]
    (root / "pairs.csv").write_text("\n".join(["a,b,same,fold", *lines]))
    templates = [f"t{person}-{half}" for person in range(PEOPLE) for half in range(2)]
    lines = [
        f"{a},{b},{'yes' if a.split('-')[0] == b.split('-')[0] else 'no'}"
        for i, a in enumerate(templates)
        for b in templates[:i]
    ]
    (root / "templates.csv").write_text("\n".join(["a,b,same", *lines]))
    return root


@pytest.fixture(scope="module")
def run(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(TINY, data=str(people / "all.csv"), output=tmp_path_factory.mktemp("runs") / "run", quiet=True)


@pytest.fixture(scope="module")
def x(people: Path, run: Run) -> Tensor:
    """The embeddings of all images, of length one."""
    files = [people / f"p{person}" / f"{copy}.png" for person in range(PEOPLE) for copy in range(IMAGES)]
    made = features(run.model(), torch.stack([cut(read(file, 32), 32) for file in files]))
    return torch.nn.functional.normalize(made.double(), dim=1)


def below(count: int) -> tuple[Tensor, Tensor]:
    first, second = torch.tril_indices(count, count, -1)
    return first, second


def test_listed_images_are_judged_with_the_folds_they_are_listed_with(run: Run, people: Path, x: Tensor) -> None:
    metrics, text = evaluate(run.path, pairs=[people / "pairs.csv"], device="cpu")
    found = metrics["pairs"][str(people / "pairs.csv")]
    first, second = below(len(x))
    cosines, same = (x[first] * x[second]).sum(1), first // IMAGES == second // IMAGES
    assert (found["genuine"], found["impostors"]) == (int(same.sum()), int((~same).sum()))
    assert found["auc"] == pytest.approx(roc_auc_score(same, cosines), abs=1e-6)
    accuracies = []
    for fold in (0, 1):
        test = (first + second) % 2 == fold
        right = [(((cosines >= t) == same)[~test].double().mean(), t) for t in cosines[~test].tolist()]
        best = max(right, key=lambda each: (each[0], each[1]))
        least = float(cosines[~test][cosines[~test] < best[1]].max())
        accuracies.append(((cosines >= (best[1] + least) / 2) == same)[test].double().mean())
    assert found["accuracy/exact"] == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert "1128 pairs of pairs.csv" in text
    assert "2 folds as listed" in found["protocol"]
    assert not any(name.endswith("interval") for name in found)


def test_with_data_there_are_intervals_by_identity_and_the_same_figures(run: Run, people: Path) -> None:
    alone = evaluate(run.path, pairs=[people / "pairs.csv"], device="cpu")[0]["pairs"]
    known = evaluate(run.path, pairs=[people / "pairs.csv"], data=str(people), device="cpu")[0]["pairs"]
    (one,), (other,) = alone.values(), known.values()
    assert one["auc"] == pytest.approx(other["auc"], abs=1e-9)
    assert other["auc/interval"][0] <= other["auc"] <= other["auc/interval"][1]


def test_listed_templates_are_judged_by_the_means_of_their_images(run: Run, people: Path, x: Tensor) -> None:
    ended = CliRunner().invoke(
        cli,
        ["evaluate", str(run.path), "--data", str(people), "--pairs", str(people / "templates.csv"), "--device", "cpu"],
    )
    assert isinstance(ended.exception, DataError)  # a folder has no templates, so that these are taken for images
    words = ["--data", str(people / "all.csv"), "--pairs", str(people / "templates.csv"), "--device", "cpu", "--json"]
    # The run's own table would be its test classes; by another path it is all of it.
    (people / "again.csv").write_text((people / "all.csv").read_text())
    words[1] = str(people / "again.csv")
    ended = CliRunner().invoke(cli, ["evaluate", str(run.path), *words])
    assert ended.exit_code == 0, ended.output
    (found,) = json.loads(ended.output)["pairs"].values()
    means = torch.nn.functional.normalize(x.view(PEOPLE * 2, 2, -1).mean(1), dim=1)
    first, second = below(len(means))
    cosines, same = (means[first] * means[second]).sum(1), first // 2 == second // 2
    assert (found["genuine"], found["impostors"]) == (12, 24 * 23 // 2 - 12)
    assert found["auc"] == pytest.approx(roc_auc_score(same, cosines), abs=1e-6)
    assert "48 images as templates" in found["protocol"]


def test_what_the_data_does_not_have_is_told(run: Run, people: Path) -> None:
    with pytest.raises(DataError, match=r"48 of the 48 names in \S+pairs.csv are no templates of the data"):
        evaluate(run.path, pairs=[people / "pairs.csv"], data=str(people / "all.csv"), device="cpu")
    with pytest.raises(ConfigError, match="are no files: give a folder or a table as data"):
        evaluate(run.path, pairs=[people / "pairs.csv"], data="emoji", device="cpu")
    with pytest.raises(ConfigError, match="has images of its own"):
        evaluate(run.path, pairs=["lfw.bin"], data="emoji", device="cpu")


ROWS = "x.png,y.png,1\nx.png,z.png,0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\nx,y\n", "has no column 'same'"),
        ("a,b,same\n", "has no rows"),
        ("a,b,same\nx,,1\n", "the cell 'b' of row 2 of .* is empty"),
        ("a,b,same\nx,y,1\nx,x,1\n", "row 3 of .* is a pair of x with itself"),
        ("a,b,same\nx,y,maybe\n", "row 2 of .* has 'maybe' for same: write 1 or 0"),
        ("a,b,same\nx,y,1\nx,z,1\n", "has 2 pairs and no impostor ones"),
        ("a,b,same\nx,y,0\n", "has 1 pairs and no genuine ones"),
        ("a,b,same\nx,y,1\nx,z,0\ny,x,0\n", "1 pairs of .* are told to be the same and not, first x and y"),
        ("a,b,same\nx,y\n", "row 2 of the table .* has 2 cells, and there are 3 columns"),
        ("a,a,b,same\nx,x,y,1\n", "has 2 columns 'a': leave one"),
    ],
)
def test_a_list_that_cannot_be_judged_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_pair_list(tmp_path / "pairs.csv")


def test_what_a_list_names_has_to_be_there_and_agree(run: Run, people: Path) -> None:
    (people / "absent.csv").write_text("a,b,same\np0/0.png,p0/9.png,1\np0/0.png,p1/0.png,0\n")
    with pytest.raises(DataError, match=r"1 of 3 images of \S+absent.csv are not there, first \S+p0/9.png"):
        evaluate(run.path, pairs=[people / "absent.csv"], device="cpu")
    (people / "wrong.csv").write_text("a,b,same\np0/0.png,p0/1.png,1\np0/0.png,p1/0.png,1\np2/0.png,p1/0.png,0\n")
    with pytest.raises(DataError, match=r"1 pairs of .* contradict the labels of the data, first row 3: p0"):
        evaluate(run.path, pairs=[people / "wrong.csv"], data=str(people), device="cpu")


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs nearfar[parquet]")
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"a": ["t1", "t1"], "b": ["t2", "t3"], "same": [True, False], "other": [1, 2]})
    parquet.write_table(table, tmp_path / "pairs.parquet")
    found = read_pair_list(tmp_path / "pairs.parquet")
    assert found.names == ("t1", "t2", "t3")
    assert (found.first.tolist(), found.second.tolist(), found.same.tolist()) == ([0, 0], [1, 2], [True, False])
    assert found.folds is None


def test_similarities_of_listed_pairs_are_their_cosines() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 5, generator=generator)
    first, second = torch.randint(30, (2, 40_000), generator=generator)
    expected = torch.cosine_similarity(x.double()[first], x.double()[second], dim=1)
    torch.testing.assert_close(pair_similarities(x, first, second).double(), expected, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="second has rows from 0 to 30 of 30"):
        pair_similarities(x, torch.tensor([0, 1]), torch.tensor([0, 30]))


def test_folds_that_are_told_are_those_that_count_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, same = torch.randn(100, generator=generator), torch.rand(100, generator=generator) < 0.5
    told = torch.arange(100) // 10
    assert fold_accuracy(scores, same, folds=told) == fold_accuracy(scores, same, folds=10)
    order = torch.randperm(100, generator=generator)
    assert fold_accuracy(scores[order], same[order], folds=told[order]) == fold_accuracy(scores, same, folds=10)
    with pytest.raises(InputError, match="folds are all the same"):
        fold_accuracy(scores, same, folds=torch.zeros(100, dtype=torch.int64))


def test_a_threshold_is_found_on_listed_pairs(people: Path, x: Tensor, tmp_path: Path) -> None:
    paths = tuple(str(people / f"p{person}" / f"{copy}.png") for person in range(PEOPLE) for copy in range(IMAGES))
    write_embeddings(Embeddings(x.float(), paths, {"weights": "w", "flip": "sum"}), tmp_path / "x.safetensors")
    words = ["calibrate", str(tmp_path / "x.safetensors"), "--far", "0.05", "--pairs", str(people / "pairs.csv")]
    ended = CliRunner().invoke(cli, [*words, "-o", str(tmp_path / "t.json")])
    assert ended.exit_code == 0, ended.output
    made = Calibration.read(tmp_path / "t.json")
    first, second = below(len(x))
    cosines, same = (x[first] * x[second]).sum(1), first // IMAGES == second // IMAGES
    # Rounding may put what is nearly as alike as the threshold on either side of it.
    surely, perhaps = cosines > made.threshold + 1e-6, cosines > made.threshold - 1e-6
    for found, pairs in ((made.far, ~same), (made.tar, same)):
        least, most = (float(accepted[pairs].double().mean()) for accepted in (surely, perhaps))
        assert least - 1e-9 <= found <= most + 1e-9
    assert most - least < 3 / int(same.sum())
    assert 0 <= 0.05 - made.far < 1 / int((~same).sum())
    assert (made.model, made.flip, made.interval) == ("w", "sum", None)
    assert f"impostor pairs of {people / 'pairs.csv'}" in ended.output
    ended = CliRunner().invoke(cli, [*words, "--labels", "who.csv", "-o", str(tmp_path / "u.json")])
    assert isinstance(ended.exception, ConfigError)
