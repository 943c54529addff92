"""Products of matrices by either library, and memory for large gradients."""

from __future__ import annotations

import pytest
import torch

from nearfar.nn import products
from nearfar.nn.products import add_product, minus_product, product, write_product

#: Large enough for oneDNN, and with no side a multiple of a vector's width.
N, K, M = 211, 133, 307


@pytest.fixture
def chosen(monkeypatch, request):
    """Lets oneDNN be taken on any processor, where torch has it, or on none."""
    has_it = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if request.param and not has_it:
        pytest.skip("this torch has no oneDNN")
    calls = []
    rows_times = products._rows_times
    monkeypatch.setattr(products, "_available", lambda: request.param)
    monkeypatch.setattr(products, "_rows_times", lambda a, b: calls.append(a.shape) or rows_times(a, b))
    yield calls
    assert bool(calls) == request.param


def drawn(rows, columns, layout):
    g = torch.Generator().manual_seed(rows + columns)
    matrix = torch.randn(rows, columns, generator=g)
    if layout == "columns":
        return matrix.T.contiguous().T
    return torch.cat([matrix, matrix], 1)[:, :columns] if layout == "strided" else matrix


LAYOUTS = ["rows", "columns", "strided"]


@pytest.mark.parametrize("chosen", [True, False], indirect=True, ids=["onednn", "mkl"])
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("swapped", [False, True])
def test_it_is_the_product_in_float64_however_matrices_lie(chosen, first, second, swapped):
    a, b = drawn(N, K, first), drawn(K, M, second)
    if swapped:  # more rows than columns
        a, b = drawn(M, K, first), drawn(K, N, second)
    expected = a.double() @ b.double()
    # Sums of K products of normal numbers, each rounded to 2^-24 of what the sum may have been on the way.
    torch.testing.assert_close(product(a, b).double(), expected, rtol=0, atol=K * 2**-22)
    total = torch.ones(len(a), b.shape[1])
    add_product(total, a, b)
    torch.testing.assert_close(total.double(), expected + 1, rtol=0, atol=K * 2**-22)


@pytest.mark.parametrize("chosen", [True, False], indirect=True, ids=["onednn", "mkl"])
def test_it_is_written_as_many_times_as_asked_for_and_beside_what_is_added_to_each_row(chosen):
    a, b, plus = drawn(N, K, "rows"), drawn(K, M, "columns"), drawn(1, M, "rows")[0]
    expected = a.double() @ b.double()
    out = torch.full((N, M), torch.nan)  # of what was there nothing is left
    for alpha, added in ((1.0, None), (-1.0, None), (-2.0, plus)):
        assert write_product(out, a, b, alpha=alpha, plus=added) is out
        exact = alpha * expected + (0 if added is None else added.double())
        torch.testing.assert_close(out.double(), exact, rtol=0, atol=K * 2**-21)


@pytest.mark.parametrize("chosen", [True, False], indirect=True, ids=["onednn", "mkl"])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_it_is_taken_from_what_is_given_or_from_nothing(chosen, factor):
    a, b, plus = drawn(N, K, "rows"), drawn(K, M, "columns"), drawn(N, M, "rows")
    for given in (plus, None):
        expected = factor * ((0 if given is None else given.double()) - a.double() @ b.double())
        found = minus_product(given, a, b, factor=factor)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=K * 2**-21)
    assert torch.equal(plus, drawn(N, M, "rows"))  # nothing is written to what was given


@pytest.mark.parametrize("chosen", [True, False], indirect=True, ids=["onednn", "mkl"])
def test_equal_points_have_equal_products_wherever_they_stand(chosen):
    points = drawn(M, K, "rows")
    points[[7, 150, M - 1]] = points[3].clone()
    found = product(points, points.T)
    for i in (7, 150, M - 1):
        assert torch.equal(found[:, i], found[:, 3])
        assert torch.equal(found[i], found[3])


@pytest.mark.parametrize("chosen", [True], indirect=True, ids=["onednn"])
def test_twice_it_is_the_same_to_the_bit(chosen):
    a, b = drawn(N, K, "rows"), drawn(K, M, "columns")
    assert torch.equal(product(a, b), product(a.clone(), b.clone()))


@pytest.mark.parametrize("chosen", [True], indirect=True, ids=["onednn"])
def test_what_is_not_finite_stays_so(chosen):
    a, b = drawn(N, K, "rows"), drawn(K, M, "rows")
    a[0, 0], a[1, 0] = torch.inf, torch.nan
    found = product(a, b)
    assert not found[:2].isfinite().any()
    assert found[2:].isfinite().all()


def refused(a, b):
    with torch.no_grad():
        assert not products._suits(a, b)


def test_small_narrow_wide_and_differentiated_matrices_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(products, "_available", lambda: True)
    a, b = drawn(N, K, "rows"), drawn(K, M, "rows")
    assert products._suits(a, b)
    refused(a[:40], b[:, :40])
    refused(a[:, :4].repeat(200, 1), b[:4].repeat(1, 40))
    refused(a.double(), b.double())
    refused(a.bfloat16(), b.bfloat16())
    refused(a.to("meta"), b.to("meta"))
    refused(a[:0], b)
    a.requires_grad_()
    assert not products._suits(a, b)
    (slope,) = torch.autograd.grad(product(a, b).sum(), a)
    torch.testing.assert_close(slope, b.sum(1).expand_as(a))


@pytest.mark.parametrize(("name", "expected"), [("Intel Xeon", False), ("AMD EPYC", True), ("", True)])
def test_processors_of_intel_are_left_to_mkl(monkeypatch, name, expected):
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name}, raising=False)
    assert products._available.__wrapped__() == expected


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_who_has_turned_onednn_off_has_it_off(monkeypatch):
    monkeypatch.setattr(products, "_available", lambda: True)
    with torch.backends.mkldnn.flags(enabled=False):
        refused(drawn(N, K, "rows"), drawn(K, M, "rows"))
