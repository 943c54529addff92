"""Class vectors from insightface's and pytorch-metric-learning's heads, and to them: the same logits on either side."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as pml

from nearfar.errors import ArgumentError, CheckpointError
from nearfar.nn.class_weights import class_vectors, load_weight, save_weight
from nearfar_margin.arcface import ArcFace
from nearfar_margin.cosface import CosFace
from nearfar_margin.norm_softmax import NormSoftmax
from nearfar_margin.softmax import Softmax
from nearfar_margin.subcenter_arcface import SubcenterArcFace

C, D = 7, 4
PAIRS = {
    "arcface": (lambda: ArcFace(C, D, margin=0.4991641660703783), lambda: pml.ArcFaceLoss(C, D)),
    "cosface": (lambda: CosFace(C, D), lambda: pml.CosFaceLoss(C, D)),
    "norm_softmax": (lambda: NormSoftmax(C, D, scale=20.0), lambda: pml.NormalizedSoftmaxLoss(C, D)),
    "subcenter_arcface": (
        lambda: SubcenterArcFace(C, D, margin=0.4991641660703783),
        lambda: pml.SubCenterArcFaceLoss(num_classes=C, embedding_size=D, sub_centers=3),
    ),
}


def batch():
    g = torch.Generator().manual_seed(0)
    return torch.randn(9, D, generator=g), torch.randint(C, (9,), generator=g)


def unnormalised(loss):
    with torch.no_grad():
        for p in loss.parameters():
            p.normal_(std=3.0)
    return loss


def partial_fc(weight, x, scale=64.0):
    """The logits of insightface's head, without its margin."""
    return scale * F.linear(F.normalize(x), F.normalize(weight))


