"""Box losses are held to their formulas on torch; the tests of the compiled ones and of kernels on a GPU hold these to
torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nearfar.nn.compiled import eager_only


@pytest.fixture(autouse=True)
def tier(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.path.stem in ("test_iou_compiled", "test_iou_fused"):
        yield
        return
    with eager_only():
        yield
