"""``nearfar report``: one page that holds all it shows, whatever the classes are called and whatever is missing."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from awkward import LONG, QUOTE, SCRIPT
from nearfar.cli import main
from nearfar.errors import CheckpointError, ConfigError
from nearfar.report import write_report
from nearfar.report.scenes import MOST_THUMBNAILS
from nearfar.report.thumbnail import SIDE
from nearfar.train import evaluate

VOID = {"meta", "img", "br", "path", "circle", "polyline", "image"}


class Page(HTMLParser):
    """The elements of a page, with their attributes and texts; it notes what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID or tag in ("circle", "polyline", "image"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at line {self.getpos()[0]}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture
def copy(runs: tuple[Path, Path], tmp_path: Path) -> Path:
    """A run to take things out of."""
    return Path(shutil.copytree(runs[0], tmp_path / "triplets"))


def report(run: Path, tmp_path: Path, **options: Any) -> tuple[str, tuple[str, ...]]:
    made = write_report([run], tmp_path / "one.html", device="cpu", **options)
    return made.path.read_text(encoding="utf-8"), made.notes


# ---- what is on it


def test_every_element_is_closed_and_every_link_within_leads_somewhere(page: Page) -> None:
    assert page.wrong == []
    assert page.open == []
    places = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(places) == len(set(places))
    within = [href[1:] for href in (link["href"] or "" for link in page.all("a")) if href.startswith("#")]
    assert len(within) >= 10
    assert set(within) <= set(places)


def test_it_has_every_section(page: Page) -> None:
    found = {attributes["id"] for attributes in page.all("section")}
    wanted = {"figures", "training", "validation", "pairs", "neighbours", "map", "hardest", "recipe", "configuration"}
    assert found == wanted


def test_the_figures_are_those_that_evaluation_gives(runs: tuple[Path, Path], page: Page) -> None:
    scores = [evaluate(run, device="cpu")[0]["test"]["trained"] for run in runs]
    for name, head in {"recall@1": "recall@1", "map@r": "MAP@R"}.items():
        cells = r" \([\d.]+ to [\d.]+\) ".join(re.escape(f"{100 * score[name]:.1f}") for score in scores)
        assert re.search(rf"{head} {cells} \([\d.]+ to [\d.]+\)", page.text)


def test_runs_stand_side_by_side(page: Page) -> None:
    assert "triplets arcs recall@1" in page.text
    roc = next(svg for svg in page.all("svg") if (svg.get("aria-label") or "").startswith("ROC"))
    assert "triplets: " in (roc["aria-label"] or "")
    assert "arcs: " in (roc["aria-label"] or "")
    assert {"line s0", "line s1"} <= {line["class"] for line in page.all("polyline")}
    assert "judged on different images" not in page.text


def test_neighbours_are_marked_in_words_and_rightly(runs: tuple[Path, Path], page: Page) -> None:
    marks = [" ".join(part.split()) for part in page.texts if part.strip() in ("✓ right", "✗ wrong")]
    assert len(marks) == 2 * 12 * 5
    assert set(marks) == {"✓ right", "✗ wrong"}
    query = ""
    for image in page.all("img"):
        said, _, name = (image["alt"] or "").partition(", class ")
        if said == "query":
            query = name
        elif said.startswith("neighbour"):
            assert said.endswith("right") == (name == query)


def test_parts_link_to_their_papers(page: Page) -> None:
    links = {link["href"] for link in page.all("a")}
    assert "https://arxiv.org/abs/1801.07698" in links  # ArcFace
    assert "https://arxiv.org/abs/1503.03832" in links  # FaceNet: the miner, which is nested
    assert "margin.arcface, loss" in page.text
    assert "pair.semihard, miner" in page.text


def test_it_says_what_trained_it(page: Page) -> None:
    assert "embedding_size: 8" in page.text
    assert f"torch {version('torch')}" in page.text
    assert re.search(r"Trained with .*pair \d", page.text)


# ---- what it must not do


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(page: Page, text: str) -> None:
    assert {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements} == set()
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("data:image/jpeg;base64,", "#")) or tag == "a", (tag, value)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_class_names_are_text(page: Page, text: str) -> None:
    assert "<script" not in text
    for name in (SCRIPT, QUOTE, LONG):
        assert name in page.texts
        assert any(name in (image["alt"] or "") for image in page.all("img"))


