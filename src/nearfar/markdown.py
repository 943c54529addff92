"""Markdown (MyST): prose of specs and docstrings escaped, tables, lists, code and formulas.

Only what MyST reads without an extension is written, so that a third party's documentation needs no setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nearfar.prose import Block, pieces

__all__ = ["admonition", "bullets", "fence", "inline", "prose", "table", "toctree"]

# An underscore inside a word is none of Markdown's business.
_SPECIAL = re.compile(r"([\\`*\[\]<>{}$~]|(?<!\w)_|_(?!\w))")
# What would open a list, a heading or a quotation at the start of a line.
_OPENING = re.compile(r"^(?:(\d+)([.)])(?=\s|$)|([-+#>=%]))")


def inline(text: str) -> str:
    """A paragraph of a spec or docstring as Markdown: code stays code, formulas formulas, nothing else is markup."""
    return _OPENING.sub(_opened, "".join(_piece(kind, piece) for kind, piece in pieces(" ".join(text.split()))))


def _opened(match: re.Match[str]) -> str:
    number, point, mark = match.groups()
    return f"{number}\\{point}" if number else f"\\{mark}"


def _piece(kind: str, text: str) -> str:
    if kind == "code":
        return f"``{text}``"
    if kind == "math":
        return f"{{math}}`{text}`"
    if kind == "url":
        return f"<{text}>"
    if kind == "emphasis":
        stars = "**" if text.startswith("**") else "*"
        return f"{stars}{_SPECIAL.sub(_ESCAPED, text.strip('*'))}{stars}"
    if kind == "link":
        label, address = text.split("\n")
        return f"[{_SPECIAL.sub(_ESCAPED, label)}](<{address}>)"
    return _SPECIAL.sub(_ESCAPED, text)


_ESCAPED = r"\\\1"


def prose(blocks: Iterable[Block]) -> str:
    """Blocks of a docstring as Markdown."""
    return "\n\n".join(_block(block) for block in blocks)


def _block(block: Block) -> str:
    if block.kind == "math":
        return fence("{math}", block.text)
    if block.kind == "verbatim":
        return fence("pycon" if block.text.startswith(">>>") else "text", block.text)
    if block.kind == "list":
        return "\n".join(_item(item) for item in block.lines)
    return inline(block.text)


def _item(item: str) -> str:
    mark, _, text = item.partition(" ")
    return f"{mark if mark[0].isdigit() else '-'} {inline(text)}"


def fence(language: str, text: str) -> str:
    """A block between fences, longer ones where the text has some itself."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    return f"{'`' * (longest + 1)}{language}\n{text}\n{'`' * (longest + 1)}"


def admonition(name: str, text: str) -> str:
    """A paragraph set apart: a ``warning`` or a ``note``."""
    return fence(f"{{{name}}}", text)


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def toctree(names: Iterable[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a column in which no row says anything is left out."""
    if not rows:
        return ""
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    lines = [[head[column] for column in kept], ["---"] * len(kept)]
    lines += [[row[column].replace("|", "\\|") for column in kept] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
