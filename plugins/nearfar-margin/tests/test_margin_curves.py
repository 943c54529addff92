"""``nearfar plot margins``: what it draws, writes and refuses."""

from __future__ import annotations

import math

import pytest
import torch
from click.testing import CliRunner

import nearfar
from nearfar.cli import cli
from nearfar.errors import ArgumentError, NearfarError
from nearfar_margin.commands import margins
from nearfar_margin.curves import advantage, settled, target_curve
from nearfar_margin.plugin import nearfar_losses

THETA = torch.linspace(0, math.pi, 91, dtype=torch.float64)


def made(recipe):
    return settled(nearfar.create_loss(recipe, num_classes=10, embedding_size=2))


CURVES = {
    "norm_softmax": lambda x: math.cos(x),
    "cosface(margin=0.2)": lambda x: math.cos(x) - 0.2,
    "arcface(margin=0.4, beyond_pi='raw')": lambda x: math.cos(x + 0.4),
    "combined_margin": lambda x: math.cos(x + 0.3) - 0.2,
    "elasticface": lambda x: math.cos(x + 0.5),
    "kappaface(renewal=3)": lambda x: math.cos(x + 0.62),
    # At 20, the running mean it starts with, a length says nothing of the quality.
    "adaface": lambda x: math.cos(min(max(x, 0.001), math.pi - 0.001)) - 0.4,
    # At its end the annealing leaves a sixth of the margin, or all of it.
    "sphereface": lambda x: (5 * math.cos(x) + (math.cos(4 * x) if x < math.pi / 4 else math.nan)) / 6,
    "l_softmax(margin=1)": lambda x: math.cos(x),
    "magface(shortest=20, longest=40)": lambda x: math.cos(x + 0.45) if x < math.pi / 2 else math.cos(x),
    "npcface": lambda x: math.cos(x + 0.4) if x < math.pi / 2 else math.cos(x),
}


@pytest.mark.parametrize("recipe", CURVES)
def test_the_curve_is_the_targets(recipe):
    found = target_curve(made(recipe), THETA)
    for x, value in zip(THETA.tolist(), found.tolist(), strict=True):
        expected = CURVES[recipe](x)
        if not math.isnan(expected) and abs(x - math.pi / 2) > 1e-9:
            assert value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("recipe", "own", "other"),
    [
        ("norm_softmax", 0.7, 0.7),
        ("cosface(margin=0.35)", math.acos(0.85), math.acos(0.5)),
        ("arcface(margin=0.5)", 0.4, 0.9),
        ("sphereface(lambda_min=0)", 0.2, 0.8),
        ("sphereface_r(version='v2', margin=1.5)", 0.4, 0.6),
        ("mv_softmax(margin=0.35)", math.acos(0.85), math.acos(0.5)),
    ],
)
def test_the_boundary_is_where_the_papers_draw_it(recipe, own, other):
    """Just inside it the own class wins, just outside it does not."""
    loss = made(recipe)
    angles = torch.tensor([own - 1e-4, own + 1e-4], dtype=torch.float64)
    inside, outside = advantage(loss, angles, torch.full_like(angles, other)).tolist()
    assert inside > 0 > outside


def test_every_loss_with_a_softmax_on_cosines_can_be_drawn():
    for spec in nearfar_losses():
        recipe = f"{spec.name}({spec.example})"
        if spec.name in {"softmax", "sphereface2", "p2sgrad", "unified_ce"}:
            with pytest.raises(ArgumentError, match=r"no margin-softmax loss|instead of one softmax"):
                made(recipe)
            continue
        loss = made(recipe)
        before = {name: value.clone() for name, value in loss.named_buffers()}
        assert target_curve(loss, THETA).isfinite().all()
        assert advantage(loss, THETA, THETA.flip(0)).isfinite().all()
        assert all(torch.equal(value, before[name]) for name, value in loss.named_buffers())


def run(*arguments):
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def test_the_figure_has_a_square_for_each_loss_and_the_curves_of_all(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib, of nearfar[plot], is not installed")
    monkeypatch.chdir(tmp_path)
    drawn = margins.draw({name: made(name) for name in ("cosface", "arcface(margin=0.2)", "magface")}, 20.0)
    *squares, curves = drawn.axes
    assert [axes.get_title() for axes in squares] == ["cosface", "arcface(margin=0.2)", "magface"]
    assert [line.get_label() for line in curves.lines] == ["cos θ", "cosface", "arcface(margin=0.2)", "magface"]
    assert curves.lines[1].get_ydata()[0] == pytest.approx(0.65)
    done = run("plot", "margins", "cosface", "arcface", "-o", "here/both")
    assert done.stdout.split() == ["here/both.png", "here/both.svg"]
    assert (tmp_path / "here" / "both.svg").stat().st_size > 1000
    with pytest.raises(NearfarError, match="is there already"):
        run("plot", "margins", "-o", "here/both")
    # An ending is one of the two that are written, not a part of the name.
    done = run("plot", "margins", "cosface", "-o", "here/both.svg", "--overwrite")
    assert done.stdout.split() == ["here/both.png", "here/both.svg"]


def test_a_loss_without_a_logit_of_the_target_is_refused_by_name(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib, of nearfar[plot], is not installed")
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("sphereface2", "instead of one softmax"),
        ("triplet", "no margin-softmax loss"),
        ("softmax", "a softmax over cosines is norm_softmax"),
        ("arcface + cosface", "a sum of 2 losses"),
        ("arcfase(margin=2)", "did you mean 'arcface'"),
    ):
        with pytest.raises(NearfarError, match=said):
            run("plot", "margins", name)
    assert not list(tmp_path.iterdir())
