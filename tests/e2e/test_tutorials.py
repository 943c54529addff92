"""The tutorials in which a plugin is written, step by step, as their reader would take them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pages import BLOCKS, ROOT, SECOND_WALK, WALK, Block, Command, agrees, commands

EXAMPLE = ROOT / "examples" / "acme-losses"
#: Commands that reach beyond this machine.
NOT_RUN = frozenset({"twine"})
#: What commands of the tutorials leave behind in the folder.
LEFT_BEHIND = frozenset({"dist", "docs", "__pycache__", ".hypothesis", ".pytest_cache", ".ruff_cache"})


@dataclass
class Reader:
    """Somebody who does what the pages say: a working folder, and what they have installed."""

    folder: Path
    site: Path
    source: list[Path] = field(default_factory=list)

    def follow(self, block: Block) -> None:
        if block.file and block.language == "diff":
            self._change(block)
        elif block.file:
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.excerpt:
            assert block.text in (self.folder / block.excerpt).read_text(encoding="utf-8"), f"{block} shows another"
        elif block.language == "console":
            for command in commands(block):
                self._run(command)
        else:
            assert block.language == "text", f"{block}: nothing says what is to be done with it"
            missing = [
                line.split()[0] for line in block.text.splitlines() if not (self.folder / line.split()[0]).exists()
            ]
            assert missing == [], f"{block} lists files that are not there"

    def _change(self, block: Block) -> None:
        """Replace the lines of a diff."""
        lines = block.text.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] != other) for other in "+-")
        path = self.folder / block.file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{block}: {block.file} does not have these lines once"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def _run(self, command: Command) -> None:
        words = command.words
        if words[0] == "cd":
            self.folder /= words[1]
        elif words[0] not in NOT_RUN:
            if "install" in words:
                return self._install(words[-1])
            words = words[1:] if words[0] == "python" else ("-m", *words)
            # What builds is installed here; an environment of its own would be fetched.
            status, printed = self.python((*words, "--no-isolation") if words == ("-m", "build") else words)
            assert status == command.block.exits, f"{command}\n" + "\n".join(printed)
            assert agrees(command.shown, printed), f"{command}\n" + "\n".join(printed)
        return None

    def python(self, words: tuple[str, ...]) -> tuple[int, list[str]]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NEARFAR_")}
        path = [*map(str, [*self.source, self.site]), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            cwd=self.folder,
            env=environment | {"PYTHONPATH": os.pathsep.join(path), "PYTHONIOENCODING": "utf-8"},
        )
        return done.returncode, [line.rstrip() for line in done.stdout.splitlines()]

    def _install(self, what: str) -> None:
        """What pip leaves behind, without the network: an editable install is metadata and a way to the source."""
        for installed in self.site.iterdir():
            shutil.rmtree(installed)
        wheel, self.source = self.folder / what, []
        if not wheel.is_file():
            out = self.site / "wheels"
            status, printed = self.python(("-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), "."))
            assert status == 0, "\n".join(printed)
            (wheel,) = out.glob("*.whl")
            self.source = [self.folder / "src"]
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(self.site, [n for n in archive.namelist() if not self.source or ".dist-info/" in n])


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Somebody who has done all that the pages say."""
    return having_read(WALK, tmp_path_factory)


def having_read(pages: tuple[str, ...], folders: pytest.TempPathFactory) -> Reader:
    reader = Reader(folders.mktemp("tutorials"), folders.mktemp("site"))
    for page in pages:
        for block in BLOCKS:
            if block.page == page:
                reader.follow(block)
    return reader


def test_what_the_tutorials_make_is_the_example(reader):
    files = [path.relative_to(EXAMPLE) for path in _kept(EXAMPLE)]
    assert files
    assert sorted(files) == sorted(path.relative_to(reader.folder) for path in _kept(reader.folder))
    differ = [str(file) for file in files if (EXAMPLE / file).read_bytes() != (reader.folder / file).read_bytes()]
    assert [file for file in differ if file != "LICENSE"] == []  # which has the year


def _kept(folder: Path) -> list[Path]:
    """The files of a plugin, without what commands leave behind."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in paths if not LEFT_BEHIND & set(path.relative_to(folder).parts)]


def test_the_tutorial_on_other_losses_is_followed_to_its_end(tmp_path_factory):
    reader = having_read(SECOND_WALK, tmp_path_factory)
    assert (reader.folder / "train.py").is_file()
    for command in ("check", "format --check"):
        status, printed = reader.python(("-m", "ruff", *command.split(), "--no-cache", "src", "tests"))
        assert status == 0, "\n".join(printed)


def test_the_python_in_the_readme_of_the_example_runs(reader):
    readme = (EXAMPLE / "README.md").relative_to(ROOT)
    code = [block.text for block in BLOCKS if block.page == str(readme) and block.language == "python"]
    assert code
    for text in code:
        status, printed = reader.python(("-c", text))
        assert status == 0, "\n".join(printed)
