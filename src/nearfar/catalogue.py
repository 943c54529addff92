"""The catalogue: a Markdown (MyST) page for each part, made of what :func:`nearfar.describe.describe` reads.

Nothing is imported but specs and source text, so the pages of a plugin can be made where torch is not installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nearfar.describe import Description, describe
from nearfar.registry import Registry
from nearfar.signature import Parameter
from nearfar.spec import KINDS

__all__ = ["page", "page_name", "pages", "write"]

#: Kind of part → the title of its page and the name of its folder.
TITLES: Mapping[str, str] = {"loss": "Losses", "miner": "Miners", "reducer": "Reducers", "distance": "Distances"}


def page_name(description: Description) -> str:
    """Where the page of a part is, below the catalogue: ``losses/margin.arcface.md``."""
    return f"{_folder(description.kind)}/{description.full_name}.md"


def page(description: Description) -> str:
    """One part as a Markdown page."""
    d = description
    blocks = [
        f"# {d.full_name}",
        _escape(d.summary),
        *(f":::{{warning}}\nKnown defect: {_escape(defect)}\n:::" for defect in d.defects),
        *(f"```{{math}}\n{block}\n```" for block in d.formula.split("\n\n") if block),
        *_section("Recipe", f"```python\n{d.recipe}\n```"),
        *_section("Parameters", _parameters(d.parameters)),
        *_section("Composes with", _bullets(map(_escape, d.composes))),
        *_section("Presets", _presets(d)),
        *_section("Deviations", _bullets(map(_escape, d.deviations))),
        *_section("Paper", _paper(d)),
        *_section("Provided by", _provider(d)),
    ]
    return "\n\n".join(blocks) + "\n"


def pages(registry: Registry, *, plugin: str | None = None) -> dict[str, str]:
    """All pages, by where they are: one a part, one a kind, and ``index.md``.

    Parameters
    ----------
    registry
        What there is.
    plugin
        Only the parts of the plugin of this namespace.
    """
    found = {
        kind: [describe(entry, registry) for entry in registry.find(kind, plugin=plugin)] for kind in KINDS
    }  # in natural order of their full names
    made = {page_name(d): page(d) for descriptions in found.values() for d in descriptions}
    kinds = {kind: descriptions for kind, descriptions in found.items() if descriptions}
    made |= {f"{_folder(kind)}.md": _kind_page(kind, descriptions) for kind, descriptions in kinds.items()}
    made["index.md"] = _index(kinds)
    return made


def write(folder: Path, registry: Registry, *, plugin: str | None = None) -> list[Path]:
    """Write all pages below ``folder``; pages of parts that are gone are removed, unchanged ones left alone.

    Returns
    -------
    list of Path
        Every page, sorted.
    """
    made = {folder / name: text for name, text in pages(registry, plugin=plugin).items()}
    for old in set(folder.rglob("*.md")) - set(made):
        old.unlink()
    for path, text in made.items():
        # What did not change keeps its date, so that a documentation build need not read it again.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return sorted(made)


def _folder(kind: str) -> str:
    return TITLES[kind].lower()


# ---- the sections of a page


def _section(title: str, body: str) -> Iterator[str]:
    if body:
        yield f"## {title}"
        yield body


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _parameters(parameters: Iterable[Parameter]) -> str:
    rows = [
        (
            f"`{p.name}`",
            "required" if p.required else f"`{p.default!r}`",
            _escape(p.unit),
            _range(p),
            _escape(p.description),
        )
        for p in parameters
    ]
    return _table(("Name", "Default", "Unit", "Range", "Description"), rows)


def _range(p: Parameter) -> str:
    if p.low is None and p.high is None:
        return ""
    low, high = ("−∞" if p.low is None else _number(p.low)), ("∞" if p.high is None else _number(p.high))
    return f"{low} … {high}"


def _number(value: float) -> str:
    text = f"{value:.6g}"
    return {"inf": "∞", "-inf": "−∞", "3.14159": "π", "1.5708": "π/2"}.get(text, text.replace("-", "−"))


def _presets(d: Description) -> str:
    rows = [
        (
            f"`{name}`",
            ", ".join(f"`{argument}={value!r}`" for argument, value in preset.arguments.items()),
            _escape(preset.source),
        )
        for name, preset in d.spec.presets.items()
    ]
    return _table(("Name", "Arguments", "Source"), rows)


def _paper(d: Description) -> str:
    paper = d.spec.paper
    if paper is None:
        return ""
    text = _escape(d.paper)
    return (
        text
        if not paper.arxiv
        else f"{text.removesuffix(paper.arxiv)}[{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})"
    )


def _provider(d: Description) -> str:
    lines = [f"{d.provider}, as `{d.spec.target.replace(':', '.')}`"]
    if d.family:
        lines.append(f"family: {_escape(d.family)}")
    if d.names:
        lines.append(f"also called: {', '.join(map(_escape, d.names))}")
    if d.spec.requires:
        lines.append(f"needs the distribution `{d.spec.requires}`")
    return _bullets(lines)


# ---- the pages above the parts


def _kind_page(kind: str, descriptions: list[Description]) -> str:
    blocks = [f"# {TITLES[kind]}"]
    for namespace in dict.fromkeys(d.full_name.partition(".")[0] for d in descriptions):
        own = [d for d in descriptions if d.full_name.partition(".")[0] == namespace]
        rows = [(f"[`{d.full_name}`]({page_name(d)})", _escape(d.summary)) for d in own]
        blocks += [f"## {namespace}", f"From {own[0].provider}.", _table(("Name", "What it is"), rows)]
    blocks.append(_toctree(page_name(d).removesuffix(".md") for d in descriptions))
    return "\n\n".join(blocks) + "\n"


def _index(kinds: Mapping[str, list[Description]]) -> str:
    rows = []
    for kind, descriptions in kinds.items():
        namespaces = dict.fromkeys(d.full_name.partition(".")[0] for d in descriptions)
        names = f"[{TITLES[kind]}]({_folder(kind)}.md)"
        rows.append((names, str(len(descriptions)), ", ".join(f"`{namespace}`" for namespace in namespaces)))
    return (
        "\n\n".join(
            [
                "# Catalogue",
                "Every part, from its spec and its docstring: what `nearfar show NAME` prints.",
                _table(("Kind", "Parts", "Plugins"), rows),
                _toctree(map(_folder, kinds)),
            ]
        )
        + "\n"
    )


def _toctree(names: Iterable[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


# ---- Markdown


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    # A column in which no row says anything is left out.
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    lines = [[head[column] for column in kept], ["---"] * len(kept)]
    lines += [[row[column].replace("|", "\\|") for column in kept] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_ROLE = re.compile(r":[\w:]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`")
_CODE = re.compile(r"(``.+?``|`[^`]+`)")
# An underscore inside a word is none of Markdown's business.
_SPECIAL = re.compile(r"([\\*\[\]<>{}$~]|(?<!\w)_|_(?!\w))")


def _escape(text: str) -> str:
    """Prose of a spec or docstring as Markdown: code stays code, nothing else is markup."""
    pieces = _CODE.split(_ROLE.sub(r"``\1``", " ".join(text.split())))
    return "".join(piece if n % 2 else _SPECIAL.sub(r"\\\1", piece) for n, piece in enumerate(pieces))
