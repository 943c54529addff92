"""Vectors of classes are written with the names of the classes, and are found again by any reader of the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

import nearfar
from nearfar.errors import ArgumentError, CheckpointError
from nearfar.models import class_vectors, load_class_vectors, save_class_vectors
from nearfar.nn import Criterion

NAMES = ("heron", "stork", "crane", "höhe")


def made(recipe: str) -> Criterion:
    torch.manual_seed(0)
    return nearfar.compose(recipe, num_classes=4, embedding_size=3)


@pytest.mark.parametrize(
    ("recipe", "shapes"),
    [
        ("softmax + 0.003 * center(init='normal')", {"softmax.weight": (4, 3), "center.centers": (4, 3)}),
        ("softmax + island(init='normal')", {"softmax.weight": (4, 3), "island.centers": (4, 3)}),
        ("subcenter_arcface(centers=2)", {"subcenter_arcface.weight": (4, 2, 3)}),
        ("soft_triple(centers=5)", {"soft_triple.weight": (4, 5, 3)}),
        ("proxy_nca + proxy_anchor", {"proxy_nca.weight": (4, 3), "proxy_anchor.weight": (4, 3)}),
        (
            "triplet_center + contrastive_center",
            {"triplet_center.centers": (4, 3), "contrastive_center.centers": (4, 3)},
        ),
        ("regular_face(proxy_anchor)", {"regular_face.loss.weight": (4, 3)}),
        ("kappaface(renewal=3)", {"kappaface.weight": (4, 3)}),
    ],
)
def test_heads_proxies_and_centres_come_back_with_the_names(
    recipe: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    criterion = made(recipe)
    save_class_vectors(criterion, tmp_path / "classes.safetensors", NAMES)
    found = load_class_vectors(tmp_path / "classes.safetensors")
    assert found.names == NAMES
    assert {name: tuple(each.shape) for name, each in found.vectors.items()} == shapes
    state = {name.removeprefix("losses."): each for name, each in criterion.state_dict().items()}
    assert all(torch.equal(each, state[name]) for name, each in found.vectors.items())
    assert all(each.any() for each in found.vectors.values())


def test_what_is_written_does_not_move_with_the_criterion() -> None:
    criterion = made("center(init='normal')")
    before = class_vectors(criterion)["center.centers"]
    kept = before.clone()
    criterion(torch.randn(8, 3), torch.arange(8) % 4)
    assert torch.equal(before, kept)
    assert not torch.equal(class_vectors(criterion)["center.centers"], kept)


def test_proxies_that_are_of_no_class_are_left_out() -> None:
    assert class_vectors(made("proxy_nca(assignment='dynamic', num_proxies=4)")) == {}


def test_any_reader_of_safetensors_finds_the_names(tmp_path: Path) -> None:
    path = tmp_path / "classes.safetensors"
    save_class_vectors(made("proxy_anchor"), path, NAMES)
    with safetensors.safe_open(path, framework="np") as file:
        assert list(file.keys()) == ["proxy_anchor.weight"]
        assert tuple(json.loads(file.metadata()["nearfar.classes"])) == NAMES


def test_a_head_takes_the_vectors_of_the_file(tmp_path: Path) -> None:
    from nearfar.nn.class_weights import load_weight

    path = tmp_path / "classes.safetensors"
    criterion = made("proxy_anchor + center(normalize=True)")
    save_class_vectors(criterion, path, NAMES)
    head = made("cosface").losses["cosface"]
    load_weight(head, path, key="proxy_anchor.weight", classes=[3, 2, 1, 0])
    assert torch.equal(head.weight, criterion.losses["proxy_anchor"].weight.flip(0))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({}, "no loss of the criterion has any"),
        ({"proxy_nca.weight": torch.zeros(5, 3)}, "proxy_nca.weight has vectors of 5 classes, and 4 names were given"),
    ],
)
def test_what_cannot_be_written_is_refused_before_there_is_a_file(
    vectors: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message):
        save_class_vectors(vectors, tmp_path / "classes.safetensors", NAMES)
    assert not list(tmp_path.iterdir())


def test_where_it_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"ends in \.safetensors"):
        save_class_vectors(made("proxy_nca"), tmp_path / "classes.pt", NAMES)
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_class_vectors(made("proxy_nca"), tmp_path / "no folder" / "classes.safetensors", NAMES)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        load_class_vectors(tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_class_vectors(damaged)
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(safetensors.torch.save({"weight": torch.zeros(4, 3)}))
    with pytest.raises(CheckpointError, match="was not written by nearfar"):
        load_class_vectors(foreign)
