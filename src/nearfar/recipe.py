"""Recipes: what a criterion is made of, as plain data.

A recipe reads from and writes to a string (:mod:`nearfar.grammar`), plain data (YAML, JSON) and keyword
arguments, without loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nearfar.errors import RecipeError
from nearfar.grammar import SLOTS, Live, Part, Term, parse_part, parse_terms, walk
from nearfar.plan import Plan, Problem, refusal
from nearfar.planner import plan
from nearfar.registry import Registry, default_registry
from nearfar.schedule import Schedule

__all__ = ["Recipe"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A sum of weighted losses, each with its miner, reducer and distance.

    Attributes
    ----------
    terms
        At least one.
    plugins
        Namespace → version of the plugins that made it; empty until it was composed.
    """

    terms: tuple[Term, ...]
    plugins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, source: Any, **slots: Any) -> Recipe:
        """Read a recipe from a string, plain data, a part, a live loss or another recipe.

        Parameters
        ----------
        source
            What to read.
        **slots
            ``miner``, ``reducer`` and ``distance``: a name, a string, plain data or a live object, given to
            every term that does not say its own.

        Raises
        ------
        RecipeError
            It is not a recipe; the message says where.
        """
        if isinstance(source, Recipe):
            recipe = source
        elif isinstance(source, str):
            recipe = cls(parse_terms(source))
        elif isinstance(source, Mapping) and "terms" in source:
            recipe = _from_dict(source)
        elif isinstance(source, Part | Mapping):
            recipe = cls((Term(_part_from_data(source)),))
        elif isinstance(source, type) or not callable(source):
            raise RecipeError(f"a recipe is a string, plain data or a loss object; got {source!r}")
        else:
            recipe = cls((Term(Live(source)),))
        return recipe.with_slots(**slots)

    def with_slots(self, **slots: Any) -> Recipe:
        """The same recipe, with these in every slot that was left open.

        Raises
        ------
        RecipeError
            A slot has another name than ``miner``, ``reducer`` and ``distance``, or is filled already.
        """
        given = {name: _slot_from_data(value) for name, value in slots.items() if value is not None}
        terms = []
        for term in self.terms:
            if not given:
                terms.append(term)
                continue
            if isinstance(term.loss, Live):
                raise RecipeError(f"{term.loss} is an object already; give {', '.join(given)} to it when you make it")
            for name in given:
                if name not in SLOTS:
                    raise RecipeError(f"a recipe has no slot {name!r}; it has {', '.join(SLOTS)}")
                if name in term.loss.named:
                    raise RecipeError(f"{name} is given twice, in {str(term.loss)!r} and as {name}={given[name]}")
            ordered = {**term.loss.named, **{name: given[name] for name in SLOTS if name in given}}
            terms.append(Term(Part(term.loss.name, term.loss.positional, ordered), term.weight))
        return Recipe(tuple(terms), self.plugins)

    def with_plugins(self, plugins: Mapping[str, str]) -> Recipe:
        """The same recipe with the versions of the plugins that made it."""
        return Recipe(self.terms, dict(sorted(plugins.items())))

    def with_weights(self, weights: Sequence[float | None]) -> Recipe:
        """The same recipe with other weights, one a term; None leaves what a term has."""
        if all(weight in (None, term.weight) for term, weight in zip(self.terms, weights, strict=True)):
            return self
        terms = (
            term if weight is None else replace(term, weight=weight)
            for term, weight in zip(self.terms, weights, strict=True)
        )
        return Recipe(tuple(terms), self.plugins)

    @property
    def serialisable(self) -> bool:
        """Whether it can be written down: it holds no live object."""
        return not any(isinstance(value, Live) for term in self.terms for value in walk(term.loss))

    def parts(self) -> list[Part]:
        """Every part in it, the nested ones too."""
        return [value for term in self.terms for value in walk(term.loss) if isinstance(value, Part)]

    def __str__(self) -> str:
        return " + ".join(str(term) for term in self.terms)

    def plan(self, registry: Registry | None = None, **context: Any) -> Plan:
        """What is to be built, with every problem found; needs no torch.

        Parameters
        ----------
        registry
            Where names are looked up; by default everything installed.
        **context
            ``num_classes``, ``embedding_size`` …: what parts need from where they are used.
        """
        registry = default_registry() if registry is None else registry
        return plan(self.terms, registry, context, made_by=self.plugins)

    def check(self, registry: Registry | None = None, **context: Any) -> tuple[Problem, ...]:
        """Every problem of the recipe at once; see :meth:`plan`. Nothing wrong: an empty tuple."""
        return self.plan(registry, **context).problems

    def refuse_mistakes(self, registry: Registry | None = None) -> None:
        """Refuse what is wrong with the recipe wherever it is used: only what parts need from there may be missing.

        Raises
        ------
        RecipeError
            ``problems`` has everything that is wrong.
        """
        if errors := [problem for problem in self.plan(registry).errors if not problem.lacks]:
            raise refusal(errors, self)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data.

        Raises
        ------
        RecipeError
            It holds a live object.
        """
        if not self.serialisable:
            raise RecipeError(f"this recipe holds live objects and cannot be written down: {self}")
        terms = [
            ({} if term.weight == 1 else {"weight": _plain(term.weight)}) | {"loss": _plain(term.loss)}
            for term in self.terms
        ]
        return {"terms": terms} | ({"plugins": dict(self.plugins)} if self.plugins else {})

    def to_yaml(self) -> str:
        """The recipe as a YAML document."""
        from nearfar import yaml12

        return yaml12.dump(self.to_dict())

    @classmethod
    def from_yaml(cls, text: str, *, source: str = "recipe") -> Recipe:
        """Read what :meth:`to_yaml` wrote, or a YAML string that is a recipe."""
        from nearfar import yaml12

        return cls.of(yaml12.load(text, source=source))


# ---- plain data


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        if not value.positional and not value.named:
            return {"part": value.name}
        arguments: dict[str, Any] = {}
        if value.positional:
            arguments["positional"] = [_plain(item) for item in value.positional]
        if value.named:
            arguments["arguments"] = {name: _plain(item) for name, item in value.named.items()}
        return {"part": value.name} | arguments
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        if "part" in value:
            raise RecipeError("a dictionary with the key 'part' cannot be written down: it would read as a part")
        return {key: _plain(item) for key, item in value.items()}
    return value


_PART_KEYS = {"part", "positional", "arguments"}


def _part_from_data(data: Any) -> Part:
    if isinstance(data, Part):
        return data
    if isinstance(data, str):
        return parse_part(data)
    if not isinstance(data, Mapping) or not isinstance(data.get("part"), str):
        raise RecipeError(f"a part is a string, or a mapping with the key 'part'; got {data!r}")
    if unknown := sorted(set(data) - _PART_KEYS):
        raise RecipeError(
            f"the part {data['part']!r} has the unknown key {unknown[0]!r}; its arguments go under 'arguments'"
        )
    named, positional = data.get("arguments") or {}, data.get("positional") or []
    if not isinstance(named, Mapping) or not isinstance(positional, list):
        raise RecipeError(f"the part {data['part']!r} takes a mapping 'arguments' and a list 'positional'")
    return Part(
        data["part"],
        tuple(_value_from_data(value) for value in positional),
        {
            str(name): _slot_from_data(value) if name in SLOTS else _value_from_data(value)
            for name, value in named.items()
        },
    )


def _value_from_data(value: Any) -> Any:
    if isinstance(value, Mapping) and "part" in value:
        return _part_from_data(value)
    if isinstance(value, list):
        return [_value_from_data(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _value_from_data(item) for key, item in value.items()}
    return value


def _slot_from_data(value: Any) -> Any:
    """A slot's value, in which a bare string is the name of a part rather than a text."""
    if value is None or isinstance(value, Live):
        return value
    return _part_from_data(value) if isinstance(value, str | Mapping | Part) else Live(value)


