"""What is near on a similarity, where larger is nearer."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.build import make_part
from nearfar.errors import ArgumentError
from nearfar.grammar import Part
from nearfar.nn.distances import Euclidean
from nearfar.testing.definition import arguments_of
from nearfar.testing.exercise import usual
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.probes import Mirrored
from nearfar.testing.scene import Scene
from nearfar.testing.selections import as_set, difference, malformed, signed_pairs
from nearfar.testing.sorts import every_sort
from nearfar.testing.subject import Subject
from nearfar.testing.values import is_number

_ROLES = ("positive", "negative")
#: How many deviations beyond the average a choice has to be before it is called one of the near or of the far.
_CLEAR = 0.3
_SEEDS = range(8)
#: What distances are taken from to be similarities, the likeliest to leave thresholds in their range first.
_TOPS = (1.0, 2.0)
_ADVICE = "distance.is_inverted says that larger is nearer; smallest_dist, largest_dist and margin heed it"


@law("miner")
def mining_similarity(subject: Subject) -> None:
    """On a similarity, where larger is nearer, a miner selects what it selects on the distance that says the same; one
    that draws, or takes certain distances alone, at least never the near on the one and the far on the other."""
    allowed = {*subject.miner.distances}
    if "*" in allowed:
        compare = _compare_hardness if subject.miner.random else _compare_choices
        compare(subject, {"distance": Euclidean()}, _mirrored(subject))
        return
    names = [n for n in ("core.euclidean", "core.squared_euclidean", "core.cosine", "core.dot") if n in allowed]
    signs = {n: make_part(Part(n), "distance", subject.registry, {}).is_inverted for n in names}
    if len({*signs.values()}) < 2 or subject.miner.thresholds:
        raise NotApplicable("it does not work on a distance and a similarity that could be compared")
    first, second = (next(n for n in names if signs[n] is sign) for sign in (False, True))
    _compare_hardness(subject, {"distance": Part(first)}, {"distance": Part(second)})


def _mirrored(subject: Subject) -> dict[str, Any]:
    """What makes the miner on a similarity that mirrors Euclidean distance, its thresholds mirrored alike."""
    given = arguments_of(subject, {})
    for top in _TOPS:
        thresholds = {n: top - given[n] for n in subject.miner.thresholds if is_number(given.get(n))}
        arguments: dict[str, Any] = thresholds | {"distance": Mirrored(Euclidean(), top)}
        with contextlib.suppress(ArgumentError):  # beyond the range of a threshold
            subject.make(**arguments)
            return arguments
    raise NotApplicable("its thresholds have no values that say on a similarity what they say on a distance")


def _compare_choices(subject: Subject, near: Mapping[str, Any], mirrored: Mapping[str, Any]) -> None:
    for scene in every_sort(subject):
        found, expected = (_call(subject, scene, subject.make(**each)) for each in (mirrored, near))
        if as_set(found) != as_set(expected):
            raise LawBroken(
                f"on a similarity that is small where the distance is large it selects other than on the distance: "
                f"{difference(as_set(found), as_set(expected))}; {_ADVICE}",
                scene,
            )


def _compare_hardness(subject: Subject, near: Mapping[str, Any], mirrored: Mapping[str, Any]) -> None:
    on_distance, on_similarity = _hardness(subject, near), _hardness(subject, mirrored)
    for role in _ROLES:
        one, other = on_distance[role], on_similarity[role]
        if one * other < 0 and min(abs(one), abs(other)) > _CLEAR:
            words = ["nearer" if each < 0 else "farther" for each in (one, other)]
            raise LawBroken(
                f"on a distance the {role}s it selects are {words[0]} than the average, on a similarity {words[1]}, by "
                f"{abs(one):.2f} and {abs(other):.2f} standard deviations; {_ADVICE}",
                usual(subject),
            )


def _hardness(subject: Subject, arguments: Mapping[str, Any]) -> dict[str, float]:
    """Role → how far off what is selected is, in standard deviations from the average of all that could be; 0 where
    nothing is."""
    found: dict[str, list[float]] = {role: [0.0] for role in _ROLES}
    for scene, seed in itertools.product(every_sort(subject), _SEEDS if subject.miner.random else (0,)):
        if "ref_emb" in scene:
            continue
        other = dataclasses.replace(subject, seed=subject.seed + seed)
        matrix = Euclidean()(scene["embeddings"])
        standard = _standardised(matrix, scene["labels"])
        for role, a, b in signed_pairs(as_set(_call(other, scene, subject.make(**arguments)))):
            found[role].append(float(standard[role][a, b]))
    return {role: sum(values) / len(values) for role, values in found.items()}


def _standardised(matrix: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Role → distances less the average of the pairs of that role, in units of their deviation."""
    same = labels[:, None] == labels
    masks = {"positive": same & ~torch.eye(len(same), dtype=torch.bool), "negative": ~same}
    return {role: (matrix - matrix[mask].mean()) / matrix[mask].std().clamp_min(1e-12) for role, mask in masks.items()}


def _call(subject: Subject, scene: Scene, part: nn.Module) -> Any:
    copied = Scene({name: value.clone() for name, value in scene.inputs.items()}, scene.origin)
    found = subject.call(part, copied)
    if malformed(found, scene):
        raise NotApplicable("what it returns is no selection; see the law `selection`")
    return found
