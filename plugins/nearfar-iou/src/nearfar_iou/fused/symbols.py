"""Numbers that write down what is done to them, a line an operation, each operation once."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["Mathematics", "Program", "Symbol", "greater", "less", "select"]

#: Of 1 / k!, as many as e**x − 1 needs to the last digit of a float64 for |x| < 1/2.
TERMS = 16


class Program:
    """The lines written so far, and what each of them is called."""

    def __init__(self, *, double: bool) -> None:
        self.double = double
        self.lines: list[str] = []
        self._names: dict[str, str] = {}

    def symbol(self, expression: str) -> Symbol:
        """What an expression is called; it is written down unless it was before."""
        name = self._names.get(expression)
        if name is None:
            name = self._names[expression] = f"v{len(self._names)}"
            self.lines.append(f"{name} = {expression}")
        return Symbol(self, name)

    def known(self, number: float) -> Symbol:
        """A number that is known as the kernel is written."""
        return Symbol(self, repr(float(number)), float(number))

    def real(self, number: Any) -> Symbol:
        """As :class:`numpy.float32` is called: a number, or a symbol as it is."""
        return number if isinstance(number, Symbol) else self.known(number)


class Symbol:
    """A number, or whether something holds; ``value`` where it is known as the kernel is written."""

    __slots__ = ("name", "program", "value")

    def __init__(self, program: Program, name: str, value: float | None = None) -> None:
        self.program, self.name, self.value = program, name, value

    def _with(self, operator: str, other: Symbol) -> Symbol:
        return self.program.symbol(f"{self.name} {operator} {other.name}")

    # Only the sign of a zero may differ from what is written, as in the compiled tier.

    def __add__(self, other: Symbol) -> Symbol:
        if self.value is not None and other.value is not None:
            return self.program.known(self.value + other.value)
        if self.value == 0:
            return other
        return self if other.value == 0 else self._with("+", other)

    def __sub__(self, other: Symbol) -> Symbol:
        if self.value is not None and other.value is not None:
            return self.program.known(self.value - other.value)
        if self.value == 0:
            return -other
        return self if other.value == 0 else self._with("-", other)

    def __mul__(self, other: Symbol) -> Symbol:
        for one, rest in ((self, other), (other, self)):
            if one.value == 0:
                return self.program.known(0)
            if one.value == 1:
                return rest
            if one.value == -1:
                return -rest
        if self.value is not None and other.value is not None:
            return self.program.known(self.value * other.value)
        return self._with("*", other)

    def __truediv__(self, other: Symbol) -> Symbol:
        if self.value == 0 or other.value == 1:
            return self
        if self.value is not None and other.value is not None:
            return self.program.known(self.value / other.value)
        if self.program.double:
            return self._with("/", other)
        # A plain division of float32 is an approximate one on a GPU.
        return self.program.symbol(f"tl.div_rn({self._full()}, {other._full()})")

    def __pow__(self, power: Symbol) -> Symbol:
        program = self.program
        if power.value is not None and power.value == int(power.value) and 0 <= power.value <= 8:
            product = program.known(1)
            for _ in range(int(power.value)):
                product = product * self
            return product
        zero, one = program.known(0), program.known(1)
        base = select(self > zero, self, one)
        found = program.symbol(f"tl.exp2({(program.symbol(f'tl.log2({base._full()})') * power).name})")
        result: Symbol = select(self > zero, found, select(power > zero, zero, one))
        return result

    def __neg__(self) -> Symbol:
        return self.program.symbol(f"-{self.name}") if self.value is None else self.program.known(-self.value)

    def __abs__(self) -> Symbol:
        if self.value is not None:
            return self.program.known(abs(self.value))
        return self.program.symbol(f"tl.abs({self.name})")

    def __gt__(self, other: Symbol) -> Any:
        return self._compared(">", other)

    def __ge__(self, other: Symbol) -> Any:
        return self._compared(">=", other)

    def __lt__(self, other: Symbol) -> Any:
        return self._compared("<", other)

    def __le__(self, other: Symbol) -> Any:
        return self._compared("<=", other)

    def __eq__(self, other: object) -> Any:
        return self._compared("==", other)

    def __and__(self, other: Symbol) -> Symbol:
        return self._with("&", other)

    def __or__(self, other: Symbol) -> Symbol:
        return self._with("|", other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError("a formula asks about a number that is not known yet; it must be written without branches")

    def _compared(self, operator: str, other: Any) -> Any:
        if self.value is not None and other.value is not None:
            return {">": self.value > other.value, ">=": self.value >= other.value, "<": self.value < other.value,
                    "<=": self.value <= other.value, "==": self.value == other.value}[operator]  # fmt: skip
        return self._with(operator, other)

    def _full(self) -> str:
        """As an argument of what takes no plain number."""
        return self.name if self.value is None else f"({self.name} + zeros)"


def select(condition: Any, yes: Any, no: Any) -> Any:
    """``yes if condition else no``, of symbols or tuples of them."""
    if isinstance(condition, bool):
        return yes if condition else no
    if isinstance(yes, tuple):
        return tuple(select(condition, *each) for each in zip(yes, no, strict=True))
    return condition.program.symbol(f"tl.where({condition.name}, {yes.name}, {no.name})")


def less(one: Symbol, other: Symbol) -> Any:
    """As :func:`min`."""
    return select(other < one, other, one)


def greater(one: Symbol, other: Symbol) -> Any:
    """As :func:`max`."""
    return select(other > one, other, one)


class Mathematics:
    """What formulas take from numpy."""

    pi = math.pi

    @staticmethod
    def sqrt(x: Symbol) -> Symbol:
        return x.program.symbol(f"tl.sqrt({x.name})" if x.program.double else f"tl.sqrt_rn({x.name})")

    @staticmethod
    def exp(x: Symbol) -> Symbol:
        return x.program.symbol(f"tl.exp({x.name})")

    @staticmethod
    def log(x: Symbol) -> Symbol:
        return x.program.symbol(f"tl.log({x.name})")

    @staticmethod
    def expm1(x: Symbol) -> Symbol:
        """By its series near 0, where e**x has lost what it is asked for."""
        known = x.program.known
        series = known(1 / math.factorial(TERMS))
        for k in range(TERMS - 1, 0, -1):
            series = series * x + known(1 / math.factorial(k))
        return select(abs(x) < known(0.5), series * x, Mathematics.exp(x) - known(1))  # type: ignore[no-any-return]
