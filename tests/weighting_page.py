"""The table of docs/weighting.md, measured. Run as a program, it writes it into the page."""

from __future__ import annotations

import warnings
from pathlib import Path

from nearfar.errors import NearfarError
from nearfar.explain import responses
from nearfar.explain.responses import KINDS
from nearfar.markdown import table
from nearfar.registry import Registry, default_registry
from nearfar.spec import LossSpec

PAGE = Path(__file__).parents[1] / "docs" / "weighting.md"
BEGIN, END = "<!-- the table -->\n", "<!-- the end of the table -->\n"
#: With the miners that make another weighting of them.
MINED = (
    "pair.triplet(miner=semihard)",
    "pair.triplet(miner=batch_hard)",
    "pair.multi_similarity(miner=multi_similarity)",
)
#: Namespaces whose losses are in the table.
NAMESPACES = ("core", "margin", "pair", "proxy")


def rows(registry: Registry) -> dict[str, list[str]]:
    """Recipe → its cells, of every loss on embeddings that can be asked."""
    found = {}
    entries = [entry for entry in registry.entries("loss") if entry.namespace in NAMESPACES]
    names = [entry.full_name for entry in entries if isinstance(entry.spec, LossSpec) and entry.spec.on_embeddings]
    for recipe in [*sorted(names), *MINED]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answers = responses(recipe, registry=registry)
        except NearfarError:
            continue
        cells = ["✓" if kind in own else "" for own in (answers.negative, answers.positive) for kind in KINDS]
        found[recipe] = cells
    return found


def renewed(page: str, registry: Registry) -> str:
    """The page with what stands between the two marks made anew."""
    before, _, rest = page.partition(BEGIN)
    head = ("Loss", *(f"{pair}: {kind}" for pair in ("negative pair", "positive pair") for kind in KINDS))
    made = table(head, [(f"`{name}`", *cells) for name, cells in rows(registry).items()])
    return before + BEGIN + "\n" + made + "\n\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), default_registry()), encoding="utf-8")
