"""``pool="flatten"``: a head that sees where features are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nearfar.errors import ArgumentError, InputError
from nearfar.models import create_model, load_model, save_model


def test_the_head_sees_every_position() -> None:
    model = create_model("test_resnet", 8, pool="flatten", image_size=64)
    assert model.head.in_features == 96 * 2 * 2
    assert model(torch.zeros(3, 3, 64, 64)).shape == (3, 8)


def test_without_a_head_the_embedding_is_the_whole_map() -> None:
    images = torch.rand(2, 3, 64, 64)
    model = create_model("test_resnet", None, pool="flatten", head="none", image_size=64).eval()
    features = model.backbone(images)
    assert features.shape == (2, 96, 2, 2)
    assert torch.equal(model(images), features.flatten(1))


def test_other_sizes_are_refused_by_name() -> None:
    model = create_model("test_resnet", 8, pool="flatten", image_size=64)
    with pytest.raises(InputError, match=r"needs images \(3, 64, 64\), not \(3, 32, 32\)"):
        model(torch.zeros(1, 3, 32, 32))


def test_it_survives_its_file(tmp_path: Path) -> None:
    model = create_model("test_resnet", 8, pool="flatten", image_size=32).eval()
    save_model(model, tmp_path / "model.safetensors")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_model(tmp_path / "model.safetensors")(images), model(images))


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ArgumentError, match="pool is 'max', but must be one of model, flatten"):
        create_model("test_resnet", 8, pool="max")  # type: ignore[arg-type]
