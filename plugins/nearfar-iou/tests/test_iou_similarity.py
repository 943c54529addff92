"""Similarities of boxes: tables and rows, against torchvision, their definitions and the losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision import ops

import nearfar
from nearfar.errors import InputError, RecipeError
from nearfar.nn.reducers import NoReduction
from nearfar.testing.meter import peak_bytes
from nearfar_iou.definitions import matching as definitions
from nearfar_iou.distances import box_similarity

THEIRS = {
    "iou": ops.box_iou,
    "giou": ops.generalized_box_iou,
    "diou": ops.distance_box_iou,
    "ciou": ops.complete_box_iou,
}
NAMES = list(THEIRS)


def boxes(n: int, seed: int = 0, dtype: torch.dtype = torch.float64, scale: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator, dtype=torch.float64) * scale
    side = (torch.rand(n, 2, generator=generator, dtype=torch.float64) + 0.02) * scale / 3
    return torch.cat((corner, corner + side), 1).to(dtype)


def rotated(n: int, seed: int = 0) -> Tensor:
    x1, y1, x2, y2 = boxes(n, seed).unbind(1)
    angle = torch.linspace(-4, 4, n, dtype=torch.float64)
    return torch.stack((x1, y1, x2 - x1, y2 - y1, angle), 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-6)])
def test_a_table_is_torchvisions(name: str, dtype: torch.dtype, tolerance: float) -> None:
    a, b = boxes(60, 1, dtype), boxes(45, 2, dtype)
    # Theirs adds 1e-7 to diagonals and to 1 − IoU + v.
    torch.testing.assert_close(nearfar.create_distance(name)(a, b), THEIRS[name](a, b), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [*NAMES, "probiou"])
def test_a_table_of_many_tiles_is_its_definition_at_the_edges_of_each(name: str) -> None:
    make = rotated if name == "probiou" else boxes
    a, b = make(9, 1), make(box_similarity.COLUMNS + 7, 2)
    table = nearfar.create_distance(name)(a, b)
    define = getattr(definitions, name)
    for column in (0, 1, box_similarity.COLUMNS - 1, box_similarity.COLUMNS, len(b) - 1):
        expected = [define(row, b[column].tolist()) for row in a.tolist()]
        torch.testing.assert_close(table[:, column], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*NAMES, "probiou"])
def test_row_by_row_it_is_1_less_the_loss_and_so_is_its_gradient(name: str) -> None:
    make = rotated if name == "probiou" else boxes
    a, b = make(50, 1).requires_grad_(), make(50, 2).requires_grad_()
    similarity = nearfar.create_distance(name).pairwise_distance(a, b)
    loss = nearfar.create_loss(name, reducer=NoReduction())(a, b)
    torch.testing.assert_close(similarity, 1 - loss)
    found = torch.autograd.grad(similarity.sum(), (a, b))
    expected = torch.autograd.grad(-loss.sum(), (a, b))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(nearfar.create_distance(name)(a, b).diagonal(), similarity)


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "probiou"])
def test_the_gradient_of_a_table_is_that_of_finite_differences(name: str) -> None:
    make = rotated if name == "probiou" else boxes
    a, b = make(5, 3).requires_grad_(), make(7, 4).requires_grad_()
    similarity = nearfar.create_distance(name)
    assert torch.autograd.gradcheck(similarity, (a, b), eps=1e-6, atol=1e-6)
    assert torch.autograd.gradcheck(similarity.pairwise_distance, (a, b[:5]), eps=1e-6, atol=1e-6)


IMPROPER = {
    "points": [[3.0, 3, 3, 3], [3, 3, 3, 3], [4, 4, 4, 4]],
    "lines": [[3.0, 1, 3, 9], [3, 1, 3, 9], [0, 5, 10, 5], [1, 5, 1, 9]],
    "inverted": [[10.0, 10, 0, 0], [4, 1, 2, 6], [0, 6, 5, 1], [0, 0, 10, 10]],
    "huge": [[-1e30, -1e30, 1e30, 1e30], [0, 0, 1e30, 1], [0, 0, 1, 1], [-3e20, 0, 1e25, 1e30]],
    "tiny": [[0.0, 0, 1e-30, 1e-30], [0, 0, 1e-30, 2e-30], [1e-31, 0, 5e-31, 1e-20]],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", IMPROPER)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_is_no_proper_box_has_a_finite_similarity_and_gradient_and_is_equal_to_itself(name, what, dtype) -> None:
    made = torch.tensor(IMPROPER[what], dtype=dtype, requires_grad=True)
    similarity = nearfar.create_distance(name)
    table = similarity(made, made.detach())
    assert table.isfinite().all()
    (gradient,) = torch.autograd.grad(table.sum(), made)
    assert gradient.isfinite().all()
    assert table.diagonal().tolist() == [1.0] * len(made)
    assert table.max() <= 1
    torch.testing.assert_close(similarity.pairwise_distance(made, made), table.diagonal())


@pytest.mark.parametrize("name", NAMES)
def test_proper_boxes_do_not_change_for_what_stands_beside_them(name: str) -> None:
    a, similarity = boxes(20, 5), nearfar.create_distance(name)
    improper = torch.tensor([[1.0, 1, 0, 0], [5, 5, 5, 5], [-1e200, 0, 1e200, 1]], dtype=torch.float64)
    together = similarity(torch.cat((a, improper)))
    torch.testing.assert_close(together[:20, :20], similarity(a), rtol=1e-12, atol=1e-12)


def test_an_inverted_box_is_a_point_or_a_line_at_its_middle() -> None:
    similarity = nearfar.create_distance("giou")
    inverted = torch.tensor([[4.0, 1, 2, 6]], dtype=torch.float64)
    read = torch.tensor([[3.0, 1, 3, 6]], dtype=torch.float64)
    others = boxes(6)
    torch.testing.assert_close(similarity(inverted, others), similarity(read, others))


def test_half_precision_and_integers_are_computed_in_float32() -> None:
    similarity = nearfar.create_distance("giou")
    whole = torch.tensor([[0, 0, 300, 300], [10, 20, 250, 310]])
    assert similarity(whole).dtype == torch.float32
    torch.testing.assert_close(similarity(whole.half()), similarity(whole.float()))


def test_formats_are_converted_once_and_mean_the_same() -> None:
    a = boxes(8)
    x1, y1, x2, y2 = a.unbind(1)
    same = {
        "xywh": torch.stack((x1, y1, x2 - x1, y2 - y1), 1),
        "cxcywh": torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), 1),
        "ltrb": torch.stack((-x1, -y1, x2, y2), 1),
    }
    expected = nearfar.create_distance("ciou")(a)
    for box_format, written in same.items():
        torch.testing.assert_close(nearfar.create_distance("ciou", box_format=box_format)(written), expected)


def test_no_more_than_the_table_and_some_pieces_is_in_memory() -> None:
    a, b = boxes(1000, 1, torch.float32), boxes(8400, 2, torch.float32)
    result = 1000 * 8400 * 4
    for name in NAMES:
        similarity = nearfar.create_distance(name)
        assert result <= peak_bytes(lambda s=similarity: s(a, b)) <= 1.2 * result


def test_no_boxes_make_a_table_without_rows_or_columns() -> None:
    similarity, none = nearfar.create_distance("diou"), torch.zeros(0, 4, requires_grad=True)
    assert similarity(none, boxes(3).float()).shape == (0, 3)
    assert similarity(boxes(3).float(), none).shape == (3, 0)
    similarity(none, boxes(3).float()).sum().backward()
    assert none.grad is not None


def test_a_name_is_that_of_a_loss_and_of_a_distance() -> None:
    for name in (*NAMES, "probiou"):
        a = (rotated if name == "probiou" else boxes)(2)
        assert nearfar.create_loss(name)(a, a).item() == 0
        assert torch.equal(nearfar.create_distance(name)(a).diagonal(), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("loss", ["triplet", "sup_con"])
def test_embeddings_are_not_compared_as_boxes(loss: str) -> None:
    with pytest.raises(RecipeError, match=rf"{loss} compares embeddings, and iou\.giou compares boxes"):
        nearfar.compose(loss, distance="giou")


def test_boxes_that_are_none_are_refused_by_what_they_are() -> None:
    similarity = nearfar.create_distance("iou")
    with pytest.raises(InputError, match=r"\(n, 4\), one box a row; got \(3, 5\)"):
        similarity(torch.zeros(3, 5))
    with pytest.raises(InputError, match="as many boxes"):
        similarity.pairwise_distance(boxes(3), boxes(4))
    a = boxes(2).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(similarity(a).sum(), a, create_graph=True)


def test_probiou_of_squares_does_not_see_their_angle() -> None:
    a = torch.tensor([[0.0, 0, 2, 2, 0.3]], dtype=torch.float64)
    b = torch.tensor([[0.5, 0.1, 2, 2, -1.2]], dtype=torch.float64)
    turned = b.clone()
    turned[:, 4] += 0.7
    similarity = nearfar.create_distance("probiou")
    assert math.isclose(similarity(a, b).item(), similarity(a, turned).item(), rel_tol=1e-12)
