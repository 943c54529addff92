"""Figures: written as PNG and SVG, the same bytes for the same figure, and over nothing that is there already."""

from __future__ import annotations

import importlib.util

import pytest

from nearfar import figures
from nearfar.errors import ConfigError, MissingExtra

pytest.importorskip("matplotlib", reason="matplotlib, of nearfar[plot], is not installed")


def drawn():
    made = figures.figure(1, 2)
    for axes in made.axes:
        axes.plot([0, 1], [1, 0], label="down")
        axes.legend()
    return made


def test_a_figure_is_written_in_both_formats_and_is_the_same_twice(tmp_path):
    first = figures.save(drawn(), tmp_path / "below" / "first")
    second = figures.save(drawn(), tmp_path / "second")
    assert [path.name for path in first] == ["first.png", "first.svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in first[1].read_bytes()
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("ending", figures.FORMATS)
def test_what_is_there_already_is_kept_unless_told_otherwise(tmp_path, ending):
    there = tmp_path / f"figure.{ending}"
    there.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"figure\.{ending} is there already; give --overwrite"):
        figures.save(drawn(), tmp_path / "figure")
    assert there.read_text(encoding="utf-8") == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [there.name]
    figures.save(drawn(), tmp_path / "figure", overwrite=True)
    assert there.read_bytes() != b"mine"


def test_a_folder_in_the_way_is_never_overwritten(tmp_path):
    (tmp_path / "figure.png").mkdir()
    with pytest.raises(ConfigError, match="is there already; choose another name"):
        figures.save(drawn(), tmp_path / "figure", overwrite=True)


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(MissingExtra, match=r"drawing needs an optional part of nearfar: pip install 'nearfar\[plot\]'"):
        figures.figure()