def sharded(weight, world):
    """The rows of each rank of Partial FC, by its own rule."""
    n = len(weight)
    starts = [n // world * rank + min(rank, n % world) for rank in range(world)] + [n]
    return [weight[a:b].clone() for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize("name", PAIRS)
def test_pytorch_metric_learnings_head_and_ours_give_the_same_after_either_way(name):
    ours, theirs = (make() for make in PAIRS[name])
    x, y = batch()
    load_weight(ours, unnormalised(theirs))
    torch.testing.assert_close(ours.logits(x), theirs.get_logits(x))
    torch.testing.assert_close(ours(x, y), theirs(x, y))
    unnormalised(ours)
    theirs.load_state_dict(class_vectors(ours, "columns"))
    torch.testing.assert_close(theirs.get_logits(x), ours.logits(x))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("make", [lambda: CosFace(C, D), lambda: SubcenterArcFace(C, D), lambda: Softmax(C, D)])
def test_what_is_written_is_read_to_the_last_bit(tmp_path, suffix, layout, make):
    one, other = unnormalised(make()), make()
    (path,) = save_weight(one, tmp_path / f"head.{suffix}", layout=layout)
    load_weight(other, path)
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shards_of_partial_fc_are_put_together_and_made_rank_by_rank(tmp_path, world):
    """Seven classes: on three ranks 3 + 2 + 2, on eight one has none."""
    loss, (x, _) = unnormalised(CosFace(C, D)), batch()
    path = str(tmp_path / ("rank_{rank}.pt" if world > 1 else "rank_0.pt"))
    files = save_weight(loss, path, shards=world)
    expected = sharded(loss.weight.detach(), world)
    for file, rows in zip(files, expected, strict=True):
        assert torch.equal(torch.load(file, weights_only=True)["weight"], rows)
    other = CosFace(C, D)
    load_weight(other, files)
    torch.testing.assert_close(other.logits(x), partial_fc(torch.cat(expected), x))


def test_a_checkpoint_of_insightface_is_read_though_its_optimizer_has_tensors_like_it(tmp_path):
    """And its network: a square layer of a transformer has rows of the length of an embedding."""
    weight = torch.randn(C, D)
    for rank, rows in enumerate(sharded(weight, 2)):
        checkpoint = {
            "epoch": 3,
            "state_dict_backbone": {"blocks.0.proj.weight": torch.randn(D, D)},
            "state_dict_softmax_fc": {"weight": rows},
            "state_optimizer": {"state": {0: {"momentum_buffer": torch.randn(rows.shape)}}},
        }
        torch.save(checkpoint, tmp_path / f"checkpoint_gpu_{rank}.pt")
    loss = CosFace(C, D)
    load_weight(loss, [tmp_path / f"checkpoint_gpu_{rank}.pt" for rank in range(2)])
    assert torch.equal(loss.weight, weight)


def test_the_only_matrix_that_fits_is_found_in_a_model():
    weight = torch.randn(C, D)
    state = {"state_dict": {"head.weight": weight, "body.weight": torch.randn(D, 9), "head.count": torch.ones(C, D)}}
    loss = CosFace(C, D)
    load_weight(loss, state)
    assert torch.equal(loss.weight, weight)
    load_weight(loss, state, key="state_dict.head.count")
    assert (loss.weight == 1).all()


def test_as_many_classes_as_dimensions_have_to_be_told():
    """In a tensor, in a state dict whose name would tell, in a module."""
    square, loss = torch.randn(D, D), CosFace(D, D)
    for source in (square, {"weight": square}, {"W": square}, pml.CosFaceLoss(D, D)):
        with pytest.raises(ArgumentError, match=r"\(4, 4\) may hold a class in each row or in each column; say layout"):
            load_weight(loss, source)
    load_weight(loss, square, layout="rows")
    assert torch.equal(loss.weight, square)
    load_weight(loss, {"W": square}, layout="columns")
    assert torch.equal(loss.weight, square.T)


def test_as_many_vectors_as_dimensions_of_fewer_classes_have_to_be_told():
    square, loss = torch.randn(6, 6), SubcenterArcFace(3, 6, centers=2)
    with pytest.raises(ArgumentError, match="say layout"):
        load_weight(loss, square)
    load_weight(loss, square, layout="columns")
    assert torch.equal(loss.weight[1], square.T[2:4])


def test_classes_may_have_another_order_and_be_fewer():
    weight, loss = torch.randn(9, D), CosFace(3, D)
    load_weight(loss, {"W": weight.T}, classes=[8, 0, 4])
    assert torch.equal(loss.weight, weight[[8, 0, 4]])
    for wrong in ([0, 1], [0, 1, 9], [0, 1, -1]):
        with pytest.raises(ArgumentError, match="one of the 9 of the source, 0 to 8"):
            load_weight(loss, weight, classes=wrong)


def test_another_dtype_is_converted():
    loss, weight = CosFace(C, D).double(), torch.randn(C, D).half()
    load_weight(loss, weight)
    assert torch.equal(loss.weight, weight.double())


def test_shards_in_the_order_of_their_names_are_refused(tmp_path):
    """The tenth comes before the second there, and classes would change places."""
    loss = CosFace(11, D)
    files = save_weight(loss, str(tmp_path / "fc_{rank}.pt"), shards=11)
    with pytest.raises(ArgumentError, match=r"the names of these do not count up: fc_0[.]pt, fc_1[.]pt, fc_10"):
        load_weight(loss, sorted(files))


class Something:
    """What weights_only refuses."""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.zeros(C, D + 1), r"a tensor \(7, 5\) holds no class vectors with embedding_size=4"),
        (torch.zeros(C + 1, D), r"the source has 8 classes, and the loss has num_classes=7"),
        ([torch.zeros(4, D), torch.zeros(4, D)], r"the source has 4 \+ 4 classes"),
        ({"weight": torch.zeros(C, D + 1)}, r"no tensor called weight, W, proxies or fc fits; it has weight \(7, 5\)"),
        ({"a.weight": torch.zeros(C, D), "b.W": torch.zeros(D, C)}, "more than one tensor fits; say which with key"),
        ({}, "it has no tensors"),
        ("nowhere.pt", "there is no file 'nowhere.pt'"),
    ],
)
def test_what_does_not_fit_is_said(source, message):
    loss = CosFace(C, D)
    before = loss.weight.detach().clone()
    with pytest.raises(CheckpointError, match=message):
        load_weight(loss, source)
    assert torch.equal(loss.weight, before)


def test_a_file_that_could_run_code_or_is_damaged_is_refused(tmp_path):
    loss = CosFace(C, D)
    torch.save({"weight": torch.zeros(C, D), "more": Something()}, tmp_path / "more.pt")
    with pytest.raises(CheckpointError, match="could run code when it is read"):
        load_weight(loss, tmp_path / "more.pt")
    for name in ("damaged.pt", "damaged.safetensors"):
        (tmp_path / name).write_bytes(b"no weights")
        with pytest.raises(CheckpointError, match=f"{name}' "):
            load_weight(loss, tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "head.pt", "shards": 2}, "with {rank} in the path"),
        ({"path": "head_{rank}.pt"}, "with {rank} in the path"),
        ({"path": "head_{rank}.pt", "shards": 2, "layout": "columns"}, "layout='rows'"),
        ({"path": "head.pt", "layout": "diagonals"}, "layout must be 'rows' or 'columns'"),
    ],
)
def test_files_that_cannot_be_written_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        save_weight(CosFace(C, D), **arguments)


def test_an_empty_list_is_refused():
    with pytest.raises(ArgumentError, match="the list of shards is empty"):
        load_weight(CosFace(C, D), [])
