"""The files of a plugin, from the templates beside this module."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jinja2

from nearfar.scaffold.draft import Draft, Part

__all__ = ["render"]

_TEMPLATES = Path(__file__).parent / "templates"


def render(draft: Draft) -> dict[str, str]:
    """Every file of a plugin: path from its folder, with ``/``, → text. The same draft gives the same files."""
    source = f"src/{draft.package}"
    files = {
        ".github/workflows/test.yml": "test.yml",
        ".gitignore": "gitignore",
        "CHANGELOG.md": "CHANGELOG.md",
        "LICENSE": f"licences/{draft.licence}",
        "README.md": "README.md",
        "pyproject.toml": "pyproject.toml",
        f"{source}/plugin.py": "plugin.py",
        f"tests/test_{draft.package}.py": "tests.py",
    }
    if draft.samples:
        files[f"{source}/samples.py"] = "samples.py"
    if draft.defines:
        files[f"{source}/definitions.py"] = "definitions.py"
    texts = {path: _text(template, draft) for path, template in files.items()}
    texts |= {f"{source}/{part.module}.py": _text(_template(part), draft, part) for part in draft.parts}
    texts |= {f"{source}/__init__.py": "", f"{source}/py.typed": ""}
    return dict(sorted(texts.items()))


def _template(part: Part) -> str:
    return f"parts/{part.sort}.py"


def _text(template: str, draft: Draft, part: Part | None = None) -> str:
    return _environment().get_template(f"{template}.j2").render(draft=draft, part=part)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # A basic string of TOML is written as one of JSON.
    environment.filters["quoted"] = lambda text: json.dumps(text, ensure_ascii=False)
    return environment
