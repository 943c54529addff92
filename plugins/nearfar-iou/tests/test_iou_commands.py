"""``nearfar bench boxes``, ``plot focal`` and ``plot regression``: what they print, write and refuse."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from nearfar.cli import cli
from nearfar.errors import MissingExtra, NearfarError
from nearfar_iou.commands import focal, regression


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def refused(*arguments: str) -> str:
    with pytest.raises(NearfarError) as caught:
        run(*arguments)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def drawing() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, of nearfar[plot], is not installed")


# ---- bench boxes

BENCH = ("bench", "boxes", "--points", "3", "--loss", "iou")


def test_the_table_has_every_mode_and_loss_and_its_sums() -> None:
    done = run("bench", "boxes", "--points", "3", "--loss", "iou", "--loss", "eiou", "--no-figures")
    said = done.stdout.splitlines()
    assert said[0] == "Sum of errors of 1,715,000 boxes, in millions; 3 points, scaled to 5,000"
    assert [line.split()[:2] for line in said[2:]] == [["paper", "iou"], ["exact", "iou"], ["exact", "eiou"]]
    rows = json.loads(Path("bench-boxes/table.json").read_text())
    assert [float(line.split()[5]) for line in said[2:]] == [round(row["curve"][200] / 1e6, 4) for row in rows]
    assert [row["loss"] for row in rows] == ["iou", "iou", "eiou"]
    assert "paper iou: done" in done.stderr
    assert not list(Path("bench-boxes").glob("*.png"))


def test_curves_and_surface_are_drawn() -> None:
    drawing()
    run(*BENCH, "--loss", "giou")
    assert {path.name for path in Path("bench-boxes").glob("*.[ps][nv]g")} == {
        "curves.png",
        "curves.svg",
        "surface.png",
        "surface.svg",
    }


def test_a_table_and_figures_are_overwritten_only_when_told_to_and_nothing_is_computed_again() -> None:
    first = run(*BENCH, "--no-figures", "--mode", "paper")
    kept = Path("bench-boxes/paper-iou.npz").stat().st_mtime_ns
    assert "table.json is there already; give --overwrite, or another folder" in refused(*BENCH, "--no-figures")
    again = run(*BENCH, "--no-figures", "--mode", "paper", "--overwrite")
    assert again.stdout == first.stdout
    assert Path("bench-boxes/paper-iou.npz").stat().st_mtime_ns == kept


def test_an_existing_figure_stops_it_before_anything_is_computed() -> None:
    drawing()
    Path("out").mkdir()
    Path("out/curves.svg").write_text("mine", encoding="utf-8")
    assert "curves.svg is there already" in refused(*BENCH, "-o", "out")
    assert [path.name for path in Path("out").iterdir()] == ["curves.svg"]


def test_without_matplotlib_it_says_so_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else found(name, *a))
    with pytest.raises(MissingExtra, match=r"or give --no-figures\) needs an optional part .*nearfar\[plot\]"):
        run(*BENCH)
    assert not Path("bench-boxes").exists()
    assert run(*BENCH, "--no-figures").exit_code == 0


def test_a_loss_that_cannot_be_simulated_leaves_nothing_behind() -> None:
    assert "it is no loss on the overlap of boxes alone" in refused("bench", "boxes", "--loss", "focal", "--no-figures")
    assert not Path("bench-boxes").exists()


# ---- plot


@pytest.mark.parametrize("name", ["focal", "regression"])
def test_a_plot_is_written_in_both_formats_and_over_nothing(name: str) -> None:
    drawing()
    assert run("plot", name).stdout == f"{name}.png\n{name}.svg\n"
    assert f"{name}.png is there already; give --overwrite" in refused("plot", name)
    before = Path(f"{name}.svg").read_bytes()
    run("plot", name, "--overwrite")
    assert Path(f"{name}.svg").read_bytes() == before
    assert run("plot", name, "-o", "figures/mine").stdout == "figures/mine.png\nfigures/mine.svg\n"


def test_focal_loss_is_drawn_as_its_formula() -> None:
    drawing()
    values, slopes = focal.draw((0.0, 2.0)).axes
    for line, slope, gamma in zip(values.lines, slopes.lines, (0.0, 2.0), strict=True):
        p = torch.as_tensor(line.get_xdata())
        torch.testing.assert_close(torch.as_tensor(line.get_ydata()), -((1 - p) ** gamma) * p.log())
        # By the logit: (1 − p)^γ (γ p ln p + p − 1), as in the paper's appendix.
        expected = (1 - p) ** gamma * (gamma * p * p.log() + p - 1)
        torch.testing.assert_close(torch.as_tensor(slope.get_ydata()), expected)
    assert [text.get_text() for text in values.get_legend().get_texts()] == ["γ = 0", "γ = 2"]


def test_regression_losses_are_drawn_as_their_formulas() -> None:
    drawing()
    values, slopes = regression.draw(0.5).axes
    named = {line.get_label(): (line, slope) for line, slope in zip(values.lines, slopes.lines, strict=True)}
    x = torch.as_tensor(named["L1"][0].get_xdata())
    expected = {
        "L1": (x.abs(), x.sign()),
        "L2": (x**2, 2 * x),
        "smooth L1, β = 0.5": (torch.where(x.abs() < 0.5, x**2, x.abs() - 0.25), (2 * x).clamp(-1, 1)),
    }
    assert set(named) == {*expected, "balanced L1"}
    for name, (value, slope) in expected.items():
        torch.testing.assert_close(torch.as_tensor(named[name][0].get_ydata()), value, msg=name)
        torch.testing.assert_close(torch.as_tensor(named[name][1].get_ydata()), slope, msg=name)


def test_a_negative_gamma_and_a_beta_of_nothing_are_refused() -> None:
    assert CliRunner().invoke(cli, ["plot", "focal", "--gamma", "-1"]).exit_code == 2
    assert CliRunner().invoke(cli, ["plot", "regression", "--beta", "0"]).exit_code == 2
