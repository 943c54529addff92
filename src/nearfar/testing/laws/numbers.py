"""Gradients, precision, and values at the ends of the range."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from nearfar.testing.frozen import Frozen
from nearfar.testing.law import LawBroken, law
from nearfar.testing.scene import Scene
from nearfar.testing.search import for_all, scenes
from nearfar.testing.subject import Subject

_STEP = 1e-6


def presets(subject: Subject) -> Iterable[str]:
    """The defaults, and every preset by its name."""
    return ("", *subject.spec.presets)


@law("loss", cases=presets)
def gradient(subject: Subject, case: str = "") -> None:
    """The gradient is that of the value, by finite differences in float64; where the spec says that something is
    detached, with that held constant."""
    arguments: dict[str, Any] = {"preset": case} if case else {}

    def holds(scene: Scene) -> None:
        _compare_gradient(subject, scene, arguments)

    for_all(subject, holds, examples=4, scene=scenes(subject))


def _compare_gradient(subject: Subject, scene: Scene, arguments: dict[str, Any]) -> None:
    frozen = Frozen() if subject.loss.detached else None

    def value(at: Scene) -> float:
        if frozen is None:
            return float(subject.value(at, **arguments))
        with frozen:
            return float(subject.value(at, **arguments))

    value(scene)  # what is frozen is frozen here
    found = subject.gradients(scene, **arguments)
    generator = torch.Generator().manual_seed(subject.seed)
    for name, x in scene.learnable().items():
        for _ in range(3):
            direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            ahead, behind = (value(scene.replace(**{name: x + sign * _STEP * direction})) for sign in (1, -1))
            expected = (ahead - behind) / (2 * _STEP)
            given = float((found[name] * direction).sum())
            scale = max(abs(expected), float(found[name].abs().max()), 1e-3)
            if not abs(given - expected) <= 1e-4 * scale:
                hint = "" if subject.loss.detached else "; a loss that detaches something on purpose says so: detached="
                raise LawBroken(
                    f"along a direction of {name} the gradient is {given:.8g}, and the value changes by "
                    f"{expected:.8g}{hint}",
                    scene,
                    **arguments,
                )
