"""A trained network judged by the protocols of verification, identification and re-identification."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from nearfar.cli import cli
from nearfar.data import ClassSubset, ImageSource, ImageTable
from nearfar.data.faces import write_pairs
from nearfar.data.image import cut, read
from nearfar.errors import ConfigError, DataError, InputError
from nearfar.evaluate import expand_queries, k_reciprocal
from nearfar.inference import features
from nearfar.train import Run, evaluate, train
from nearfar.train.protocols import described, identification, reidentification, verification
from nearfar.train.templates import by_template

TINY = {
    "epochs": 1,
    "steps_per_epoch": 1,
    "device": "cpu",
    "batch": {"classes_per_batch": 2, "samples_per_class": 2},
    "model": {"name": "test_resnet", "image_size": 32, "embedding_size": 8},
}


def picture(seed: int, copy: int) -> Image.Image:
    base = np.random.default_rng(seed).integers(0, 256, (5, 5, 3))
    noise = np.random.default_rng(1000 * seed + copy).integers(-60, 60, base.shape)
    return Image.fromarray((base + noise).clip(0, 255).astype(np.uint8)).resize((36, 32), Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve classes of six images, of two cameras."""
    folder = tmp_path_factory.mktemp("photos")
    rows = ["path,label,camera"]
    for number in range(12):
        for copy in range(6):
            picture(number, copy).save(folder / f"{number}-{copy}.png")
            rows.append(f"{number}-{copy}.png,p{number},c{copy % 2}")
    (folder / "all.csv").write_text("\n".join(rows))
    return folder / "all.csv"


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(TINY, data=str(table), output=tmp_path_factory.mktemp("runs") / "run", quiet=True)


@pytest.fixture(scope="module")
def others(table: Path) -> Path:
    """The same images as another table, all of whose classes are judged."""
    path = table.with_name("others.csv")
    path.write_text(table.read_text())
    return path


class Points(ImageSource):
    """A source without images, for what looks at labels alone."""

    def __init__(self, labels: Tensor, cameras: Tensor | None = None) -> None:
        self.labels, self.cameras = labels, cameras
        self.class_names = tuple(map(str, range(int(labels.max()) + 1)))


def embedded(run: Run, table: Path, flip: str = "none") -> tuple[Tensor, ImageTable]:
    source = ImageTable(table, image_size=32)
    images = torch.stack([cut(read(path), 32) for path in source.paths])
    x = features(run.model(), images, flip=flip)  # type: ignore[arg-type]
    return torch.nn.functional.normalize(x.double(), dim=1), source


def test_a_run_on_upright_images_is_trained_and_judged(table: Path, others: Path, tmp_path: Path) -> None:
    upright = {**TINY, "model": {"name": "test_resnet", "image_size": [48, 24], "embedding_size": 8}}
    run = train(upright, data=str(table), output=tmp_path / "run", quiet=True)
    assert run.config.model.image_size == Run.open(run.path).config.model.image_size == (48, 24)
    metrics, _ = evaluate(run.path, data=str(others), device="cpu", protocol="reidentification")
    found = metrics["reidentification"]
    assert "RGB of 48 × 24 pixels" in found["protocol"]
    source = ImageTable(others, image_size=(48, 24))
    x = features(run.model(), torch.stack([source.image(index) for index in range(len(source))]))
    assert {name: found[name] for name in found if name != "protocol"} == {
        name: value for name, value in reidentification(x, source).items() if name != "protocol"
    }


@pytest.mark.parametrize("flip", ["none", "sum", "concatenate"])
def test_verification_is_of_all_pairs(run: Run, others: Path, flip: str) -> None:
    metrics, text = evaluate(run.path, data=str(others), device="cpu", protocol="verification", flip=flip)  # type: ignore[arg-type]
    found = metrics["verification"]
    x, source = embedded(run, others, flip)
    i, j = np.triu_indices(len(x), 1)
    same = (source.labels[i] == source.labels[j]).numpy()
    assert found["auc"] == pytest.approx(roc_auc_score(same, (x @ x.T).numpy()[i, j]), abs=1e-5)
    assert (found["genuine"], found["impostors"]) == (int(same.sum()), int((~same).sum()))
    assert found["auc/interval"][0] <= found["auc"] <= found["auc/interval"][1]
    assert f"flip {flip}; RGB of 32 pixels" in found["protocol"]
    assert "all pairs; TAR at the largest FAR" in found["protocol"]
    (line,) = (line.split() for line in text.splitlines() if line.startswith("  auc "))
    assert line[1:3] == [f"{100 * found['auc']:.2f}", "(95%:"]
    assert found["protocol"] in text


