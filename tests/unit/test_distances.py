"""Distances: their definition, their edges, and their likeness to pytorch-metric-learning's."""

from __future__ import annotations

import math

import pytest
import torch

from nearfar.errors import InputError
from nearfar.nn.distances import Cosine, Dot, Euclidean, SquaredEuclidean

ALL = [Euclidean(), Euclidean(normalize=False), SquaredEuclidean(), SquaredEuclidean(normalize=False), Cosine(), Dot()]


def reference(name: str, normalize: bool, x: list[float], y: list[float]) -> float:
    """The definition, in plain Python."""
    if normalize or name == "Cosine":
        nx, ny = math.hypot(*x), math.hypot(*y)
        x, y = [a / nx for a in x], [b / ny for b in y]
    dot = math.fsum(a * b for a, b in zip(x, y, strict=True))
    squared = math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    return {"Cosine": dot, "Dot": dot, "SquaredEuclidean": squared, "Euclidean": math.sqrt(squared)}[name]


@pytest.mark.parametrize("distance", ALL, ids=repr)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_matrix_is_the_definition(distance, dtype, tolerance):
    torch.manual_seed(0)
    query, ref = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    name, normalize = type(distance).__name__, distance.normalize_embeddings
    expected = torch.tensor(
        [[reference(name, normalize, x, y) for y in ref.tolist()] for x in query.tolist()], dtype=torch.float64
    )
    found = distance(query.to(dtype), ref.to(dtype)).double()
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    rows = distance.pairwise_distance(distance.maybe_normalize(query), distance.maybe_normalize(ref[:4])).double()
    torch.testing.assert_close(rows, expected.diagonal(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("distance", ALL, ids=repr)
def test_the_gradient_is_the_derivative(distance):
    torch.manual_seed(0)
    query = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    ref = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(distance, (query, ref))


@pytest.mark.parametrize("distance", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicates_and_zero_vectors_give_finite_values_and_gradients(distance, dtype):
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [-1.0, -2.0]], dtype=dtype, requires_grad=True)
    matrix = distance(x)
    matrix.sum().backward()
    assert matrix.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("distance", [Euclidean(), SquaredEuclidean()], ids=repr)
def test_an_embedding_is_at_distance_zero_of_itself(distance):
    torch.manual_seed(0)
    matrix = distance(torch.randn(64, 128))
    assert (matrix.diagonal() == 0).all()
    assert (matrix >= 0).all()


@pytest.mark.parametrize(("ours", "theirs"), [("Euclidean", "LpDistance"), ("Cosine", "CosineSimilarity")])
def test_the_calls_of_pytorch_metric_learning_are_answered_alike(ours, theirs):
    from pytorch_metric_learning import distances as pml

    ours, theirs = {"Euclidean": Euclidean, "Cosine": Cosine}[ours](), getattr(pml, theirs)()
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(x, y), theirs(x, y))
    # Theirs adds 1e-6 to every difference, as torch's pairwise_distance does.
    torch.testing.assert_close(ours.pairwise_distance(x, y), theirs.pairwise_distance(x, y), rtol=1e-5, atol=1e-5)
    matrix = theirs(x, y)
    assert ours.is_inverted == theirs.is_inverted
    torch.testing.assert_close(ours.margin(x, y), theirs.margin(x, y))
    torch.testing.assert_close(ours.smallest_dist(matrix, dim=1).values, theirs.smallest_dist(matrix, dim=1).values)
    torch.testing.assert_close(ours.largest_dist(matrix, dim=1).values, theirs.largest_dist(matrix, dim=1).values)
    torch.testing.assert_close(ours.get_norm(x), theirs.get_norm(x))
    torch.testing.assert_close(ours.maybe_normalize(x), theirs.maybe_normalize(x))


@pytest.mark.parametrize(("query", "ref"), [((3,), (3,)), ((2, 3, 4), (2, 4)), ((2, 3), (2, 4))])
def test_shapes_that_do_not_fit_are_refused(query, ref):
    with pytest.raises(InputError, match="takes two sets of embeddings"):
        Euclidean()(torch.randn(query), torch.randn(ref))


def test_distances_are_the_same_when_they_give_the_same_matrix():
    assert Euclidean().same_as(Euclidean())
    assert not Euclidean().same_as(Euclidean(normalize=False))
    assert not Euclidean().same_as(SquaredEuclidean())
    assert not Cosine().same_as(Dot())


