"""What a plugin says about a part without importing it.

A spec is frozen data, built from the standard library alone, so that listing, searching and checking
never load torch. Parameters, defaults, units and ranges are *not* here: the constructor's signature
and docstring are the only place where they are written (:mod:`nearfar.signature` reads them).
"""

from __future__ import annotations

import dataclasses
import keyword
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from nearfar.errors import RegistrationError

__all__ = [
    "EMBEDDING_INPUTS",
    "KINDS",
    "Defect",
    "DistanceSpec",
    "LossSpec",
    "MinerSpec",
    "Paper",
    "PartSpec",
    "Preset",
    "ReducerSpec",
    "is_identifier",
]

#: What a loss hands to a reducer: what one value of it stands for (pytorch-metric-learning's words).
TERM_KINDS = frozenset({"element", "pos_pair", "neg_pair", "triplet", "already_reduced"})
#: What a miner hands to a loss.
SELECTION_KINDS = frozenset({"pairs", "triplets", "weights", "matches"})
#: What a miner may produce: a selection, or the choice of what counts among the terms of a loss.
PRODUCTS = SELECTION_KINDS | {"elements"}

#: What a loss on boxes may say that its value does not change with.
INVARIANCES = frozenset({"translation", "scale", "flip"})

#: What a distance may be between.
COMPARED = frozenset({"embeddings", "boxes", "rotated_boxes"})

#: What a loss on embeddings is called with, in order, as pytorch-metric-learning's are.
EMBEDDING_INPUTS = ("embeddings", "labels", "indices_tuple", "ref_emb", "ref_labels")

#: What a loss around others may ask of them.
ASKED = frozenset({"embeddings", "reference"})

