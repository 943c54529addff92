"""The weights of a criterion's terms."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from nearfar.errors import ArgumentError

__all__ = ["TermWeights"]


class TermWeights(MutableMapping[str, float]):
    """What the value of each term is multiplied with, by the term's name; terms neither come nor go.

    Raises
    ------
    ArgumentError
        A name is no term's, a weight is no finite number, or a term is to be deleted.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)

    def __getitem__(self, name: str) -> float:
        return self._weights[name]

    def __setitem__(self, name: str, weight: Any) -> None:
        if name not in self._weights:
            raise ArgumentError(f"no term is called {name!r}; there are {', '.join(self._weights)}")
        if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not math.isfinite(weight):
            raise ArgumentError(f"the weight of {name} must be a finite number; got {weight!r}")
        self._weights[name] = float(weight)

    def __delitem__(self, name: str) -> None:
        raise ArgumentError(f"a term stays in its criterion; leave {name} out of the sum with a weight of 0")

    def now(self) -> dict[str, float]:
        """A copy, in one step."""
        return self._weights.copy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __repr__(self) -> str:
        return repr(self._weights)
