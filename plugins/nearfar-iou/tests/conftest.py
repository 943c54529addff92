"""Box losses are held to their formulas on torch; test_iou_compiled.py holds the compiled ones to these."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nearfar_iou.compiled.tier import eager_only


@pytest.fixture(autouse=True)
def tier(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.path.stem == "test_iou_compiled":
        yield
        return
    with eager_only():
        yield