_TERM_KEYS = {"weight", "loss", *SLOTS}


def _from_dict(data: Mapping[str, Any]) -> Recipe:
    if unknown := sorted(set(data) - {"terms", "plugins"}):
        raise RecipeError(f"a recipe has the keys 'terms' and 'plugins', not {unknown[0]!r}")
    terms = data["terms"]
    if not isinstance(terms, list) or not terms:
        raise RecipeError("the 'terms' of a recipe are a list of at least one term")
    plugins = data.get("plugins") or {}
    if not isinstance(plugins, Mapping) or not all(isinstance(version, str) for version in plugins.values()):
        raise RecipeError(
            f"the 'plugins' of a recipe are the version of each namespace, such as pair: \"0.1.0\"; got {plugins}"
        )
    return Recipe(tuple(_term_from_data(term) for term in terms), dict(plugins))


def _term_from_data(data: Any) -> Term:
    if isinstance(data, str):
        (term,) = parse_terms(data)
        return term
    if not isinstance(data, Mapping) or "loss" not in data:
        raise RecipeError(f"a term is a string, or a mapping with the key 'loss'; got {data!r}")
    if unknown := sorted(set(data) - _TERM_KEYS):
        raise RecipeError(f"a term has the keys {', '.join(sorted(_TERM_KEYS))}, not {unknown[0]!r}")
    weight = data.get("weight", 1.0)
    weight = _weight_from_data(weight)
    slots = {name: data.get(name) for name in SLOTS}
    (term,) = Recipe((Term(_part_from_data(data["loss"]), weight),)).with_slots(**slots).terms
    return term


def _weight_from_data(weight: Any) -> Any:
    """A number, or a schedule of one: an object, a text or data."""
    if isinstance(weight, str | Mapping):
        part = _part_from_data(weight)
        weight = part if part.positional or part.named else part.name
    if isinstance(weight, bool) or not isinstance(weight, int | float | Part | Schedule):
        raise RecipeError(f"a term's weight is a number or a schedule of one, not {weight!r}")
    return float(weight) if isinstance(weight, int) else weight
