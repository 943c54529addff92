"""Every hook, end to end: a plugin that implements it is discovered, and its part is made by name and works."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import nearfar
from nearfar import hookspecs
from nearfar.discovery import Plugin, discover
from nearfar.registry import Registry
from nearfar.spec import KINDS

SPECIFIED = sorted(name for name, hook in vars(hookspecs).items() if hasattr(hook, f"{hookspecs.PROJECT}_spec"))
KIND_OF = {hook: kind for kind, hook in hookspecs.HOOKS.items()}
#: Hooks for what is no part, each with what its specs need.
BESIDES = {
    "nearfar_recipes": {"recipe": "triplet", "summary": "Triplets.", "source": "here"},
    "nearfar_commands": {"group": "plot", "target": "acme:command", "summary": "Draw."},
}
PAGE = Path(__file__).parents[2] / "docs" / "hooks.md"

EMBEDDINGS = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
LABELS = torch.tensor([0, 0, 1])


@dataclass(frozen=True)
class Case:
    """A plugin that implements one hook and nothing else: its entry module, its parts, a recipe with its part, and
    what that gives for the three embeddings above."""

    entry: str
    parts: str
    recipe: str
    value: float


CASES = {
    "nearfar_losses": Case(
        """
        from nearfar import LossSpec, hookimpl

        @hookimpl
        def nearfar_losses():
            return [LossSpec(name="total", target="acme_parts:Total", summary="The sum of the coordinates.")]
        """,
        """
        from nearfar.nn import EmbeddingLoss, element_terms

        class Total(EmbeddingLoss):
            def terms(self, batch):
                return element_terms(batch.embeddings.sum(1))
        """,
        "acme.total",
        (1 + 1.4 + 1) / 3,
    ),
    "nearfar_miners": Case(
        """
        from nearfar import MinerSpec, hookimpl

        @hookimpl
        def nearfar_miners():
            return [MinerSpec(name="first", target="acme_parts:First", summary="One triplet.", produces="triplets")]
        """,
        """
        import torch
        from nearfar.nn import IndexSelection, Miner

        class First(Miner):
            def choose(self, batch, distance, loss):
                return IndexSelection(tuple(torch.tensor([index]) for index in range(3)))
        """,
        "pair.triplet(margin=2, miner=acme.first, distance=squared_euclidean)",
        2 + 0.4 - 2,
    ),
    "nearfar_reducers": Case(
        """
        from nearfar import ReducerSpec, hookimpl

        @hookimpl
        def nearfar_reducers():
            return [ReducerSpec(name="largest", target="acme_parts:Largest", summary="The largest value.")]
        """,
        """
        from nearfar.nn import Reducer

        class Largest(Reducer):
            def reduce(self, terms):
                return terms.values.max()
        """,
        "pair.triplet(margin=1, reducer=acme.largest, distance=squared_euclidean)",
        1 + 0.4 - 0.8,  # of the second embedding as the anchor; of the first it is 0
    ),
    "nearfar_distances": Case(
        """
        from nearfar import DistanceSpec, hookimpl

        @hookimpl
        def nearfar_distances():
            return [DistanceSpec(name="manhattan", target="acme_parts:Manhattan", summary="In blocks.", metric=True)]
        """,
        """
        import torch
        from nearfar.nn import Distance

        class Manhattan(Distance):
            def matrix(self, query, reference):
                return torch.cdist(query, reference, p=1)

            def pairwise(self, query, reference):
                return (query - reference).abs().sum(1)
        """,
        "pair.triplet(margin=2, distance=acme.manhattan, reducer=mean)",
        ((2 + 0.8 - 2) + (2 + 0.8 - 1.2)) / 2,
    ),
}


@pytest.fixture
def discovered(
    install: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], Plugin]:
    """Install a plugin with this entry module and these parts, and say what became of it."""
    for module in ("acme_plugin", "acme_parts"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    def lay(entry: str, parts: str = "") -> Plugin:
        install("acme-losses", "acme", entry, module="acme_plugin")
        (tmp_path / "site" / "acme_parts.py").write_text(textwrap.dedent(parts), encoding="utf-8")
        (plugin,) = [plugin for plugin in discover() if plugin.namespace == "acme"]
        return plugin

    return lay


def test_every_hook_has_a_case_and_a_kind():
    assert sorted([*CASES, *BESIDES]) == SPECIFIED == sorted(hookspecs.RETURNS)
    assert sorted([*KIND_OF, *BESIDES]) == SPECIFIED
    assert sorted(KIND_OF.values()) == sorted(KINDS)


@pytest.mark.parametrize("hook", CASES)
def test_what_a_hook_declares_is_found_by_name_and_works(discovered, hook):
    case = CASES[hook]
    plugin = discovered(case.entry, case.parts)
    assert (plugin.status, plugin.reason) == ("active", "")
    assert [type(spec) for spec in plugin.specs] == [KINDS[KIND_OF[hook]]]
    registry = Registry(discover())
    entry = registry.resolve(KIND_OF[hook], f"acme.{plugin.specs[0].name}")
    assert entry.plugin.provider == "acme-losses 1.0"
    assert nearfar.compose(case.recipe, registry=registry)(EMBEDDINGS, LABELS).item() == pytest.approx(case.value)


@pytest.mark.parametrize("hook", SPECIFIED)
def test_a_hook_may_return_any_iterable_of_any_length(discovered, hook):
    plugin = discovered(f"from nearfar import hookimpl\n\n@hookimpl\ndef {hook}():\n    yield from ()\n")
    assert (plugin.status, plugin.specs) == ("active", ())


#: What the page lists as mistakes, in its order, in a plugin that makes it.
MISTAKES = {
    "it returns nothing": "@hookimpl\ndef nearfar_losses(): ...",
    "it returns something else": "@hookimpl\ndef nearfar_losses(): return 42",
    "it raises": "@hookimpl\ndef nearfar_losses(): raise KeyError('margin')",
    "two parts of a kind have one name": (
        "@hookimpl\ndef nearfar_losses():\n"
        "    ring = LossSpec(name='ring', target='a:Ring', summary='Ring.', **MORE)\n"
        "    halo = LossSpec(name='halo', target='a:Halo', summary='Halo.', aliases=('ring',), **MORE)\n"
        "    return [ring, halo]"
    ),
    "it takes arguments": "@hookimpl\ndef nearfar_losses(registry): return []",
    "its name is misspelt": "@hookimpl\ndef nearfar_losses_(): return []",
    "the mark is missing": "def nearfar_losses(): return []",
}


def _documented() -> dict[str, str]:
    """Mistake → the reason the page says is given."""
    rows = re.findall(r"^\| ([^|]+) \| `([^|]+)` \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {mistake: reason for mistake, reason in rows if mistake in MISTAKES or mistake.startswith("it ")}


def test_the_page_lists_these_mistakes():
    assert list(_documented()) == list(MISTAKES)


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("hook", SPECIFIED)
def test_a_mistake_is_told_as_the_page_says(discovered, hook, mistake):
    spec = hookspecs.RETURNS[hook].__name__
    kind = KIND_OF.get(hook, {"nearfar_recipes": "recipe", "nearfar_commands": "plot command"}.get(hook))

    def of_this_kind(text: str) -> str:
        text = (
            text.replace("nearfar_losses", hook).replace("LossSpec", spec).replace("the loss name", f"the {kind} name")
        )
        if hook not in BESIDES:
            return text
        # What is no part has no aliases, and needs other words.
        text = text.replace("'halo', target='a:Halo', summary='Halo.', aliases=('ring',)", "'ring'")
        return text.replace(", target='a:Ring', summary='Ring.'", "").replace("and to halo", "and to ring")

    more = BESIDES.get(hook, {"produces": "triplets"} if kind == "miner" else {})
    plugin = discovered(f"from nearfar import {spec}, hookimpl\nMORE = {more}\n{of_this_kind(MISTAKES[mistake])}\n")
    assert plugin.status == "failed"
    pattern = re.escape(of_this_kind(_documented()[mistake])).replace("…", ".*")
    assert re.fullmatch(pattern, plugin.reason), plugin.reason


def test_what_is_no_part_is_kept_apart_and_found_by_name(discovered):
    plugin = discovered(
        """
        from nearfar import CommandSpec, RecipeSpec, hookimpl

        @hookimpl
        def nearfar_recipes():
            return [RecipeSpec(name="usual", recipe="triplet", summary="Triplets.", source="here")]

        @hookimpl
        def nearfar_commands():
            yield CommandSpec(group="bench", name="usual", target="acme_parts:usual", summary="Rerun.")
            yield CommandSpec(group="plot", name="usual", target="acme_parts:draw", summary="Draw.")
        """
    )
    assert (plugin.status, plugin.reason, plugin.specs) == ("active", "", ())
    registry = Registry(discover())
    assert registry.recipes()["usual"] == (plugin.recipes[0], plugin)
    assert registry.commands("bench")["usual"][0].target == "acme_parts:usual"
    assert registry.commands("plot")["usual"][0].target == "acme_parts:draw"
    assert registry.kinds_of("usual") == []


def test_a_name_that_two_plugins_give_to_recipes_is_written_in_full(discovered, install):
    source = """
        from nearfar import RecipeSpec, hookimpl

        @hookimpl
        def nearfar_recipes():
            return [RecipeSpec(name="usual", recipe="triplet", summary="Triplets.", source="here")]
        """
    discovered(source)
    install("zeta-losses", "zeta", source)
    names = list(Registry(discover()).recipes())
    assert [name for name in names if "usual" in name] == ["acme.usual", "zeta.usual"]
