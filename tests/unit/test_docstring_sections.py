"""Sections of docstrings stand on lines of their own: run into a paragraph, one is lost without a word."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN_IN = re.compile(r"^ *(Notes|Parameters|Returns|Raises|References|Attributes|Examples) -{3,} ", re.MULTILINE)


def test_no_heading_is_run_into_its_section():
    sources = [*ROOT.glob("src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]
    assert sources
    assert [str(path.relative_to(ROOT)) for path in sources if RUN_IN.search(path.read_text(encoding="utf-8"))] == []
