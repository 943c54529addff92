"""Places among sorted numbers are those that bisection finds."""

from __future__ import annotations

import pytest
import torch

from nearfar_pair import places
from nearfar_pair.places import Places

AMONG = {
    "one": [1.0],
    "far apart": [-3.0, 0.0, 1e-30, 1.0, 1e10],
    "crowded": [float(i) for i in range(-300, 300)] + [1e7],
    "tiny": [1e-38, 2e-38, 3e-38],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*AMONG, "normal"])
def test_places_are_those_of_bisection(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    among = torch.tensor(AMONG[name]) if name in AMONG else torch.randn(3000, generator=generator)
    among = among.to(dtype).unique()
    ends = torch.tensor([torch.inf, -torch.inf, torch.nan, 1e18, -1e18], dtype=dtype)
    near = torch.cat([among, torch.nextafter(among, ends[:1]), torch.nextafter(among, ends[1:2]), ends])
    x = torch.cat([near, 3 * torch.randn(999, generator=generator).to(dtype)]).view(1, -1)
    assert torch.equal(Places(among).of(x), torch.searchsorted(among, x, right=True))


def test_numbers_in_one_cell_are_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CROWDED", 2000)  # else they would be left to bisection
    test_places_are_those_of_bisection("crowded", torch.float64)
