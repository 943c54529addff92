"""What is asked of all numbers of a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar_pair.compiled.loops.scalars import exact, f32, f64, i32, size, summing

__all__ = [
    "BLOCK",
    "GROUP",
    "first_least",
    "greatest_of",
    "inner",
    "least_of",
    "nans",
    "square_of",
    "sum_of",
    "unbounded",
]

#: So many of a row are looked over for what there is seldom, before one is.
GROUP = 64
#: So many are added up in float32.
BLOCK = 4096


@summing
def sum_of(x: Any, last: Any) -> Any:
    """The sum of a row up to some place, in float64 from block to block."""
    total = f64(0)
    for start in range(size(0), size(last), size(BLOCK)):
        part = f32(0)
        for j in range(start, min(start + size(BLOCK), size(last))):
            part += x[j]
        total += part
    return total


@exact
def unbounded(d: Any) -> Any:
    """How many numbers of a row are infinite, or none."""
    found = i32(0)
    for j in range(size(d.shape[0])):
        found += i32(1) if d[j] - d[j] != f32(0) else i32(0)
    return found


@summing
def inner(x: Any, y: Any) -> Any:
    total = f32(0)
    for k in range(size(x.shape[0])):
        total += x[k] * y[k]
    return total


@summing
def square_of(x: Any) -> Any:
    total = f32(0)
    for k in range(size(x.shape[0])):
        total += x[k] * x[k]
    return total


@exact
def nans(d: Any) -> Any:
    found = i32(0)
    for j in range(size(d.shape[0])):
        found += i32(1) if d[j] != d[j] else i32(0)
    return found


@exact
def greatest_of(x: Any, lanes: Any) -> Any:
    """The greatest of a row without NaN, of as many numbers at a time as there are lanes."""
    m = size(x.shape[0])
    whole = m - m % size(16)
    for t in range(size(16)):
        lanes[t] = f32(-np.inf)
    for start in range(size(0), whole, size(16)):
        for t in range(size(16)):
            lanes[t] = x[start + t] if x[start + t] > lanes[t] else lanes[t]
    greatest = f32(-np.inf)
    for t in range(size(16)):
        greatest = max(greatest, lanes[t])
    for j in range(whole, m):
        greatest = max(greatest, x[j])
    return greatest


@exact
def least_of(x: Any, lanes: Any) -> Any:
    """The least of a row without NaN, of as many numbers at a time as there are lanes."""
    m = size(x.shape[0])
    whole = m - m % size(16)
    for t in range(size(16)):
        lanes[t] = f32(np.inf)
    for start in range(size(0), whole, size(16)):
        for t in range(size(16)):
            lanes[t] = x[start + t] if x[start + t] < lanes[t] else lanes[t]
    least = f32(np.inf)
    for t in range(size(16)):
        least = min(least, lanes[t])
    for j in range(whole, m):
        least = min(least, x[j])
    return least


@exact
def first_least(d: Any, lanes: Any) -> Any:
    """Where the least of a row is, the first of equals; what is no number is least."""
    m = size(d.shape[0])
    if nans(d):
        for j in range(m):
            if d[j] != d[j]:
                return j
    # As many numbers at a time as ``lanes`` are: the least of one row alone is no loop over registers.
    for t in range(size(16)):
        lanes[t] = f32(np.inf)
    whole = m - m % size(16)
    for start in range(size(0), whole, size(16)):
        for t in range(size(16)):
            lanes[t] = d[start + t] if d[start + t] < lanes[t] else lanes[t]
    least = f32(np.inf)
    for t in range(size(16)):
        least = min(least, lanes[t])
    for j in range(whole, m):
        least = min(least, d[j])
    for start in range(size(0), m, size(GROUP)):
        stop = min(start + size(GROUP), m)
        hits = i32(0)
        for j in range(start, stop):
            hits += i32(1) if d[j] == least else i32(0)
        if hits:
            for j in range(start, stop):
                if d[j] == least:
                    return j
    return size(0)
