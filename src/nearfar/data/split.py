"""Class-disjoint splits: no class of one part occurs in another, as retrieval of unseen classes asks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from nearfar.data.source import ClassSubset, ImageSource
from nearfar.errors import ArgumentError, DataError

#: The shares of the embedded data set; half of the classes for the test, as is usual in the field.
FRACTIONS: Mapping[str, float] = {"train": 0.4, "validation": 0.1, "test": 0.5}

_LEAST = 2  # with one class, every image is a right answer


def split_classes(
    source: ImageSource, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> dict[str, ClassSubset]:
    """Divide the classes of a source among splits.

    Parameters
    ----------
    source : ImageSource
        What to divide.
    fractions : mapping of str to float
        The share of the classes each split gets; they add up to 1. Each split gets two classes at least.
    seed : int
        Another seed, another division. It goes by the names of the classes, not by their numbers.

    Returns
    -------
    dict of str to ClassSubset
        The splits, in the order of ``fractions``.

    Raises
    ------
    DataError
        There are fewer than two classes a split.
    ArgumentError
        A fraction is not positive, or they do not add up to 1.
    """
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ArgumentError(f"fractions are {dict(fractions)}: give positive numbers that add up to 1")
    if source.num_classes < _LEAST * len(fractions):
        raise DataError(
            f"{source.num_classes} classes cannot be divided into {', '.join(fractions)}: each needs at least "
            f"{_LEAST} classes, {_LEAST * len(fractions)} in all"
        )
    sizes = dict.fromkeys(fractions, _LEAST)
    for _ in range(source.num_classes - _LEAST * len(fractions)):
        shortest = max(fractions, key=lambda name: fractions[name] * source.num_classes - sizes[name])
        sizes[shortest] += 1

    def place(number: int) -> bytes:
        return hashlib.sha256(f"{seed}/{source.class_names[number]}".encode()).digest()

    order = sorted(range(source.num_classes), key=place)
    splits: dict[str, ClassSubset] = {}
    first = 0
    for name, size in sizes.items():
        splits[name] = ClassSubset(source, sorted(order[first : first + size]))
        first += size
    return splits


def fold_classes(source: ImageSource, folds: int, seed: int = 0) -> list[tuple[ClassSubset, ClassSubset]]:
    """Divide the classes of a source for cross-validation.

    Parameters
    ----------
    source : ImageSource
        What to divide.
    folds : int
        [2..inf] How many parts of equal size, to one class; each has two classes at least.
    seed : int
        Another seed, another division. It goes by the names of the classes, not by their numbers.

    Returns
    -------
    list of (ClassSubset, ClassSubset)
        For each part: all others, to train on, and itself, to validate on.

    Raises
    ------
    DataError
        There are fewer than two classes a part.
    """
    names = [f"fold {number + 1}" for number in range(folds)]
    parts = [set(part.class_names) for part in split_classes(source, dict.fromkeys(names, 1 / folds), seed).values()]
    numbers = range(source.num_classes)
    return [
        (
            ClassSubset(source, [number for number in numbers if source.class_names[number] not in part]),
            ClassSubset(source, [number for number in numbers if source.class_names[number] in part]),
        )
        for part in parts
    ]
