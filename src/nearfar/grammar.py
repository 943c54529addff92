"""The language of recipes: parts with arguments, terms with weights, and how both are written.

The string is a Python expression, read by :mod:`ast` against this grammar and never evaluated::

    recipe    ::=  term ("+" term)*
    term      ::=  [(number | schedule) "*"] part
    part      ::=  name | name "(" [argument ("," argument)*] ")"
    name      ::=  identifier ["." identifier]
    argument  ::=  [identifier "="] value
    value     ::=  part | schedule | literal | "[" [value ("," value)*] "]" | "{" [string ":" value ("," …)*] "}"
    schedule  ::=  ("linear" | "cosine" | "step") "(" number "," number "," "steps=" number ["," "after=" number] ")"
    literal   ::=  ["-"] number | string | True | False | None | inf | nan

A schedule stands where a number would, and is kept as a :class:`Part` of its name until it is known what stands there.
``miner=``, ``reducer=`` and ``distance=`` of a term's loss say what it composes with.
"""

from __future__ import annotations

import ast
import contextlib
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nearfar.errors import RecipeError
from nearfar.schedule import Schedule
from nearfar.spec import is_identifier

__all__ = ["SLOTS", "Live", "Part", "Term", "parse_part", "parse_terms", "plain", "walk"]

#: The parts a loss composes with, in the order in which they are written.
SLOTS = ("miner", "reducer", "distance")


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """An object put into a recipe as it is; such a recipe composes but cannot be written down."""

    value: Any

    def __str__(self) -> str:
        return f"<{type(self.value).__name__} object>"


@dataclass(frozen=True, slots=True)
class Part:
    """A part by name, with its arguments.

    ``positional`` and ``named`` hold literals (numbers, strings, booleans, None), lists and string-keyed
    dictionaries of values, further parts, or :class:`Live` objects.
    """

    name: str
    positional: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(is_identifier(piece) for piece in self.name.split(".")) or self.name.count(".") > 1:
            raise RecipeError(f"{self.name!r} is not the name of a part: write name or namespace.name")
        if odd := [name for name in self.named if not is_identifier(name)]:
            raise RecipeError(f"{odd[0]!r} cannot be the name of an argument of {self.name}")
        object.__setattr__(self, "positional", tuple(_canonical(value) for value in self.positional))
        object.__setattr__(self, "named", {name: self._argument(name, value) for name, value in self.named.items()})

    @staticmethod
    def _argument(name: str, value: Any) -> Any:
        # In a slot a bare string is the name of a part rather than a text.
        return parse_part(value) if name in SLOTS and isinstance(value, str) else _canonical(value)

    def __str__(self) -> str:
        arguments = [_write(value) for value in self.positional]
        arguments += [f"{name}={_write(value)}" for name, value in self.named.items()]
        return f"{self.name}({', '.join(arguments)})" if arguments else self.name

    def without_slots(self) -> Part:
        """The part without its miner, reducer and distance."""
        return Part(self.name, self.positional, {n: v for n, v in self.named.items() if n not in SLOTS})


@dataclass(frozen=True, slots=True)
class Term:
    """A weighted loss; its ``miner``, ``reducer`` and ``distance`` are among the loss's named arguments.

    The weight is a number, or a schedule as a part of its name.
    """

    loss: Part | Live
    weight: float | Part | Schedule = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.weight, Schedule):
            object.__setattr__(self, "weight", _canonical(self.weight))
        elif not isinstance(self.weight, Part) and not math.isfinite(self.weight):
            raise RecipeError(f"the weight of {self.loss} is {self.weight}; a weight is a finite number")

    def slot(self, name: str) -> Any:
        """What stands in one of :data:`SLOTS`: a part, a live object, or None."""
        return self.loss.named.get(name) if isinstance(self.loss, Part) else None

    def __str__(self) -> str:
        return str(self.loss) if self.weight == 1 else f"{_write(self.weight)} * {self.loss}"


def parse_part(source: str) -> Part:
    """Read one part: ``"semihard(margin=0.2)"``.

    Raises
    ------
    RecipeError
        It is not one part.
    """
    with _shallow(source):
        value = _Reader(source).value(_expression(source))
    if not isinstance(value, Part):
        raise RecipeError(f"{source!r} is not the name of a part")
    return value


# ---- strings


def parse_terms(source: str) -> tuple[Term, ...]:
    """Read a sum of weighted losses: ``"softmax + 0.003 * center"``.

    Raises
    ------
    RecipeError
        It does not follow the grammar; the message shows where.
    """
    reader = _Reader(source)
    with _shallow(source):
        return tuple(reader.term(node) for node in reader.summands(_expression(source)))


