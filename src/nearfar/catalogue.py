"""The catalogue: a Markdown (MyST) page for each part, made of what :func:`nearfar.describe.describe` reads.

Nothing is imported but specs and source text, so the pages of a plugin can be made where torch is not installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from nearfar import conformance_pages
from nearfar.conformance import Report
from nearfar.describe import Description, describe
from nearfar.markdown import admonition, bullets, fence, inline, prose, table, toctree
from nearfar.registry import Registry
from nearfar.signature import Parameter
from nearfar.spec import KINDS
from nearfar.written import write_folder

__all__ = ["page", "page_name", "pages", "write"]

#: Kind of part → the title of its page and the name of its folder.
TITLES: Mapping[str, str] = {"loss": "Losses", "miner": "Miners", "reducer": "Reducers", "distance": "Distances"}


def page_name(description: Description) -> str:
    """Where the page of a part is, below the catalogue: ``losses/margin.arcface.md``."""
    return f"{_folder(description.kind)}/{description.full_name}.md"


def page(description: Description, report: Report | None = None) -> str:
    """One part as a Markdown page, with what a report says of it where there is one."""
    d = description
    blocks = [
        f"# {d.full_name}",
        inline(d.summary),
        *(admonition("warning", f"Known defect: {inline(defect)}") for defect in d.defects),
        prose(d.opening),
        *_section("Recipe", fence("python", d.recipe)),
        *_section("Parameters", _parameters(d.parameters)),
        *_section("Composes with", _prose_bullets(d.composes)),
        *_section("Presets", _presets(d)),
        *_section("Properties", _prose_bullets(d.properties)),
        *_section("Cost", _prose_bullets(d.cost)),
        *(block for section in d.sections for block in _section(_title(section.title), prose(section.blocks))),
        *_section("Raises", bullets(f"`{name}`: {inline(said)}" for name, said in d.raises)),
        *_section("Deviations", _prose_bullets(d.deviations)),
        *_section("Paper", _paper(d)),
        *_section("References", prose(d.references)),
        *_section("Conformance", conformance_pages.of_part(d, report)),
        *_section("Provided by", _provider(d)),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def pages(registry: Registry, *, plugin: str | None = None, reports: Iterable[Report] = ()) -> dict[str, str]:
    """All pages, by where they are: one a part, one a kind, ``conformance.md`` and those below it, and ``index.md``.

    Parameters
    ----------
    registry
        What there is.
    plugin
        Only the parts of the plugin of this namespace.
    reports
        What ``nearfar check-plugin`` found, at most one report a plugin.
    """
    told = {report.plugin: report for report in reports if plugin in (None, report.plugin)}
    found = {
        kind: [describe(entry, registry) for entry in registry.find(kind, plugin=plugin)] for kind in KINDS
    }  # in natural order of their full names
    everything = [d for descriptions in found.values() for d in descriptions]
    made = {page_name(d): page(d, told.get(_namespace(d))) for d in everything}
    kinds = {kind: descriptions for kind, descriptions in found.items() if descriptions}
    made |= {f"{_folder(kind)}.md": _kind_page(kind, descriptions) for kind, descriptions in kinds.items()}
    links = {(d.full_name, d.kind): page_name(d) for d in everything}
    made |= conformance_pages.pages(everything, links, told)
    made["index.md"] = _index(kinds)
    return made


def write(folder: Path, registry: Registry, *, plugin: str | None = None, reports: Iterable[Report] = ()) -> list[Path]:
    """Write all pages below ``folder``; pages of parts that are gone are removed, files of others left alone.

    Returns
    -------
    list of Path
        Every page, sorted.

    Raises
    ------
    ConfigError
        A file that was not written so is in the way; nothing was written then.
    """
    return write_folder(
        folder,
        pages(registry, plugin=plugin, reports=reports),
        scope=f"the plugin {plugin}" if plugin else "the catalogue",
        among=("*.md", "conformance/*.md", *(f"{_folder(kind)}/*.md" for kind in KINDS)),
    )


def _folder(kind: str) -> str:
    return TITLES[kind].lower()


def _namespace(description: Description) -> str:
    return description.full_name.partition(".")[0]


# ---- the sections of a page


def _section(title: str, body: str) -> Iterator[str]:
    if body:
        yield f"## {title}"
        yield body


def _title(title: str) -> str:
    return inline(title.capitalize() if title.islower() else title)


def _prose_bullets(lines: Iterable[str]) -> str:
    return bullets(map(inline, lines))


def _parameters(parameters: Iterable[Parameter]) -> str:
    rows = [
        (
            f"`{p.name}`",
            "required" if p.required else f"`{p.default!r}`",
            inline(p.unit),
            _range(p),
            inline(p.description),
        )
        for p in parameters
    ]
    return table(("Name", "Default", "Unit", "Range", "Description"), rows)


def _range(p: Parameter) -> str:
    if p.low is None or p.high is None:
        return ", ".join(f"`{choice!r}`" for choice in p.choices)
    left_out = [_number(end) for end, is_open in ((p.low, p.low_open), (p.high, p.high_open)) if is_open]
    return f"{_number(p.low)} … {_number(p.high)}" + (f", without {' and '.join(left_out)}" if left_out else "")


def _number(value: float) -> str:
    text = f"{value:.6g}"
    return {"inf": "∞", "-inf": "−∞", "3.14159": "π", "1.5708": "π/2"}.get(text, text.replace("-", "−"))


def _presets(d: Description) -> str:
    rows = [
        (
            f"`{name}`",
            ", ".join(f"`{argument}={value!r}`" for argument, value in preset.arguments.items()),
            inline(preset.source),
        )
        for name, preset in d.spec.presets.items()
    ]
    return table(("Name", "Arguments", "Source"), rows)


def _paper(d: Description) -> str:
    paper = d.spec.paper
    if paper is None:
        return ""
    text = inline(d.paper)
    return (
        text
        if not paper.arxiv
        else f"{text.removesuffix(paper.arxiv)}[{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})"
    )


def _provider(d: Description) -> str:
    lines = list(d.provided)
    if d.family:
        lines.append(f"family: {d.family}")
    if d.names:
        lines.append(f"also called: {', '.join(d.names)}")
    return _prose_bullets(lines)


# ---- the pages above the parts


def _kind_page(kind: str, descriptions: list[Description]) -> str:
    blocks = [f"# {TITLES[kind]}"]
    for namespace in dict.fromkeys(map(_namespace, descriptions)):
        own = [d for d in descriptions if _namespace(d) == namespace]
        rows = [(f"[`{d.full_name}`]({page_name(d)})", inline(d.summary)) for d in own]
        blocks += [f"## {namespace}", f"From {own[0].provider}.", table(("Name", "What it is"), rows)]
    blocks.append(toctree(page_name(d).removesuffix(".md") for d in descriptions))
    return "\n\n".join(blocks) + "\n"


def _index(kinds: Mapping[str, list[Description]]) -> str:
    rows = []
    for kind, descriptions in kinds.items():
        namespaces = dict.fromkeys(map(_namespace, descriptions))
        names = f"[{TITLES[kind]}]({_folder(kind)}.md)"
        rows.append((names, str(len(descriptions)), ", ".join(f"`{namespace}`" for namespace in namespaces)))
    blocks = [
        "# Catalogue",
        "Every part, from its spec and its docstring: what `nearfar show NAME` prints.",
        table(("Kind", "Parts", "Plugins"), rows),
        "Which part keeps which law is on [](conformance.md).",
        toctree([*map(_folder, kinds), "conformance"]),
    ]
    return "\n\n".join(blocks) + "\n"
