"""What was asked of ``nearfar new-plugin``, checked as a whole."""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nearfar import __version__
from nearfar.errors import RegistrationError
from nearfar.scaffold.names import check_distribution, check_namespace, check_part, class_name, package_of, split_family
from nearfar.spec import KINDS

__all__ = ["FAMILIES", "LICENCES", "Draft", "Part", "Use"]

#: Family of a loss → what the loss written for it is.
FAMILIES = MappingProxyType(
    {
        "triplet": "A negative farther from the anchor than a positive, by a margin.",
        "pair": "Positive pairs within one distance, negative pairs beyond another.",
        "margin": "Softmax on scaled cosines to the classes, of which the own one has to win by a margin.",
        "proxy": "Softmax on the distances to a learned proxy for each class.",
        "iou": "What of the union of matched boxes is not shared, and what of their hull is empty.",
        "other": "How far an embedding is from the one it should have, beyond a tolerance.",
    }
)
#: Families whose losses have a vector for each class: nothing of the batch alone defines them.
LEARNED = ("margin", "proxy")
#: SPDX identifiers.
LICENCES = ("MIT", "BSD-3-Clause", "Apache-2.0")

#: Sort → what a part of it is. A sort is a family of losses, or another kind.
_SUMMARIES = {
    **FAMILIES,
    "miner": "Triplets whose negative is not farther than the positive by a margin.",
    "reducer": "A soft maximum: between the mean of the values and the greatest.",
    "distance": "The sum of the absolute differences of normalised embeddings.",
}
#: Family of a loss → the other kinds that its template takes.
_TAKES = {
    "triplet": ("miner", "reducer", "distance"),
    "pair": ("miner", "reducer", "distance"),
    "margin": ("miner", "reducer"),
    "proxy": ("miner", "reducer", "distance"),
    "iou": ("reducer",),
    "other": ("reducer",),
}
#: Modules that every plugin has.
_MODULES = frozenset({"plugin", "definitions", "samples"})
#: What the templates call or import: a class or a function of such a name would hide it.
_TAKEN = frozenset(dir(builtins)).union(
    ("Any", "Batch", "ClassLoss", "Distance", "EmbeddingLoss", "IndexSelection", "InputError", "Iterator", "Loss"),
    ("Mapping", "MaterialTerms", "Miner", "Reducer", "SquaredEuclidean", "Tensor", "Terms", "annotations", "math"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part to write.

    Attributes
    ----------
    kind, name
        As it is registered.
    sort
        Which template: the family of a loss, the kind of anything else.
    module, class_name
        Where its class is written, and what that is called.
    definition
        The function that defines it; ``""`` where it has none.
    sample
        The function that makes inputs for it; ``""`` where nearfar knows them.
    """

    kind: str
    name: str
    sort: str
    module: str
    class_name: str
    definition: str
    sample: str

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        return _SUMMARIES[self.sort]


@dataclass(frozen=True, slots=True)
class Use:
    """A composition with parts of the plugin: a loss, what it is composed with as source text, and its family."""

    loss: str
    arguments: Mapping[str, str]
    sort: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A plugin to write; :meth:`of` makes one of what was asked for, and checks it."""

    name: str
    namespace: str
    parts: tuple[Part, ...]
    licence: str
    author: str
    year: int

    @classmethod
    def of(
        cls,
        name: str,
        namespace: str,
        parts: Iterable[tuple[str, str]] = (),
        *,
        family: str = "triplet",
        licence: str = "MIT",
        author: str = "",
        year: int,
    ) -> Draft:
        """A draft of what was asked for.

        Parameters
        ----------
        name
            The distribution's.
        namespace
            What the full names of its parts begin with.
        parts
            ``(kind, name)`` of each, of a loss also ``("loss", "name:family")``; without any, it is a loss with the
            namespace's name.
        family
            One of :data:`FAMILIES`, of the losses that do not say theirs.
        licence
            One of :data:`LICENCES`.
        author
            Whose the copyright is; the authors of ``name`` where nobody is named.
        year
            Of the copyright.

        Raises
        ------
        RegistrationError
            A name cannot be used, is taken, or is given twice, or there is no such family; the message says what to do.
        """
        check_distribution(name)
        check_namespace(namespace)
        author = author.strip() or f"The {name} authors"
        if not author.isprintable():
            raise RegistrationError(f"the author {author!r} has characters that cannot be printed")
        asked = tuple(parts) or (("loss", namespace.lower()),)
        return cls(
            name=name,
            namespace=namespace,
            parts=_named(asked, family),
            licence=licence,
            author=author,
            year=year,
        )

    @property
    def package(self) -> str:
        """What is imported."""
        return package_of(self.name)

    @property
    def requirement(self) -> str:
        """The versions of nearfar it asks for: from this minor one on."""
        return ">=" + ".".join(__version__.split(".")[:2])

    @property
    def specs(self) -> tuple[str, ...]:
        """The classes of its specs, as they are imported."""
        return tuple(sorted({KINDS[part.kind].__name__ for part in self.parts}))

    @property
    def listed(self) -> str:
        """Its parts in words: ``the loss my_loss and the miner my_miner``."""
        words = [f"the {part.kind} {part.name}" for part in self.parts]
        return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)

    @property
    def defines(self) -> bool:
        """Whether any part has a definition."""
        return any(part.definition for part in self.parts)

    def of_sort(self, *sorts: str) -> tuple[Part, ...]:
        """Its parts of some families or kinds."""
        return tuple(part for part in self.parts if part.sort in sorts or part.kind in sorts)

    @property
    def samples(self) -> bool:
        """Whether any part has inputs that nearfar does not know."""
        return any(part.sample for part in self.parts)

    @property
    def uses(self) -> tuple[Use, ...]:
        """Compositions that between them have the first loss of each family and the first part of each other kind."""
        first = {kind: self.of_sort(kind)[0] for kind in KINDS if self.of_sort(kind)}
        first.pop("loss", None)
        losses = {part.sort: part for part in reversed(self.of_sort("loss"))}
        uses = []
        for family in sorted(losses, key=[part.sort for part in self.parts].index):
            slots = {kind: first.pop(kind) for kind in _TAKES[family] if kind in first}
            context = {"num_classes": "8", "embedding_size": "64"} if family in LEARNED else {}
            uses.append(Use(self._full(losses[family]), self._quoted(slots) | context, family))
        if first:
            uses.append(Use("pml.margin_loss", self._quoted(first), "triplet"))
        return tuple(uses)

    def _full(self, part: Part) -> str:
        return f"{self.namespace}.{part.name}"

    def _quoted(self, slots: Mapping[str, Part]) -> dict[str, str]:
        return {kind: f'"{self._full(part)}"' for kind, part in slots.items()}


def _named(asked: Sequence[tuple[str, str]], family: str) -> tuple[Part, ...]:
    """Parts with the names of what is written for them, by kind."""
    split = [(kind, *(split_family(name, FAMILIES) if kind == "loss" else (name, ""))) for kind, name in asked]
    given = Counter((kind, name) for kind, name, _ in split)
    for kind, name in given:
        check_part(kind, name)
        if given[kind, name] > 1:
            raise RegistrationError(f"the {kind} {name!r} is given twice; give each part a name of its own")
    shared = Counter(name for _, name in given)

    def made(make: Callable[[str], str], kind: str, name: str, taken: frozenset[str]) -> str:
        """What is made of a part's name: with its kind where it would not be its alone."""
        return make(f"{name}_{kind}") if shared[name] > 1 or make(name) in taken else make(name)

    parts = tuple(
        Part(
            kind=kind,
            name=name,
            sort=sort,
            module=made(str, kind, name, _MODULES),
            class_name=made(class_name, kind, name, _TAKEN),
            definition="" if sort in LEARNED else made(str, kind, name, _TAKEN),
            sample=made(str, kind, name, _TAKEN) if sort == "other" else "",
        )
        for kind, name, sort in (
            (kind, name, (own or family) if kind == "loss" else kind)
            for kind, name, own in sorted(split, key=lambda part: list(KINDS).index(part[0]))
        )
    )
    for what, attribute in (("module", "module"), ("class", "class_name"), ("function", "definition")):
        _refuse_twice(parts, what, attribute)
    return parts


def _refuse_twice(parts: Sequence[Part], what: str, attribute: str) -> None:
    """Raise where two names come to one: ``a1`` and ``a_1``, or ``near_loss`` beside a loss and a miner ``near``."""
    owners: dict[str, Part] = {}
    for part in parts:
        name = getattr(part, attribute)
        if name and name in owners:
            other = owners[name]
            raise RegistrationError(
                f"the {other.kind} {other.name!r} and the {part.kind} {part.name!r} would both be the {what} {name}; "
                "rename one"
            )
        owners[name] = part
