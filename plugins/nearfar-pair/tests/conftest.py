"""Definitions of the losses and miners in plain Python floats, and batches to try them on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch

from nearfar.nn.compiled import eager_only
from nearfar.nn.distances import Cosine, Distance, Dot, Euclidean, SquaredEuclidean

Rows = list[list[float]]


def unit(x: list[float]) -> list[float]:
    length = math.sqrt(math.fsum(v * v for v in x))
    return [v / max(length, 1e-12) for v in x]


def dot(x: list[float], y: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def squared(x: list[float], y: list[float]) -> float:
    return math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))


#: name → (nearfar's distance, its definition with a similarity negated).
DISTANCES: dict[str, tuple[Callable[[], Distance], Callable[[list[float], list[float]], float]]] = {
    "euclidean": (Euclidean, lambda x, y: math.sqrt(squared(unit(x), unit(y)))),
    "squared": (SquaredEuclidean, lambda x, y: squared(unit(x), unit(y))),
    "cosine": (Cosine, lambda x, y: -dot(unit(x), unit(y))),
    "dot": (Dot, lambda x, y: -dot(x, y)),
    "euclidean_raw": (lambda: Euclidean(normalize=False), lambda x, y: math.sqrt(squared(x, y))),
    "squared_raw": (lambda: SquaredEuclidean(normalize=False), squared),
}
#: Distances of integer points that torch and Python compute to the same bit, so that ties are ties in both.
EXACT = ("dot", "euclidean_raw", "squared_raw")


def matrix(name: str, x: torch.Tensor, reference: torch.Tensor | None = None) -> Rows:
    d = DISTANCES[name][1]
    others = x if reference is None else reference
    return [[d(a, b) for b in others.detach().double().tolist()] for a in x.detach().double().tolist()]


def pairs(labels: list[int], reference: list[int] | None = None) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Positive and negative pairs by their definition."""
    others = labels if reference is None else reference
    every = [(i, j) for i in range(len(labels)) for j in range(len(others))]
    positive = [(i, j) for i, j in every if labels[i] == others[j] and (reference is not None or i != j)]
    return positive, [(i, j) for i, j in every if labels[i] != others[j]]


def triplets(
    d: Rows, labels: list[int], reference: list[int] | None = None, lower: float = -math.inf, upper: float = math.inf
) -> Iterator[tuple[int, int, int]]:
    """Triplets with ``lower < d_an − d_ap <= upper``, by anchor, positive, negative."""
    positive, negative = pairs(labels, reference)
    for a, p in positive:
        for b, n in negative:
            if a == b and lower < d[a][n] - d[a][p] <= upper:
                yield a, p, n


def grid(n: int, dim: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Points with coordinates −2 … 2: many of their distances are equal."""
    return torch.randint(-2, 3, (n, dim), generator=torch.Generator().manual_seed(seed)).to(dtype)


def clustered(labels: list[int], dim: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Points nearer to their class than to others, so that every kind of triplet occurs."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(labels, default=0) + 1, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    return (centres[torch.tensor(labels, dtype=torch.int64)] + noise).to(dtype)


@pytest.fixture(scope="session")
def brute() -> SimpleNamespace:
    return SimpleNamespace(
        distances=DISTANCES,
        exact=EXACT,
        matrix=matrix,
        pairs=pairs,
        triplets=triplets,
        grid=grid,
        clustered=clustered,
    )


@pytest.fixture(autouse=True)
def tier(request: pytest.FixtureRequest) -> Iterator[None]:
    """Losses are held to their definitions on torch; the tests of the compiled tier hold that to torch."""
    if request.node.path.stem == "test_pair_compiled":
        yield
        return
    with eager_only():
        yield
