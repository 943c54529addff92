"""The blocks of code on the pages of the documentation, and what becomes of each when it is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
#: Tutorials in which a plugin is written: their blocks are run one after the other, in one folder.
WALK = ("docs/tutorials/plugin.md", "docs/tutorials/test.md", "docs/tutorials/publish.md")
#: Another plugin's, in a folder of its own.
SECOND_WALK = ("docs/tutorials/losses.md",)


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes
    ----------
    language
        ``""`` where it is only indented.
    exits
        What its commands are said to exit with.
    file
        The file that it is to be written to, its caption.
    excerpt
        The file that it is said to be part of.
    """

    page: str
    line: int
    language: str
    text: str
    exits: int = 0
    file: str = ""
    excerpt: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    found, said = [], {}
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            if match := re.search(r"exits with (\d+)", token.content):
                said["exits"] = int(match.group(1))
            if match := re.search(r"from (\S+)", token.content):
                said["excerpt"] = match.group(1)
        elif token.type in ("fence", "code_block"):
            assert token.map is not None
            language, text = token.info.strip(), token.content
            if directive := re.fullmatch(r"\{code-block\} (\w+)", language):
                option, text = re.fullmatch(r":caption: (\S+)\n\n(.*)", text, flags=re.DOTALL).groups()
                language, said["file"] = directive.group(1), option
            found.append(Block(str(page.relative_to(ROOT)), token.map[0] + 1, language, text, **said))
            said = {}
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]


@dataclass(frozen=True)
class Command:
    """A line after a prompt, and what is shown below it."""

    block: Block
    words: tuple[str, ...]
    shown: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block}: {shlex.join(self.words)}"

    @property
    def trains(self) -> bool:
        """Whether it trains, looks at what is to be trained on, or uses what was trained."""
        trained = ("init", "train", "evaluate", "report", "embed", "search", "calibrate", "verify", "export")
        compares = self.words[1:3] == ("bench", "losses") and "--plan" not in self.words
        return compares or (len(self.words) > 1 and self.words[1] in trained)


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block."""
    for piece in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, *shown = piece.rstrip("\n").split("\n")
        yield Command(block, tuple(shlex.split(line, comments=True)), tuple(text.rstrip() for text in shown))


def run(words: tuple[str, ...], folder: Path, python: Path | str = sys.executable) -> tuple[int, list[str]]:
    """Run a Python module with arguments; its exit status and what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEARFAR_")}
    done = subprocess.run(
        [python, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        cwd=folder,
        env=environment | {"COLUMNS": "100", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
    )
    return done.returncode, [line.rstrip() for line in done.stdout.splitlines()]


def agrees(shown: tuple[str, ...], printed: list[str]) -> bool:
    """Whether the lines shown are those printed.

    A line of dots stands for any number of them, and ``…`` within a line for what differs from run to run.
    """
    if not shown:
        return True
    pattern = "".join(
        ".*" if line in ("…", "...") else "[^\n]*".join(map(re.escape, line.split("…"))) + "\n" for line in shown
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed), flags=re.DOTALL) is not None