@pytest.mark.parametrize("distance", [Euclidean(), SquaredEuclidean()], ids=repr)
@pytest.mark.parametrize("apart", [1e-2, 1e-3, 1e-4])
def test_near_points_are_measured_as_exactly_as_far_ones(distance, apart):
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(64, 128, generator=generator, dtype=torch.float64))
    y = (
        x + apart * torch.nn.functional.normalize(torch.randn(64, 128, generator=generator, dtype=torch.float64))
    ).float()
    exact = distance(x.float().double(), y.double()).diagonal()
    torch.testing.assert_close(distance(x.float(), y).diagonal().double(), exact, rtol=2e-3, atol=0)


@pytest.mark.parametrize("to_itself", [True, False])
@pytest.mark.parametrize("apart", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_the_gradient_of_near_points_is_as_exact_as_that_of_far_ones(apart, to_itself):
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(32, 128, generator=generator))
    y = x + apart * torch.nn.functional.normalize(torch.randn(32, 128, generator=generator))
    weights = torch.rand(64, 64, generator=generator)

    def gradient(matrix, dtype, only_near):
        points = torch.cat((x, y)).to(dtype).requires_grad_()
        others = points if to_itself else points.detach().clone().requires_grad_()
        found = matrix(points, others)
        of = found[:32, 32:].diagonal().sum() if only_near else (found * weights.to(dtype)).sum()
        leaves = (points,) if to_itself else (points, others)
        return torch.cat(torch.autograd.grad(of, leaves)).double()

    def plainly(points, others):
        square = (points[:, None] - others).square().sum(-1)
        return square.masked_fill(square == 0, 1).sqrt().masked_fill(square == 0, 0)

    for only_near in (True, False):
        exact = gradient(plainly, torch.float64, only_near)
        error = gradient(Euclidean(normalize=False), torch.float32, only_near) - exact
        assert error.norm() < 1e-4 * exact.norm()


@pytest.mark.parametrize("to_itself", [True, False])
def test_derivatives_of_near_points_are_right(to_itself):
    x = torch.tensor([[1.0, 0.0, 0.5], [1.0, 1e-3, 0.5], [0.0, 1.0, 0.0], [0.0, 1.0, 2e-3]], dtype=torch.float64)
    distance = Euclidean(normalize=False)
    of = (lambda points: distance(points)) if to_itself else (lambda points: distance(points, x + 1e-3))
    # Steps much smaller than the distances, whose curvature is their inverse.
    arguments = {"eps": 1e-8, "atol": 1e-4, "rtol": 1e-4}
    assert torch.autograd.gradcheck(of, (x.clone().requires_grad_(),), **arguments)
    assert torch.autograd.gradgradcheck(of, (x.clone().requires_grad_(),), eps=1e-8, atol=1e-2, rtol=1e-4)


def test_exact_duplicates_are_at_distance_zero():
    x = torch.randn(64, 128)
    assert (Euclidean()(x, x.clone()).diagonal() == 0).all()


def test_points_far_from_the_origin_are_measured_as_exactly_as_near_it():
    x = torch.randn(64, 32, dtype=torch.float64)
    distance = Euclidean(normalize=False)
    # The shifted points themselves are rounded to 6e-5 in float32.
    torch.testing.assert_close(distance((x + 1000).float()).double(), distance(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("distance", [Euclidean(), SquaredEuclidean(), Euclidean(normalize=False)], ids=repr)
def test_the_second_derivative_is_right(distance):
    torch.manual_seed(0)
    query = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    ref = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(distance, (query, ref))


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e19, 1e30])
def test_lengths_neither_overflow_nor_underflow_on_the_way(scale):
    x = torch.randn(4, 3)
    expected = torch.nn.functional.normalize(x) if scale > 1e-12 else torch.zeros(4, 3)
    torch.testing.assert_close(Euclidean().normalize(x * scale), expected)


def test_a_distance_that_may_have_learned_is_the_same_as_itself_only():
    class Learned(Euclidean):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.randn(3))

    learned = Learned()
    assert learned.same_as(learned)
    assert not learned.same_as(Learned())


def test_an_empty_batch_has_an_empty_matrix():
    x = torch.empty(0, 3, requires_grad=True)
    for distance in ALL:
        assert distance(x).shape == (0, 0)