def _expression(source: str) -> ast.expr:
    if not source.strip():
        raise RecipeError("the recipe is empty; write the name of a part")
    try:
        return ast.parse(source.replace("\n", " ").strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        column = getattr(error, "offset", None)
        where = f" at column {column}" if column else ""
        raise RecipeError(f"the recipe {source!r} cannot be read{where}: {getattr(error, 'msg', error)}") from None


@contextlib.contextmanager
def _shallow(source: str) -> Iterator[None]:
    """Where Python's own depth is used up, say of what."""
    try:
        yield
    except (RecursionError, MemoryError):
        raise RecipeError(
            f"the recipe {source[:40]!r} … cannot be read: it is too long, or nested too deeply"
        ) from None


_LITERAL_NAMES = {"inf": math.inf, "nan": math.nan}


class _Reader:
    """Turns the syntax tree of a recipe into parts; everything the grammar does not name is refused."""

    def __init__(self, source: str) -> None:
        self.source = source

    def refuse(self, node: ast.AST, message: str) -> RecipeError:
        text = ast.unparse(node) if isinstance(node, ast.expr) else ""
        return RecipeError(f"in the recipe {self.source!r}: {text!r} {message}")

    def summands(self, node: ast.expr) -> list[ast.expr]:
        last: list[ast.expr] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):  # a sum leans to the left
            last = [*self.summands(node.right), *last]
            node = node.left
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
            raise self.refuse(
                node,
                f"subtracts; a recipe is a sum (for a negative weight write + -0.5 * loss){_without_hyphens(node)}",
            )
        return [node, *last]

    def term(self, node: ast.expr) -> Term:
        weight: float | Part = 1.0
        if isinstance(node, ast.BinOp):
            if not isinstance(node.op, ast.Mult):
                raise self.refuse(node, "is not a term; a term is a loss, or a number times a loss")
            weight, node = self.weight(node), node.right
        value = self.value(node)
        if not isinstance(value, Part):
            raise self.refuse(node, "is not the name of a loss")
        return Term(value, weight)

    def weight(self, product: ast.BinOp) -> float | Part:
        if isinstance(product.left, ast.Call):
            return self.call(product.left)
        number = self.literal(product.left)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise self.refuse(product, "is not a term; the number comes first: 0.5 * loss")
        return float(number)

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.List | ast.Tuple):
            return [self.value(item) for item in node.elts]
        if isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            if not all(isinstance(key, str) for key in keys):
                raise self.refuse(node, "has a key that is not a string")
            return {key: self.value(item) for key, item in zip(keys, node.values, strict=True)}
        if isinstance(node, ast.Name | ast.Attribute) and not (
            isinstance(node, ast.Name) and node.id in _LITERAL_NAMES
        ):
            return Part(self.name(node))
        literal = self.literal(node)
        if literal is _NOT_LITERAL:
            raise self.refuse(node, f"is neither a literal nor a part{_without_hyphens(node)}")
        return literal

    def call(self, node: ast.Call) -> Part:
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.refuse(node, "uses **, which a recipe cannot")
            if keyword.arg in named:
                raise self.refuse(node, f"gives {keyword.arg!r} twice")
            named[keyword.arg] = self.value(keyword.value)
        return Part(self.name(node.func), tuple(self.value(argument) for argument in node.args), named)

    def name(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return f"{node.value.id}.{node.attr}"
        raise self.refuse(node, "is not the name of a part")

    def literal(self, node: ast.expr) -> Any:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self.literal(node.operand)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return -value if isinstance(node.op, ast.USub) else value
            return _NOT_LITERAL
        if isinstance(node, ast.Name) and node.id in _LITERAL_NAMES:
            return _LITERAL_NAMES[node.id]
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool | int | float | str)):
            return node.value
        return _NOT_LITERAL


_NOT_LITERAL = object()


def _without_hyphens(node: ast.expr) -> str:
    """What to write for names that are joined by hyphens, which read as minus signs; nothing for anything else."""
    found = _joined(node)
    return f"; a name has no hyphens: did you mean {found}?" if "_" in found else ""


def _joined(node: ast.expr) -> str:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        left, right = _joined(node.left), _joined(node.right)
        return f"{left}_{right}" if left and right else ""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def _write(value: Any) -> str:
    """A value as the grammar reads it back."""
    if isinstance(value, Part | Live):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_write, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_write(item)}" for key, item in value.items()) + "}"
    return repr(value)


def walk(value: Any) -> Iterable[Any]:
    """A value and everything inside it, parts and their arguments alike."""
    yield value
    if isinstance(value, Part):
        children: Iterable[Any] = (*value.positional, *value.named.values())
    elif isinstance(value, list):
        children = value
    elif isinstance(value, dict):
        children = value.values()
    else:
        return
    for child in children:
        yield from walk(child)


def plain(value: Any) -> Any:
    """A number of numpy's, or of another library's, as Python's own; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _canonical(value: Any) -> Any:
    """A value in the one form all spellings share; what has no such form becomes :class:`Live`."""
    value = plain(value)
    if value is None or isinstance(value, bool | int | float | str | Part | Live):
        return value
    if isinstance(value, Schedule):
        later = {"after": value.after} if value.after else {}
        return Part(value.shape, (value.start, value.end), {"steps": value.steps} | later)
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _canonical(item) for key, item in value.items()}
    return Live(value)
