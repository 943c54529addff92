"""The parameters of a part, read from its source without importing it.

The constructor's signature and numpy docstring are the only place where parameters, defaults, units and
ranges are written. A description may open with a bracket that says unit and range::

    margin : float
        [radians, 0..pi/2] Additive angular margin.
    temperature : float
        (0..inf] What similarities are divided by; a round bracket leaves its end out.

A unit is words: ``radians``, ``degrees``, ``units of the distance``. A parameter that a class does not describe is
described as in its bases. A constructor that passes ``**kwargs`` up takes the parameters of its bases too. A target
that cannot be read as source is imported and inspected.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nearfar.errors import ArgumentError
from nearfar.source import find_class, text_of

if TYPE_CHECKING:
    import griffe

__all__ = ["REQUIRED", "Parameter", "Signature", "read_class", "read_target"]


class _Required:
    def __repr__(self) -> str:
        return "required"


#: The default of a parameter that has none.
REQUIRED = _Required()


@dataclass(frozen=True, slots=True)
class Source:
    """A default that is an expression rather than a literal, as it is written."""

    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a constructor.

    Attributes
    ----------
    name, default, annotation, description
        As written; ``default`` is :data:`REQUIRED` where there is none.
    unit, low, high
        What the bracket that opens the description says: ``""`` and None where it says nothing.
    low_open, high_open
        Whether that end of the range is left out of it.
    keyword_only, variadic
        Whether it must be given by name; whether it is ``*args``.
    """

    name: str
    default: Any = REQUIRED
    annotation: str = ""
    description: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    keyword_only: bool = False
    variadic: bool = False

    @property
    def required(self) -> bool:
        return self.default is REQUIRED and not self.variadic

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a ``Literal[...]`` in the annotation; empty where there is none."""
        try:
            nodes = list(ast.walk(ast.parse(self.annotation, mode="eval")))
        except SyntaxError:
            return ()
        literals = [n for n in nodes if isinstance(n, ast.Subscript) and ast.unparse(n.value).endswith("Literal")]
        try:
            found = [ast.literal_eval(literal.slice) for literal in literals]
        except ValueError:  # a name that stands for values
            return ()
        return tuple(value for each in found for value in (each if isinstance(each, tuple) else (each,)))

    @property
    def range(self) -> str:
        """The range in words, ``0..inf without 0``; empty where there is none."""
        if self.low is None or self.high is None:
            return ""
        left_out = [f"{end:.4g}" for end, out in ((self.low, self.low_open), (self.high, self.high_open)) if out]
        return f"{self.low:.4g}..{self.high:.4g}" + (f" without {' and '.join(left_out)}" if left_out else "")

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range; any does where there is none."""
        if self.low is None or self.high is None:
            return True
        above = self.low < value if self.low_open else self.low <= value
        return above and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.name}{unit}" if self.default is REQUIRED else f"{self.name}{unit} = {self.default!r}"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a part's constructor takes, and what its docstring says.

    ``open`` marks a constructor whose ``**kwargs`` cannot be followed: it may take more than is listed. ``strangers``
    are names that the docstring describes as parameters and that are none.
    """

    parameters: tuple[Parameter, ...]
    docstring: str = ""
    open: bool = False
    strangers: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return any(parameter.name == name for parameter in self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def bind(self, part: str, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name; those of ``*args`` under its own name, as a tuple.

        Raises
        ------
        ArgumentError
            A parameter is unknown or given twice, or there are too many arguments. What is missing is
            :meth:`missing`'s business: the context may still supply it.
        """
        bound: dict[str, Any] = {}
        slots = [p for p in self.parameters if not p.keyword_only and not p.variadic]
        rest = next((p for p in self.parameters if p.variadic), None)
        for parameter, value in zip(slots, positional, strict=False):
            bound[parameter.name] = value
        if surplus := tuple(positional[len(slots) :]):
            if rest is None:
                raise ArgumentError(
                    f"{part} takes at most {len(slots)} arguments without a name, not {len(positional)}; "
                    f"{self.takes(part)}"
                )
            bound[rest.name] = surplus
        for name, value in named.items():
            if name in bound:
                raise ArgumentError(f"{part} got {name!r} twice, once without a name and once by it")
            if name not in self and not self.open:
                raise ArgumentError(self.unknown(part, name))
            bound[name] = value
        return bound

    def missing(self, bound: Mapping[str, Any]) -> list[str]:
        """Required parameters that ``bound`` lacks."""
        return [p.name for p in self.parameters if p.required and p.name not in bound]

    def unknown(self, part: str, name: str) -> str:
        """What to say when ``part`` has no parameter ``name``."""
        close = difflib.get_close_matches(name, [p.name for p in self.parameters], n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"no parameter {name!r}; {hint}{self.takes(part)}"

    def takes(self, part: str) -> str:
        """``arcface takes margin (radians) = 0.5, scale = 64``."""
        listed = ", ".join(str(p) for p in self.parameters if not p.variadic)
        return f"{part} takes {listed}" if listed else f"{part} takes no arguments"


@functools.cache
def read_target(target: str) -> Signature:
    """The signature of ``"package.module:Class"``, from its source where that can be read.

    Raises
    ------
    ArgumentError
        The target can be neither read nor imported.
    """
    module, _, name = target.partition(":")
    found = find_class(module, name)
    if found is not None and (signature := _static(found)) is not None:
        return signature
    try:
        return read_class(getattr(importlib.import_module(module), name))
    except Exception as error:  # whatever a third party's import raises
        raise ArgumentError(f"the target {target!r} cannot be read: {type(error).__name__}: {error}") from error


def read_class(cls: Any) -> Signature:
    """The signature of a class that is at hand."""
    parameters: dict[str, Parameter] = {}
    pinned: set[str] = set()
    documented: list[Mapping[str, str]] = []
    is_open, takes_more, travels = False, True, False
    for base in inspect.getmro(cls) if inspect.isclass(cls) else (cls,):
        if base is object or _is_torch(getattr(base, "__module__", "")):
            break
        documented.append(_documented(inspect.cleandoc(base.__doc__ or "")))
        init = base.__dict__.get("__init__") if inspect.isclass(base) else base
        if init is None or not takes_more:
            continue
        own = [p for n, p in enumerate(inspect.signature(init).parameters.values()) if n or not inspect.isclass(base)]
        for p in own:
            if p.kind is not p.VAR_KEYWORD and p.name not in pinned:
                parameters.setdefault(p.name, _live_parameter(p, travels))
        travels = True
        takes_more = any(p.kind is p.VAR_KEYWORD for p in own)
        is_open = takes_more and not inspect.isclass(base)
        with contextlib.suppress(OSError, TypeError):
            pinned |= _pinned(inspect.getsource(base)) if takes_more else set()
    return _signature(parameters, documented, inspect.getdoc(cls) or "", is_open)


def _live_parameter(p: inspect.Parameter, travels: bool) -> Parameter:
    annotation = p.annotation if isinstance(p.annotation, str) else inspect.formatannotation(p.annotation)
    return Parameter(
        p.name,
        REQUIRED if p.default is p.empty else p.default,
        "" if p.annotation is p.empty else annotation,
        # What travels up through **kwargs has to be named.
        keyword_only=(travels and p.kind is not p.VAR_POSITIONAL) or p.kind is p.KEYWORD_ONLY,
        variadic=p.kind is p.VAR_POSITIONAL,
    )


def _static(cls: griffe.Class) -> Signature | None:
    """Walk the bases until a constructor takes no ``**kwargs``; None where the walk leaves what can be read."""
    parameters: dict[str, Parameter] = {}
    pinned: set[str] = set()
    documented: list[Mapping[str, str]] = []
    # Bases, and whether arguments still reach them: of the others the descriptions alone are read.
    queue, seen, travels = [(cls, True)], set(), False
    while queue:
        current, reached = queue.pop(0)
        if (current.path, reached) in seen:
            continue
        seen.add((current.path, reached))
        documented.append(_documented(inspect.cleandoc(current.docstring.value) if current.docstring else ""))
        init = current.members.get("__init__")
        goes_on = reached
        if init is not None and reached:
            if not init.is_function:  # made elsewhere and assigned
                return None
            own = list(init.parameters)[1:]  # type: ignore[union-attr]  # a function has them
            for p in own:
                if p.kind is not None and p.kind.name != "var_keyword" and p.name not in pinned:
                    parameters.setdefault(p.name, _parameter(p, travels))
            travels = True
            goes_on = any(p.kind is not None and p.kind.name == "var_keyword" for p in own)
            pinned |= _pinned(text_of(current))
        for base in current.bases:
            path = base if isinstance(base, str) else base.canonical_path
            if path in ("object", "ABC", "abc.ABC") or _is_torch(path) or path.startswith("typing."):
                continue
            module, _, name = path.rpartition(".")
            found = find_class(module, name) if module else None
            if found is not None:
                # A mixin beside it may still be reached by **kwargs of another base.
                queue.append((found, goes_on))
            elif goes_on:
                return None
    return _signature(parameters, documented, inspect.cleandoc(cls.docstring.value) if cls.docstring else "")


def _signature(
    parameters: Mapping[str, Parameter],
    documented: Sequence[Mapping[str, str]],
    docstring: str,
    is_open: bool = False,
) -> Signature:
    """Parameters with what the nearest of the classes, the first being their own, says of each."""
    described = tuple(
        _described(p, next((each[p.name] for each in documented if p.name in each), "")) for p in parameters.values()
    )
    own = documented[0] if documented else {}
    strangers = () if is_open else tuple(name for name in own if name not in parameters)
    return Signature(described, docstring, is_open, strangers)


def _pinned(source: str) -> set[str]:
    """The keywords a constructor gives ``super().__init__`` itself, so that its callers cannot."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return set()
    nodes = list(ast.walk(tree))
    # One that is taken out of **kwargs by its name first, kwargs["num_classes"], is still the caller's to give.
    taken = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {
        keyword.arg
        for call in nodes
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__"
        for keyword in call.keywords
        if keyword.arg is not None and keyword.arg not in taken
    }


def _is_torch(path: str) -> bool:
    return path.split(".")[0] == "torch"


def _parameter(p: griffe.Parameter, travels: bool) -> Parameter:
    assert p.kind is not None
    variadic = p.kind.name == "var_positional"
    default: Any = REQUIRED
    if p.default is not None and not variadic:
        text = str(p.default)
        try:
            default = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            default = Source(text)
    return Parameter(
        p.name,
        default,
        "" if p.annotation is None else str(p.annotation),
        # What travels up through **kwargs has to be named.
        keyword_only=(travels and not variadic) or p.kind.name == "keyword_only",
        variadic=variadic,
    )


# ---- docstrings

_BRACKET = re.compile(r"([\[(])([^\])]*)([\])])\s*", re.DOTALL)
_UNIT = re.compile(r"[^\W\d_]+([ /²³-]+[^\W\d_]+)*[²³%°]?|[%°]")


@functools.lru_cache(maxsize=1024)
def _documented(docstring: str) -> Mapping[str, str]:
    """Descriptions of the parameters in a numpy docstring."""
    if "Parameters\n" not in docstring:
        return {}
    import griffe

    text = inspect.cleandoc(docstring)
    sections = griffe.parse_numpy(griffe.Docstring(text), warnings=False)
    return {
        name.strip().lstrip("*"): textwrap.dedent(parameter.description)
        for section in sections
        if section.kind.value == "parameters"
        for parameter in section.value
        for name in parameter.name.split(",")
    }


def _described(parameter: Parameter, description: str) -> Parameter:
    text = " ".join(description.split())
    found = _BRACKET.match(text)
    read = _bracket(found.group(2)) if found else None
    # A round bracket is a range or it is prose.
    if not found or read is None or (read[1] is None and found.group(1) + found.group(3) != "[]"):
        return replace(parameter, description=text)
    unit, low, high = read
    return replace(
        parameter,
        description=text[found.end() :],
        unit=unit,
        low=low,
        high=high,
        low_open=found.group(1) == "(",
        high_open=found.group(3) == ")",
    )


def _bracket(text: str) -> tuple[str, float | None, float | None] | None:
    """Unit and range of ``radians, 0..pi``, of ``radians`` or of ``0..pi``; None for anything else."""
    head, _, tail = text.rpartition(",")
    ends = tail.split("..")
    if len(ends) != 2:
        return (text.strip(), None, None) if _UNIT.fullmatch(text.strip()) else None
    numbers = [_number(end) for end in ends]
    if None in numbers or (head.strip() and not _UNIT.fullmatch(head.strip())):
        return None
    return head.strip(), numbers[0], numbers[1]


def _number(text: str) -> float | None:
    """A number, ``inf``, ``pi`` or a quotient or product of such; None for anything else."""
    value = 1.0
    for position, piece in enumerate(re.split(r"([*/])", text.replace("π", "pi").replace("∞", "inf").replace(" ", ""))):
        if position % 2:
            operator = piece
            continue
        sign = -1.0 if piece.startswith("-") else 1.0
        bare = piece.lstrip("-+")
        try:
            factor = sign * (math.pi if bare == "pi" else float(bare))
        except ValueError:
            return None
        value = value * factor if position == 0 or operator == "*" else value / factor
    return value
