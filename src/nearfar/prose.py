"""The prose of a docstring: paragraphs, formulas, lists and code, and the sections they stand in.

What a numpy docstring says beside its parameters is written in reStructuredText. Of that only the block structure is
read here, by rules that take any text: what is not a paragraph, a list or a formula is kept as it stands.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import griffe

__all__ = ["Block", "Prose", "Section", "blocks", "pieces", "plain", "read"]


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of prose.

    ``lines`` holds one line for a ``paragraph``, whatever its length; a line for each item of a ``list``, its bullet or
    number included; and the lines of a formula (``math``, TeX) or of what is kept as it stands (``verbatim``).
    """

    kind: Literal["paragraph", "list", "math", "verbatim"]
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a docstring: ``Notes``, ``References`` …, as it is written and as blocks."""

    title: str
    text: str

    @property
    def blocks(self) -> tuple[Block, ...]:
        return blocks(self.text)


@dataclass(frozen=True, slots=True)
class Prose:
    """What a docstring says beside its parameters.

    Attributes
    ----------
    opening
        All that stands before the first section, as it is written.
    raises
        What it raises, and when.
    sections
        The others, in the order in which they are written.
    """

    opening: str = ""
    raises: tuple[tuple[str, str], ...] = ()
    sections: tuple[Section, ...] = ()

    def after(self, summary: str) -> tuple[Block, ...]:
        """The blocks of the opening, without a first paragraph that only repeats ``summary``."""
        found = blocks(self.opening)
        return found[1:] if found and _same(found[0].text, summary) else found


def _same(one: str, other: str) -> bool:
    return _joined(one).rstrip(".") == _joined(other).rstrip(".")


# ---- sections


def read(docstring: str) -> Prose:
    """Read a numpy docstring."""
    text = inspect.cleandoc(docstring)
    if not re.search(r"^-{3,}[ \t]*$", text, re.MULTILINE):  # no section, so griffe need not be loaded
        return Prose(text)
    import griffe

    opening: list[str] = []
    raises: list[tuple[str, str]] = []
    sections: list[Section] = []
    for section in griffe.parse_numpy(griffe.Docstring(text), warnings=False):
        kind = section.kind.value
        if kind == "text":
            opening.append(section.value)
        elif kind == "raises":
            raises += [(str(r.annotation), " ".join(r.description.split())) for r in section.value]
        elif kind not in ("parameters", "other parameters"):
            sections.append(_section(section, kind))
    return Prose("\n\n".join(opening), tuple(raises), tuple(sections))


def _section(section: griffe.DocstringSection, kind: str) -> Section:
    title = section.title or kind.capitalize()
    if kind == "admonition":
        return Section(title, section.value.description)
    if kind == "examples":
        return Section(title, "\n\n".join(text for _, text in section.value))
    if isinstance(section.value, list):  # attributes, returns, warnings: a name or a type, and what is said of it
        items = [
            f"- ``{getattr(item, 'name', '') or item.annotation}``: {' '.join(item.description.split())}"
            for item in section.value
        ]
        return Section(title, "\n".join(items))
    return Section(title, str(section.value.description))


# ---- blocks

_BULLET = re.compile(r"(?:[-*•]|\d+[.)]) +(?=\S)")
_DIRECTIVE = re.compile(r"\.\. ([\w-]+)::[ \t]*(.*)")
_OPTION = re.compile(r":[\w-]+:.*")
# What reflowing would spoil: the lines of a table, and the headings of Google's style, below which every line counts.
_AS_IT_STANDS = re.compile(r"[-=+|~^ ]*[-=]{2}[-=+|~^ ]*|(?:Args|Arguments|Returns|Raises|Attributes|Shape|Examples?):")


def blocks(text: str) -> tuple[Block, ...]:
    """The blocks of a text, in order."""
    chunks = deque(chunk for chunk in re.split(r"\n(?:[ \t]*\n)+", textwrap.dedent(text).strip("\n")) if chunk.strip())
    found: list[Block] = []
    while chunks:
        chunk = chunks.popleft()
        last = found[-1] if found and found[-1].kind == "list" else None
        if last and _BULLET.match(chunk):
            found[-1] = Block("list", (*last.lines, *_items(chunk)))
        elif last and chunk[0].isspace():
            found[-1] = Block("list", (*last.lines[:-1], f"{last.lines[-1]} {_joined(chunk)}"))
        else:
            found += _blocks(chunk, chunks)
    return tuple(found)


def _blocks(chunk: str, following: deque[str]) -> Iterator[Block]:
    """What stands between two empty lines as blocks; a body that goes on below is taken from what follows."""
    first, _, rest = chunk.partition("\n")
    if match := _DIRECTIVE.fullmatch(first):
        yield from _directive(match.group(1), match.group(2).strip(), _body(rest, following))
    elif _BULLET.match(chunk):
        yield Block("list", tuple(_items(chunk)))
    elif chunk.startswith(">>>") or any(
        line[0].isspace() or _AS_IT_STANDS.fullmatch(line) for line in chunk.splitlines()
    ):
        yield Block("verbatim", tuple(textwrap.dedent(chunk).splitlines()))
    elif chunk.endswith("::"):
        if said := _joined(chunk.removesuffix("::")):
            yield Block("paragraph", (f"{said}:",))
        if body := _body("", following):
            yield Block("verbatim", tuple(body.splitlines()))
    else:
        yield Block("paragraph", (_joined(chunk),))


def _body(text: str, following: deque[str]) -> str:
    """The indented text that belongs to a directive or to a line that ends in two colons."""
    pieces = [text] if text.strip() else []
    while following and following[0][0].isspace():
        pieces.append(following.popleft())
    return textwrap.dedent("\n\n".join(pieces))


def _directive(name: str, argument: str, body: str) -> Iterator[Block]:
    lines = body.splitlines()
    while lines and _OPTION.fullmatch(lines[0]):
        lines.pop(0)
    if name == "math":
        for formula in re.split(r"\n\s*\n", "\n".join([argument, *lines]).strip()):
            if formula:
                yield Block("math", tuple(formula.splitlines()))
    elif name in ("code", "code-block", "doctest"):
        yield Block("verbatim", tuple("\n".join(lines).strip("\n").splitlines()))
    else:  # a note, a warning, a version: its name says what it is
        yield Block("paragraph", (f"{name.capitalize()}: {_joined(' '.join([argument, *lines]))}",))


def _items(chunk: str) -> Iterator[str]:
    item = ""
    for line in map(str.strip, chunk.splitlines()):
        if _BULLET.match(line) and item:
            yield item
            item = line
        else:
            item = f"{item} {line}".strip()
    yield item


# ---- what stands within a line

_INLINE = re.compile(
    r":(?P<role>[\w:+.-]+):`(?P<content>[^`]+)`"
    r"|``(?P<code>.+?)``(?!`)"
    r"|`(?P<label>[^`<]*[^`<\s])\s*<(?P<target>[^`>\s]+)>`__?"
    r"|`(?P<bare>[^`]+)`"
    r"|(?P<url>https?://[^\s<>`]*[^\s<>`.,;:!?'\")\]])"
    r"|(?P<emphasis>(?<![\w*])(?P<stars>\*{1,2})(?=[^\s*])[^*]*[^\s*](?P=stars)(?![\w*]))"
)


def pieces(text: str) -> Iterator[tuple[Literal["text", "code", "math", "url", "link", "emphasis"], str]]:
    """A line of reStructuredText in pieces; a ``link`` is its label and its address with a newline between."""
    end = 0
    for match in _INLINE.finditer(text):
        if before := text[end : match.start()]:
            yield "text", before
        end = match.end()
        if match["role"]:
            yield ("math", match["content"]) if match["role"] == "math" else ("code", _named(match["content"]))
        elif match["target"]:
            yield "link", f"{match['label']}\n{match['target']}"
        elif match["url"]:
            yield "url", match["url"]
        elif match["emphasis"]:
            yield "emphasis", match["emphasis"]
        else:
            yield "code", match["code"] or match["bare"]
    if rest := text[end:]:
        yield "text", rest


def _named(content: str) -> str:
    """What a role shows: its own title, or with a tilde the last piece of a dotted name."""
    title, _, target = content.partition("<")
    if target and title.strip():
        return title.strip()
    return content.rpartition(".")[2] if content.startswith("~") else content


def plain(text: str) -> str:
    """A line of reStructuredText as a terminal shows it: code in backticks, formulas as TeX."""
    shown = {"code": "`{}`", "link": "{} ({})"}
    return "".join(shown.get(kind, "{}").format(*piece.split("\n")) for kind, piece in pieces(text))


def _joined(text: str) -> str:
    return " ".join(text.split())
