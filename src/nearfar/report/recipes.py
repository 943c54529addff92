"""What a run's criterion is made of, and where each part was published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nearfar.errors import CheckpointError
from nearfar.plan import PlannedPart
from nearfar.recipe import Recipe
from nearfar.train.config import Config
from nearfar.train.folder import RunFolder

_ARXIV = "https://arxiv.org/abs/"


@dataclass(frozen=True, slots=True)
class PartFacts:
    """A part of a recipe: its full name, kind and summary; its paper, and the address of that where there is one."""

    name: str
    kind: str
    summary: str
    paper: str
    link: str


@dataclass(frozen=True, slots=True)
class RecipeFacts:
    """A resolved recipe.

    Attributes
    ----------
    expression, yaml
        As a text and as written in ``recipe.yaml``.
    parts
        Each part once, the nested ones too.
    plugins
        Plugin → the version that trained.
    problems
        Why it cannot be resolved here.
    """

    expression: str
    yaml: str
    parts: tuple[PartFacts, ...]
    plugins: Mapping[str, str]
    problems: tuple[str, ...]


def read_recipe(folder: RunFolder, config: Config) -> RecipeFacts:
    """Read ``recipe.yaml`` and look its parts up.

    Raises
    ------
    CheckpointError
        It is missing or cannot be read.
    RecipeError, ConfigError
        It is no recipe.
    """
    try:
        text = folder.recipe.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{folder.recipe.name} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder.recipe.name} cannot be read: {error}") from error
    recipe = Recipe.from_yaml(text, source=folder.recipe.name)
    # Any count does: parts are looked up, not built.
    plan = recipe.plan(num_classes=2, embedding_size=config.model.embedding_size or 2)
    entries = {part.entry.full_name: part.entry for term in plan.terms for part in _parts([term.loss, term.weight])}
    parts = []
    for name, entry in entries.items():
        paper = entry.spec.paper
        link = f"{_ARXIV}{paper.arxiv}" if paper is not None and paper.arxiv else ""
        parts.append(PartFacts(name, entry.kind, entry.spec.summary, str(paper or ""), link))
    problems = tuple(problem.message for problem in plan.errors)
    return RecipeFacts(str(recipe), text, tuple(parts), dict(recipe.plugins), problems)


def _parts(values: Any) -> Iterator[PlannedPart]:
    """Every planned part among values, the nested ones too."""
    for value in values:
        if isinstance(value, PlannedPart):
            yield value
            yield from _parts([*value.arguments.values(), *value.variadic, *value.attributes.values(), value.miner])
        elif isinstance(value, (list, tuple)):
            yield from _parts(value)
        elif isinstance(value, Mapping):
            yield from _parts(value.values())