#: What a loss may tell a reducer of each of its values.
TOLD = ("labels", "groups")

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_identifier(name: str) -> bool:
    """Whether ``name`` can be written in a recipe: a Python identifier, and not a keyword."""
    return name.isidentifier() and not keyword.iskeyword(name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """Where a part was published."""

    authors: str
    title: str
    year: int
    arxiv: str = ""
    venue: str = ""

    def __str__(self) -> str:
        where = f"arXiv:{self.arxiv}" if self.arxiv else self.venue
        return f"{self.authors} ({self.year}). {self.title}." + (f" {where}" if where else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Arguments that belong together, under a name, and where they come from."""

    arguments: Mapping[str, Any]
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Defect:
    """What is wrong with a part where one of its arguments is given, and is not what it is by default.

    Parameters
    ----------
    says
        The defect in a sentence, as it would stand in ``defects`` by itself.
    argument
        A parameter of the constructor, or ``miner``, ``reducer`` or ``distance``.
    shows
        The values it shows with, a part by its bare name; without any, every value.
    spares
        Values, besides the default, that it does not show with.
    """

    says: str
    argument: str
    shows: tuple[Any, ...] = ()
    spares: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return self.says

    def shows_with(self, value: Any) -> bool:
        """Whether a value of the argument, of a part its bare name, is one that it shows with."""
        return value in self.shows if self.shows else value not in self.spares


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSpec:
    """What every kind of part says of itself.

    Parameters
    ----------
    name
        Bare name, an identifier; the plugin's namespace is put in front of it.
    target
        Where the class is: ``"package.module:Class"``.
    summary
        One line: what it is.
    family
        A word that groups related parts: ``"margin"``, ``"triplet"`` …
    paper
        Where it was published.
    aliases
        Other names it answers to.
    deprecated
        Former names: they still work, with a warning that gives ``name``.
    deviations
        How it differs from its paper, and why; one sentence each.
    defects
        What is known to be wrong with it, shown by ``show``, and told by ``recipe check`` and whenever it is composed;
        a :class:`Defect` only where it shows.
    presets
        Name → :class:`Preset`; asked for with ``part(preset="name")``.
    needs
        Arguments that the caller's context supplies: ``num_classes``, ``embedding_size``, ``image_size`` …
    requires
        An optional distribution the target imports; empty when there is none.
    order_dependent
        Whether the value depends on the order of the batch.
    random
        Whether it draws random numbers.
    example
        Arguments with which it can be made, as a recipe writes them, where some have no default:
        ``"margin=0.4, temperature=5"``.
    definition
        A slow and plain function that says what it computes, ``"package.module:function"``; the checks of
        :mod:`nearfar.testing` hold the part to it. A miner's takes ``(embeddings, labels, ref_emb, ref_labels)``,
        the last two None for the batch itself, and returns a set of ``(anchor, positive, negative)`` or, of pairs, of
        ``("positive", anchor, other)`` and ``("negative", anchor, other)``; a reducer's takes the list of values, a
        distance's two lists of coordinates, a loss's its inputs in order, and each returns a number. Inputs are
        float64. What else it names it is given: any argument of the part; in a miner's ``distance``, a function of
        two rows that is small for near; in a reducer's ``anchors``, ``labels``, ``groups``, ``weights`` and
        ``normalizer``; in a loss's ``ref_emb``, ``ref_labels`` and whatever parameters and buffers the loss has.
    memory
        The power of the batch size that the peak memory of a call and its backward pass grows with, the number of
        classes as it is: 1, 2, 3 …; of a reducer, of the number of values. None where it does not say.
    synchronizations
        How often a call and its backward pass make the host wait for a GPU; None where it does not say.
    schedulable
        Parameters that it reads from attributes of the same name at each call, so that a recipe may have them move
        with the steps: ``margin=linear(0, 0.5, steps=10000)``.
    unschedulable
        Parameter → why it cannot be moved so, where one would look for it: what a recipe that tries is told.
    expected_failures
        Law of :mod:`nearfar.testing` → why the part does not keep it.
    """

    kind: ClassVar[str] = ""

    name: str
    target: str
    summary: str
    family: str = ""
    paper: Paper | None = None
    aliases: tuple[str, ...] = ()
    deprecated: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    defects: tuple[str | Defect, ...] = ()
    presets: Mapping[str, Preset] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    requires: str = ""
    order_dependent: bool = False
    random: bool = False
    example: str = ""
    definition: str = ""
    memory: int | None = None
    synchronizations: int | None = None
    schedulable: tuple[str, ...] = ()
    unschedulable: Mapping[str, str] = field(default_factory=dict)
    expected_failures: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._freeze()
        for name in (self.name, *self.aliases, *self.deprecated, *self.presets):
            if not is_identifier(name):
                raise RegistrationError(f"{self.kind} {self.name!r}: the name {name!r} is not an identifier")
        if not _TARGET.fullmatch(self.target):
            raise RegistrationError(
                f"{self.kind} {self.name!r}: the target {self.target!r} is not of the form 'package.module:Class'"
            )
        for field_name in ("definition", "sample"):
            function = getattr(self, field_name, "")
            if function and not _TARGET.fullmatch(function):
                raise RegistrationError(
                    f"{self.kind} {self.name!r}: the {field_name} {function!r} is not of the form "
                    "'package.module:function'"
                )
        if not self.summary:
            raise RegistrationError(f"{self.kind} {self.name!r}: the summary is empty; say in one line what it is")

    def _freeze(self) -> None:
        """Make lists tuples and mappings read-only, so that equal specs stay equal."""
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, list):
                object.__setattr__(self, f.name, tuple(value))
            elif isinstance(value, dict):
                object.__setattr__(self, f.name, MappingProxyType(dict(value)))
            elif f.type.startswith("tuple[str") and not isinstance(value, tuple):  # a bare string, most often
                raise RegistrationError(
                    f"{self.kind} {self.name!r}: {f.name} must be a tuple of names, not {value!r}; "
                    f"write ({value!r},) for one"
                )
            elif f.type == "str" and not isinstance(value, str):
                raise RegistrationError(
                    f"{self.kind} {self.name!r}: {f.name} must be a text, not {value!r}; "
                    "leave it out where there is none"
                )

    def _among(self, what: str, values: tuple[str, ...], known: frozenset[str]) -> None:
        for value in values:
            if value not in known:
                raise RegistrationError(
                    f"{self.kind} {self.name!r}: {what} has {value!r}; known are {', '.join(sorted(known))}"
                )

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-serialisable data, ``kind`` first."""
        return {"kind": self.kind} | {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSpec(PartSpec):
    """A loss.

    Parameters
    ----------
    inputs
        The tensors it is called with, in order. ``("embeddings", "labels")`` makes it an embedding loss,
        called as pytorch-metric-learning's are. So is one that needs ``("embeddings",)`` alone: it takes labels, which
        may be None, all the same.
    optional_inputs
        What it takes besides, by name, and does without: weights, a normaliser, groups. A criterion hands them on.
    accepts
        What a miner may hand it: any of ``pairs``, ``triplets``, ``weights``, ``matches``; empty: none of these.
    emits
        What it hands to a reducer, in pytorch-metric-learning's words: ``element``, ``pos_pair``,
        ``neg_pair``, ``triplet``; ``already_reduced`` alone means that no reducer is asked.
    reference
        Whether it takes a reference set (``ref_emb``, ``ref_labels``).
    graded
        Whether labels may grade how relevant one sample is to another, rather than tell positives from negatives.
    distances
        The distances it can work on: ``("*",)`` any, empty: it takes none.
    default_distance, default_reducer
        Full names (``core.euclidean``) of what it works with unless told otherwise.
    uses_norm
        Whether the value depends on the length of the embeddings.
    thresholds
        Parameters that are compared with a distance itself rather than with a difference of two:
        name → ``"positive"`` (positive pairs cost beyond it) or ``"negative"`` (negative pairs cost within it).
    wraps
        Shell patterns of the full names of the losses it can take as an argument.
    asks
        What it asks of the losses it takes, told by their specs: ``embeddings``, that they are on embeddings;
        ``reference``, that they take a reference set.
    sample
        A function ``(n, seed) -> tuple of tensors`` that makes inputs for checks, ``"package.module:function"``,
        where the inputs are none that :mod:`nearfar.testing` knows: ``n`` rows or so, floating ones in float64, drawn
        from a generator that starts from ``seed``.
    optimum
        Its value, with a gradient of zero, where the input is perfect: each class in one point and the classes
        orthogonal, or predictions equal to their targets. None where no such input is its optimum.
    detached
        Why its gradient is not that of its value: what is held constant on purpose. Empty where nothing is.
    collapses
        Why embeddings that are all the same cost no more than perfect clusters, so that it needs another loss beside
        it. Empty where they cost more.
    invariances
        Of a loss on boxes: what leaves its value as it is when it happens to all boxes, any of ``translation``,
        ``scale``, ``flip``.
    separates
        Of a loss on boxes: whether it goes on growing as boxes that share nothing move apart.
    learning_rate
        How many times the network's learning rate what it learns wants, where nothing else is said: above 1 for
        proxies, which move far while the network is tuned.
    """

    kind: ClassVar[str] = "loss"

    inputs: tuple[str, ...] = ("embeddings", "labels")
    optional_inputs: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ()
    emits: tuple[str, ...] = ("element",)
    reference: bool = False
    graded: bool = False
    distances: tuple[str, ...] = ()
    default_distance: str = ""
    default_reducer: str = "core.mean"
    uses_norm: bool = False
    thresholds: Mapping[str, str] = field(default_factory=dict)
    wraps: tuple[str, ...] = ("*",)
    asks: tuple[str, ...] = ()
    sample: str = ""
    optimum: float | None = None
    detached: str = ""
    collapses: str = ""
    invariances: tuple[str, ...] = ()
    separates: bool = False
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        # Not super(): dataclass(slots=True) makes a new class, which zero-argument super() does not see.
        PartSpec.__post_init__(self)
        self._among("accepts", self.accepts, SELECTION_KINDS)
        self._among("emits", self.emits, TERM_KINDS)
        self._among("invariances", self.invariances, INVARIANCES)
        if not 0 < self.learning_rate < math.inf:
            raise RegistrationError(
                f"loss {self.name!r}: learning_rate is {self.learning_rate!r}; it is a factor above 0"
            )
        self._among("asks", self.asks, ASKED)
        if not self.inputs:
            raise RegistrationError(f"loss {self.name!r}: inputs is empty; name the tensors it is called with")
        for name in self.optional_inputs:
            if name in (*self.inputs, *EMBEDDING_INPUTS):
                raise RegistrationError(f"loss {self.name!r}: {name!r} is an input already, and not an optional one")

    @property
    def on_embeddings(self) -> bool:
        """Whether it is called as ``loss(embeddings, labels, …)``: it names nothing that this call does not have."""
        return self.inputs[0] == "embeddings" and {*self.inputs} <= {"embeddings", "labels", "ref_emb", "ref_labels"}

    @property
    def reducible(self) -> bool:
        """Whether it asks its reducer at all."""
        return self.emits != ("already_reduced",)

    @property
    def tells(self) -> tuple[str, ...]:
        """What a reducer can know of each value: ``labels``, its class, or ``groups``, if an input brings them.

        An input does that is called so, or ends so: ``box_groups``. References' labels are of no value's anchor.
        """
        known = [name for name in (*self.inputs, *self.optional_inputs) if name != "ref_labels"]
        return tuple(told for told in TOLD if any(name == told or name.endswith(f"_{told}") for name in known))


@dataclass(frozen=True, kw_only=True, slots=True)
class MinerSpec(PartSpec):
    """A miner.

    Parameters
    ----------
    produces
        What it hands on: ``pairs`` or ``triplets`` of embeddings, ``weights``; ``matches`` of predicted and target
        boxes; or ``elements``, those of a loss's terms that count.
    inputs
        What it is called with; ``("embeddings", "labels")`` of a miner of pairs or triplets.
    optional_inputs
        What else it may be called with, by name.
    reduces
        Of a miner of elements: the kinds of terms that it chooses among.
    reference
        Whether it takes a reference set (``ref_emb``, ``ref_labels``).
    distances
        The distances it can work on: ``("*",)`` any, empty: it takes none.
    default_distance
        Full name of what it works with unless told otherwise.
    thresholds
        As of a loss.
    borrows
        Parameters that, where they are None, are those of the loss it selects for.
    """

    kind: ClassVar[str] = "miner"

    produces: str
    inputs: tuple[str, ...] = ("embeddings", "labels")
    optional_inputs: tuple[str, ...] = ()
    reduces: tuple[str, ...] = ("element", "pos_pair", "neg_pair", "triplet")
    reference: bool = True
    distances: tuple[str, ...] = ()
    default_distance: str = ""
    thresholds: Mapping[str, str] = field(default_factory=dict)
    borrows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        PartSpec.__post_init__(self)
        self._among("reduces", self.reduces, TERM_KINDS)
        self._among("produces", (self.produces,), PRODUCTS)

    @property
    def on_embeddings(self) -> bool:
        """Whether it selects among embeddings."""
        return self.produces not in ("matches", "elements")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReducerSpec(PartSpec):
    """A reducer.

    Parameters
    ----------
    reduces
        Which kinds of terms it takes.
    keeps
        Whether it leaves the terms as they are.
    asks
        What it has to know of each value beside the value: ``labels``, its class, or ``groups``, its group; of several
        any one will do. A loss that tells none of them is refused.
    """

    kind: ClassVar[str] = "reducer"

    reduces: tuple[str, ...] = ("element", "pos_pair", "neg_pair", "triplet")
    keeps: bool = False
    asks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        PartSpec.__post_init__(self)
        self._among("reduces", self.reduces, TERM_KINDS)
        self._among("asks", self.asks, frozenset(TOLD))


@dataclass(frozen=True, kw_only=True, slots=True)
class DistanceSpec(PartSpec):
    """A distance, or a similarity (larger is nearer).

    Parameters
    ----------
    on
        What it is between: ``embeddings``; ``boxes``, four numbers each; or ``rotated_boxes``, five with the angle.
    similarity
        Whether larger is nearer.
    range
        The least and greatest value it can take, as it is set up by default.
    metric
        Whether it obeys the triangle inequality.
    symmetric
        Whether the distance of x to y is always that of y to x.
    """

    kind: ClassVar[str] = "distance"

    on: str = "embeddings"
    similarity: bool = False
    range: tuple[float, float] = (0.0, float("inf"))
    metric: bool = False
    symmetric: bool = True

    def __post_init__(self) -> None:
        PartSpec.__post_init__(self)
        self._among("on", (self.on,), COMPARED)

    @property
    def nearest(self) -> float:
        """The value of two equal embeddings, or boxes."""
        return self.range[1] if self.similarity else self.range[0]


#: Kind → spec class, in the order in which they are listed.
KINDS: Mapping[str, type[PartSpec]] = MappingProxyType(
    {spec.kind: spec for spec in (LossSpec, MinerSpec, ReducerSpec, DistanceSpec)}
)