def test_it_is_made_for_phones_for_the_dark_and_for_the_keyboard(page: Page, text: str) -> None:
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert "prefers-color-scheme: dark" in text
    assert ":focus-visible" in text
    assert page.all("a")[0]["href"] == "#content"
    wide = [attributes for attributes in page.all("div") if attributes.get("class") == "wide"]
    assert wide
    assert all(div["tabindex"] == "0" and div["aria-label"] for div in wide)
    assert all(image["alt"] for image in page.all("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))


def test_headings_go_down_one_level_at_a_time(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(lower <= higher + 1 for higher, lower in itertools.pairwise(levels))


def test_the_keyboard_goes_through_the_page_in_its_order(page: Page) -> None:
    stops = [(tag, about) for tag, about in page.elements if tag in ("a", "summary") or "tabindex" in about]
    assert all(about.get("tabindex", "0") == "0" for _, about in stops)
    first, *links = [about["href"] for tag, about in stops if tag == "a"]
    assert first == "#content"
    sections = [f"#{about['id']}" for about in page.all("section")]
    assert links[: len(sections)] == sections


def contrast(one: str, other: str) -> float:
    """How far two colours #rrggbb are apart in brightness: WCAG 2.2's ratio, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_ratio_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_words_and_lines_stand_out_in_the_light_and_in_the_dark(text: str) -> None:
    light, dark = (
        dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", part)) for part in re.findall(r":root \{[^}]*\}", text)
    )
    assert light.keys() == dark.keys()
    assert light["ground"] != dark["ground"]
    for colours in (light, dark):
        for behind in (colours["ground"], colours["panel"]):
            for words in ("ink", "soft", "link", "right", "wrong"):
                assert contrast(colours[words], behind) >= 4.5, words
            for line in range(8):
                assert contrast(colours[f"c{line}"], behind) >= 3, line


def test_every_colour_of_a_line_is_told_apart_by_dashes_too(text: str) -> None:
    dashes = dict(re.findall(r"\.s(\d) \{ stroke-dasharray: ([\d ]+);", text))
    assert set(dashes) == set("1234567")
    assert len(set(dashes.values())) == 7


def test_pictures_are_small_and_their_number_is_bounded(page: Page) -> None:
    addresses = [image["src"] or "" for image in page.all("img")] + [image["href"] or "" for image in page.all("image")]
    assert 0 < len(addresses) <= 2 * MOST_THUMBNAILS
    for address in set(addresses):
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
            assert max(picture.size) <= SIDE
    assert f"at most {MOST_THUMBNAILS} thumbnails a run" in page.text


def test_the_same_run_gives_the_same_bytes(runs: tuple[Path, Path], text: str, tmp_path: Path) -> None:
    made = write_report(runs, tmp_path / "again.html", device="cpu")
    assert made.path.read_text(encoding="utf-8") == text


# ---- what is missing


@pytest.mark.parametrize(
    ("missing", "said", "section"),
    [
        ("logs/train.csv", "Without training curves: logs/train.csv is missing.", "training"),
        ("logs/validation.csv", "Without validation curves: logs/validation.csv is missing.", "validation"),
        ("metrics.json", "metrics.json is missing, as the run is not finished.", None),
        ("recipe.yaml", "Without the recipe and its papers: recipe.yaml is missing.", None),
        ("model.safetensors", "model.safetensors is missing, which the first validation writes.", "neighbours"),
    ],
)
def test_a_missing_file_is_named_and_the_rest_is_shown(
    copy: Path, tmp_path: Path, missing: str, said: str, section: str | None
) -> None:
    (copy / missing).unlink()
    text, notes = report(copy, tmp_path)
    (note,) = notes
    assert note.endswith(said)
    page = Page(text)
    assert page.wrong == []
    assert said in page.text
    assert section not in {attributes["id"] for attributes in page.all("section")}
    assert f"#{section}" not in {link["href"] for link in page.all("a")}


def test_tensorboard_is_not_needed(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "logs" / "tensorboard")
    assert report(copy, tmp_path)[1] == ()


def test_images_that_are_gone_are_a_sentence(copy: Path, tmp_path: Path) -> None:
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(re.sub("source: .*", f"source: {tmp_path / 'gone'}", config))
    text, (note,) = report(copy, tmp_path)
    assert "Without figures, neighbours, the map and the hardest pairs: there is no data set" in note
    assert 'id="training"' in text
    assert "recall@1, trained network" in Page(text).text  # what it ended with is written down


def test_damage_is_a_sentence(copy: Path, tmp_path: Path) -> None:
    (copy / "metrics.json").write_text("[1, 2]")
    (copy / "logs" / "train.csv").write_text("step,loss\n1,nan\n2,0.5\n3\n")
    (copy / "recipe.yaml").write_text("terms: []\n")
    text, notes = report(copy, tmp_path)
    assert [note for note in notes if "metrics.json is damaged" in note]
    assert [note for note in notes if "the 'terms' of a recipe are a list" in note]
    assert "1 values of loss are not finite and not drawn" in Page(text).text


def test_a_part_that_is_not_installed_is_named(copy: Path, tmp_path: Path) -> None:
    (copy / "recipe.yaml").write_text("terms:\n- loss:\n    part: elsewhere.unheard_of\n")
    text, _ = report(copy, tmp_path)
    assert "elsewhere.unheard_of" in Page(text).text


def test_other_images_may_be_looked_at(copy: Path, photos: Path, tmp_path: Path) -> None:
    text, _ = report(copy, tmp_path, data=photos / "train")
    assert "16 images of 4 classes" in Page(text).text


def test_runs_on_other_images_are_not_compared(
    runs: tuple[Path, Path], copy: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "test" / "plain")
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(photos), str(tmp_path / "fewer")))
    made = write_report([runs[1], copy], tmp_path / "two.html", device="cpu")
    assert "judged on different images" in made.path.read_text(encoding="utf-8")


def test_a_name_that_is_no_text_can_be_written(copy: Path, tmp_path: Path) -> None:
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["run"]["model"] = "half \ud800"
    (copy / "metrics.json").write_text(json.dumps(metrics))
    assert "half ?" in report(copy, tmp_path)[0]


# ---- what is refused


def test_a_page_is_not_written_over_unless_that_is_asked_for(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "one.html").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        report(copy, tmp_path)
    assert (tmp_path / "one.html").read_text() == "mine"
    assert report(copy, tmp_path, overwrite=True)[0].startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("error", "runs_of", "output", "said"),
    [
        (ConfigError, lambda run: [], "page.html", "at least one run"),
        (ConfigError, lambda run: [run, run / ".." / run.name], "page.html", "given twice"),
        (ConfigError, lambda run: [run], "no/such/page.html", "there is no folder"),
        (ConfigError, lambda run: [run], "", "is a folder"),
        (CheckpointError, lambda run: [run / "logs"], "page.html", "not the folder of a run"),
    ],
)
def test_what_cannot_be_is_refused(
    error: Any, runs_of: Any, output: str, said: str, copy: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        write_report(runs_of(copy), tmp_path / output, device="cpu")
    assert not (tmp_path / "page.html").exists()


def test_the_command_line(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "logs" / "train.csv").unlink()
    words = ["report", str(copy), "-o", str(tmp_path / "page.html"), "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    assert re.fullmatch(r"wrote .*page\.html \(\d+ KiB\)\n", printed.out)
    assert printed.err == "triplets: Without training curves: logs/train.csv is missing.\n"
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "--overwrite" in capsys.readouterr().err