def test_more_pairs_than_are_looked_at_are_drawn_and_the_tag_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearfar.train.protocols._PAIRS", 300)
    labels = torch.arange(20).repeat_interleave(3)
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    found = verification(x, Points(labels), seed=5)
    assert (found["genuine"], found["impostors"]) == (60, 240)
    assert found["protocol"].startswith("300 of 1770 pairs drawn within each kind, seed 5")


def test_identification_finds_clusters_and_is_seeded() -> None:
    counts = torch.tensor([2, 3, 4, 5] * 10)
    labels = torch.arange(40).repeat_interleave(counts)
    source = Points(labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))])
    clusters = torch.nn.functional.one_hot(source.labels).double()
    found = identification(clusters, source)
    assert (found["rank@1"], found["rank@10"]) == (1.0, 1.0)
    assert found["probes"] == int((counts // 2).sum())
    assert found["identities"] == 40
    enrolled_probes = found["probes"] - found["strangers"]
    assert 20 <= enrolled_probes <= 40  # of twenty identities, one or two each
    x = clusters + 0.4 * torch.randn(clusters.shape, generator=torch.Generator().manual_seed(1))
    figures = [identification(x, source, seed=seed) for seed in (0, 0, 1)]
    assert figures[0] == figures[1] != figures[2]
    assert figures[0]["dir@0.01/refused"].endswith("it takes 10")


def test_probes_and_gallery_share_no_image() -> None:
    labels = torch.arange(30).repeat_interleave(2)
    # Each image has its twin in another identity: whoever finds the own identity has found the image itself.
    x = torch.nn.functional.one_hot(torch.arange(30).roll(1).repeat_interleave(2)).double()
    x[1::2] = torch.nn.functional.one_hot(torch.arange(30)).double()
    assert identification(x, Points(labels))["rank@1"] == 0.0


def test_what_the_own_camera_saw_does_not_count(run: Run, others: Path) -> None:
    metrics, text = evaluate(run.path, data=str(others), device="cpu", protocol="reidentification")
    x, source = embedded(run, others)
    assert source.cameras is not None
    averages = []
    for place in range(len(x)):
        same = source.labels == source.labels[place]
        left = ~(same & (source.cameras == source.cameras[place]))
        averages.append(average_precision_score(same[left], (x @ x[place])[left]))
    assert metrics["reidentification"]["map"] == pytest.approx(np.mean(averages), abs=1e-4)
    assert "but those of its own class and camera" in text


@pytest.fixture(scope="module")
def asked(table: Path) -> Path:
    """Images of each class but the last are queries, gallery, and one is junk; those of the last are distractors."""
    rows = ["path,label,camera,split"]
    for number in range(12):
        for copy in range(6):
            label = "0" if number == 11 else "-1" if copy == 5 else f"p{number}"
            split = "query" if copy < 2 and number < 11 else "gallery"
            rows.append(f"{number}-{copy}.png,{label},c{copy % 2},{split}")
    path = table.with_name("asked.csv")
    path.write_text("\n".join(rows))
    return path


def test_queries_are_searched_in_the_gallery_without_what_their_camera_saw(run: Run, asked: Path) -> None:
    """Against the lists written out: junk is neither right nor wrong, distractors are wrong."""
    metrics, text = evaluate(run.path, data=str(asked), device="cpu", protocol="reidentification")
    found = metrics["reidentification"]
    lines = [line.split(",") for line in asked.read_text().splitlines()[1:]]
    images = torch.stack([cut(read(asked.parent / line[0]), 32) for line in lines])
    x = torch.nn.functional.normalize(features(run.model(), images).double(), dim=1)
    averages, firsts, at_r = [], [], []
    for place, (_, label, camera, split) in enumerate(lines):
        if split != "query":
            continue
        left = [
            other
            for other, (_, its, where, kind) in enumerate(lines)
            if kind == "gallery" and its != "-1" and not (its == label and where == camera)
        ]
        left.sort(key=lambda other: -float(x[place] @ x[other]))
        hits = np.array([lines[other][1] == label for other in left])
        averages.append(average_precision_score(hits, -np.arange(len(hits))))
        firsts.append(hits[0])
        count = hits.sum()
        at_r.append(sum(hits[: i + 1].mean() * hits[i] for i in range(count)) / count)
    assert found["map"] == pytest.approx(np.mean(averages), abs=1e-6)
    assert found["cmc@1"] == pytest.approx(np.mean(firsts), abs=1e-6)
    assert found["map@r"] == pytest.approx(np.mean(at_r), abs=1e-6)
    assert (found["queries"], found["distractors"], found["junk"]) == (22, 6, 11)
    assert "22 queries against a gallery of 39 but what their own camera saw" in text
    table, told = evaluate(run.path, data=str(asked), device="cpu")
    assert table["test"]["trained"]["recall@1"] == found["cmc@1"]
    assert table["test"]["trained"]["map@r"] == pytest.approx(found["map@r"], abs=1e-12)
    assert "22 queries against a gallery of 39" in told


def test_without_cameras_the_tag_says_that_nothing_is_left_out(run: Run, asked: Path) -> None:
    unseen = asked.with_name("unseen.csv")
    unseen.write_text(asked.read_text().replace("camera", "lens", 1))
    found = evaluate(run.path, data=str(unseen), device="cpu", protocol="reidentification")[0]["reidentification"]
    assert "no cameras are known, so nothing is left out" in found["protocol"]
    known = evaluate(run.path, data=str(asked), device="cpu", protocol="reidentification")[0]["reidentification"]
    assert "no cameras" not in known["protocol"]


@pytest.mark.parametrize("post", ["expand", "k_reciprocal"])
def test_a_ranking_is_processed_as_it_is_called_and_the_tag_says_so(run: Run, asked: Path, post: str) -> None:
    words = {"data": str(asked), "device": "cpu", "protocol": "reidentification"}
    found = evaluate(run.path, **words, post=post)[0]["reidentification"]  # type: ignore[arg-type]
    source = ImageTable(asked, image_size=32).parts["test"]
    assert source.queries is not None
    assert source.cameras is not None
    x = features(run.model(), torch.stack([source.image(index) for index in range(len(source))]))
    q, g = x[source.queries], x[~source.queries]
    away = (
        k_reciprocal(q, g) if post == "k_reciprocal" else -torch.cosine_similarity(expand_queries(q, g)[:, None], g, 2)
    )
    averages = []
    for row, place in enumerate(source.queries.nonzero()[:, 0].tolist()):
        same = (source.labels == source.labels[place])[~source.queries]
        left = ~(same & (source.cameras == source.cameras[place])[~source.queries])
        averages.append(average_precision_score(same[left], -away[row][left]))
    assert found["map"] == pytest.approx(np.mean(averages), abs=1e-5)
    assert ("re-ranked by k-reciprocal" in found["protocol"]) == (post == "k_reciprocal")
    assert ("queries expanded by the 10" in found["protocol"]) == (post == "expand")
    assert found["map"] != evaluate(run.path, **words)[0]["reidentification"]["map"]  # type: ignore[arg-type]


def test_what_has_no_queries_has_no_ranking_to_process_and_is_not_embedded_first(
    run: Run, others: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearfar.train.protocols.embed", lambda *args, **kwargs: pytest.fail("it was embedded"))
    with pytest.raises(ConfigError, match="the splits query and gallery"):
        evaluate(run.path, data=str(others), device="cpu", protocol="reidentification", post="expand")
    with pytest.raises(ConfigError, match="for the protocol reidentification"):
        evaluate(run.path, data=str(others), device="cpu", post="expand")
    with pytest.raises(ConfigError, match="post is 'more'"):
        evaluate(run.path, device="cpu", protocol="reidentification", post="more")  # type: ignore[arg-type]


def test_distractors_are_nobodys_pairs_and_everybodys_wrong_answers(run: Run, asked: Path) -> None:
    pairs = evaluate(run.path, data=str(asked), device="cpu", protocol="verification")[0]["verification"]
    assert (pairs["genuine"], pairs["impostors"]) == (11 * 10, 55 * 54 // 2 - 11 * 10)
    named = evaluate(run.path, data=str(asked), device="cpu", protocol="identification")[0]["identification"]
    assert (named["probes"], named["identities"], named["distractors"]) == (22, 11, 6)
    assert not any("dir@" in name for name in named)
    assert named["protocol"].endswith("22 queries against a gallery of 39")


def test_queries_whose_identity_the_gallery_lacks_are_strangers() -> None:
    source = Points(torch.arange(40).repeat_interleave(2))
    source.queries = torch.tensor([True, False]).repeat(40)
    source.queries[1::4] = True  # every other identity has queries only
    x = torch.nn.functional.one_hot(source.labels).double() + 0.01
    found = identification(x, source)
    assert (found["probes"], found["strangers"], found["identities"]) == (20, 40, 20)
    assert found["rank@1"] == 1.0
    assert found["dir@0.1/refused"].endswith("it takes 10")


def test_templates_are_judged_in_place_of_their_images(run: Run, table: Path) -> None:
    rows = ["path,label,template,media"]
    rows += [f"{n}-{copy}.png,p{n},t{n}-{copy // 2},{copy % 2}" for n in range(12) for copy in range(6)]
    path = table.with_name("templates.csv")
    path.write_text("\n".join(rows))
    metrics, text = evaluate(run.path, data=str(path), device="cpu", protocol="verification")
    found = metrics["verification"]
    x, _ = embedded(run, path)
    means = x.view(36, 2, -1).mean(1)
    means = torch.nn.functional.normalize(means, dim=1).numpy()
    i, j = np.triu_indices(36, 1)
    same = i // 3 == j // 3
    assert (found["genuine"], found["impostors"]) == (36, 594)
    # Rounding may change the order of a genuine pair and an impostor that are nearly as alike.
    assert found["auc"] == pytest.approx(roc_auc_score(same, (means @ means.T)[i, j]), abs=3 / (36 * 594))
    assert "72 images as templates, each the mean of their embeddings of length one, film by film" in text


def test_a_template_is_on_one_side_only() -> None:
    source = Points(torch.tensor([0, 0, 0, 1]))
    source.templates, source.queries = torch.tensor([4, 4, 5, 6]), torch.tensor([True, False, False, True])
    with pytest.raises(DataError, match="1 images are queries and their template is not"):
        by_template(torch.randn(4, 3), source)


def test_cameras_follow_the_images_of_some_classes() -> None:
    source = Points(torch.tensor([0, 1, 2, 1, 0]), torch.tensor([7, 8, 9, 6, 5]))
    part = ClassSubset(source, [1, 0])
    assert part.cameras is not None
    assert part.cameras.tolist() == [7, 8, 6, 5]
    assert ClassSubset(Points(torch.tensor([0, 1])), [1]).cameras is None


def test_without_cameras_nobody_is_re_identified(run: Run) -> None:
    with pytest.raises(ConfigError, match="a table with a column camera"):
        evaluate(run.path, data="emoji", device="cpu", protocol="reidentification")
    with pytest.raises(ConfigError, match="cameras"):
        reidentification(torch.randn(4, 2), Points(torch.tensor([0, 0, 1, 1])))


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A hundred and twenty pairs, every other one genuine."""
    images = []
    for pair in range(120):
        images += [encoded(picture(pair, 0)), encoded(picture(pair if pair % 2 == 0 else pair + 500, 1))]
    write_pairs(tmp_path / "tiny.bin", images, [pair % 2 == 0 for pair in range(120)])
    return tmp_path / "tiny.bin"


@pytest.mark.parametrize("flip", ["none", "sum"])
def test_a_verification_set_is_judged_by_folds(run: Run, pairs: Path, flip: str) -> None:
    metrics, text = evaluate(run.path, pairs=[pairs], flip=flip, device="cpu")  # type: ignore[arg-type]
    found = metrics["pairs"][str(pairs)]
    shown = [cut(picture(p if side == 0 or p % 2 == 0 else p + 500, side), 32) for p in range(120) for side in (0, 1)]
    x = torch.nn.functional.normalize(features(run.model(), torch.stack(shown), flip=flip).double(), dim=1).numpy()  # type: ignore[arg-type]
    distances, same = ((x[::2] - x[1::2]) ** 2).sum(1), np.arange(120) % 2 == 0
    grid, accuracies = np.arange(0, 4, 0.01), []
    for fold in range(10):
        test = np.arange(120) // 12 == fold
        right = [((distances < t) == same)[~test].mean() for t in grid]
        accuracies.append(((distances < grid[int(np.argmax(right))]) == same)[test].mean())
    assert found["accuracy/insightface"] == pytest.approx(np.mean(accuracies), abs=1e-9)
    assert found["accuracy/insightface/std"] == pytest.approx(np.std(accuracies), abs=1e-9)
    assert found["accuracy/exact"] >= found["accuracy/insightface"] - 0.1
    assert "takes 10" in found["tar@0.001/refused"]
    assert found["protocol"].startswith(f"flip {flip};")
    assert "10 consecutive folds" in text
    assert " ± " in text


def test_pairs_that_cannot_be_judged_are_told(run: Run, pairs: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "few.bin", [encoded(picture(0, 0))] * 4, [True, False])
    with pytest.raises(InputError, match="folds is 10"):
        evaluate(run.path, pairs=[tmp_path / "few.bin"], device="cpu")
    with pytest.raises(DataError, match="cannot read"):
        evaluate(run.path, pairs=[tmp_path / "none.bin"], device="cpu")
    with pytest.raises(ConfigError, match="of their own"):
        evaluate(run.path, pairs=[pairs], protocol="verification", device="cpu")
    with pytest.raises(ConfigError, match="protocol is 'verify'"):
        evaluate(run.path, protocol="verify", device="cpu")  # type: ignore[arg-type]


def test_the_table_has_its_tag_and_mirror_images_change_the_networks_rows_alone(run: Run) -> None:
    plain, text = evaluate(run.path, device="cpu")
    mirrored, _ = evaluate(run.path, device="cpu", flip="sum")
    assert plain["test"] == run.metrics["test"]
    assert mirrored["test"]["raw"] == plain["test"]["raw"]
    assert mirrored["test"]["trained"] != plain["test"]["trained"]
    assert text.splitlines()[-1] == plain["protocol"]
    assert plain["protocol"].startswith("flip none; RGB of 32 pixels, mean 0.5 0.5 0.5; std 0.5 0.5 0.5; cosine")


def test_the_command_prints_json_of_every_protocol(run: Run, others: Path, pairs: Path) -> None:
    for asked in (["--data", str(others), "--protocol", "identification"], ["--pairs", str(pairs), "--flip", "sum"]):
        ended = CliRunner().invoke(cli, ["evaluate", str(run.path), *asked, "--device", "cpu", "--json"])
        assert ended.exit_code == 0, ended.output
        (figures,) = json.loads(ended.output).values()
        assert "protocol" in figures.get(str(pairs), figures)
    shown = CliRunner().invoke(cli, ["evaluate", str(run.path), "--data", str(others), "--protocol", "identification"])
    assert "rank@1" in shown.output
    assert "36 probes" in shown.output


def test_figures_are_told_in_per_cent_with_what_was_refused() -> None:
    figures = {"auc": 0.5, "auc/interval": [0.25, 0.75], "dir@0.1/refused": "too few", "probes": 7, "protocol": "as is"}
    assert described("here", figures).splitlines() == [
        "here, per cent",
        "  auc   50.00  (95%: 25.00 to 75.00)",
        "  dir@0.1: too few",
        "  7 probes",
        "  as is",
    ]


def test_faiss_finds_the_neighbours_of_the_table_where_it_is_asked_to(run: Run, asked: Path) -> None:
    pytest.importorskip("faiss", reason="needs nearfar[search]")
    plain, _ = evaluate(run.path, device="cpu")
    found, text = evaluate(run.path, device="cpu", engine="faiss")
    for row, scores in plain["test"].items():
        assert found["test"][row] == pytest.approx(scores, abs=1e-12)
    assert text.splitlines()[-1] == found["protocol"] == plain["protocol"] + "; neighbours by faiss"
    with pytest.raises(ConfigError, match="has queries that rank a gallery whole"):
        evaluate(run.path, data=str(asked), device="cpu", engine="faiss")
    with pytest.raises(ConfigError, match="engine is faiss, which is for the protocol retrieval"):
        evaluate(run.path, device="cpu", protocol="verification", engine="faiss")
