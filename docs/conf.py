"""Configuration of the documentation: Sphinx, Furo, MyST."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

import nearfar
from nearfar.catalogue import write
from nearfar.conformance import load
from nearfar.discovery import Selector, discover
from nearfar.registry import Registry

project = "nearfar"
author = "The nearfar authors"
copyright = author  # noqa: A001  # Sphinx's name for it
version = release = nearfar.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"nearfar {release}"
html_show_sphinx = False
html_math_renderer = "mathml"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # the docstrings say it, with shapes
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False

#: The plugins whose parts the catalogue shows, whatever else is installed where it is built.
CATALOGUE_PLUGINS = frozenset({"iou", "margin", "pair", "proxy"})


def write_catalogue(app: Sphinx) -> None:
    """Make the pages of the catalogue before the sources are read."""
    registry = Registry(discover(selector=Selector(allow=CATALOGUE_PLUGINS)))
    if missing := [p.namespace for p in registry.plugins if p.status not in ("active", "blocked")]:
        logging.getLogger(__name__).warning("these plugins are not active: %s", ", ".join(missing))
    found = Path(app.srcdir) / "conformance.json"
    reports = load(found) if found.exists() else []
    write(Path(app.srcdir) / "catalogue", registry, reports=reports)


# ---- formulas as MathML, which browsers draw themselves: no script, no network


def mathml(tex: str, *, block: bool) -> str:
    """TeX as MathML; a formula that cannot be read is a warning, which fails a strict build."""
    try:
        return str(latex2mathml.tex2mathml(tex, as_block=block))
    except MathError as error:
        logging.getLogger(__name__).warning("a formula cannot be read: %s: %s", error, tex)
        return f"<code>{tex}</code>"


def visit_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def visit_displaymath(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(mathml(node.astext(), block=True) + "</div>")
    raise nodes.SkipNode


# ---- docstrings of properties, in which Napoleon takes "What it is: more of it." for a type and a description

_sentences: dict[str, list[str]] = {}


def keep_sentence(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what == "property" and "" not in lines[:-1]:  # one paragraph
        _sentences[name] = lines.copy()


def restore_sentence(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if name in _sentences:
        lines[:] = _sentences.pop(name)


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write_catalogue)
    app.connect("autodoc-process-docstring", keep_sentence, priority=100)
    app.connect("autodoc-process-docstring", restore_sentence, priority=900)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    # Two threads of a library that only imports torch would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
