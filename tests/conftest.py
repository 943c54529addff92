"""What the tests of the core share."""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

# Read when torch is loaded: threads that spin while they wait make each other slow where tests run side by side.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_serial = itertools.count()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Lay an installed distribution with one plugin on the path; returns the name of its module.

    ``install("acme-losses", "acme", source)`` is what ``pip install acme-losses`` leaves behind, without pip.
    """
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def lay(
        distribution: str,
        namespace: str,
        source: str = "",
        *,
        version: str = "1.0",
        requires: str | None = None,
        module: str | None = None,
    ) -> str:
        module = module or f"plugin_{next(_serial)}"
        (site / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        requirement = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{requirement}", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(f"[nearfar]\n{namespace} = {module}\n", encoding="utf-8")
        return module

    return lay
