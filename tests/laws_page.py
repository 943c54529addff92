"""The tables of docs/laws.md, from the laws themselves. Run as a program, it writes them into the page."""

from __future__ import annotations

import importlib
from pathlib import Path

from nearfar.markdown import inline, table
from nearfar.testing import LAWS

PAGE = Path(__file__).parents[1] / "docs" / "laws.md"
BEGIN, END = "<!-- the laws -->\n", "<!-- the end of the laws -->\n"


def tables() -> str:
    """A heading, a sentence and a table for each group, in the order in which the laws are written."""
    blocks = []
    for group in dict.fromkeys(law.group for law in LAWS.values()):
        about = (importlib.import_module(f"nearfar.testing.laws.{group}").__doc__ or "").partition("\n\n")[0]
        rows = [
            (f"`{law.name}`", ", ".join(law.kinds), inline(law.says)) for law in LAWS.values() if law.group == group
        ]
        blocks += [f"### {group.capitalize()}", inline(about), table(("Law", "Of", "What it says"), rows)]
    return "\n" + "\n\n".join(blocks) + "\n\n"


def renewed(page: str) -> str:
    """The page with what stands between the two marks made anew."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tables() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
