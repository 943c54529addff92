"""Everything that can be seen of a part from outside: what it returns, its gradient, and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nearfar.testing.exercise import results, same, tensors_in
from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject

__all__ = ["alike", "observe", "shows"]


def observe(subject: Subject, scene: Scene, **arguments: Any) -> list[Tensor]:
    """What a freshly made part returns in two calls, its gradient in the first, and its state after both.

    Two calls, since what a part keeps of the first may show in the second.
    """
    part = subject.make(**arguments)
    given = scene.with_gradients()
    first = subject.call(part, given)
    found = [tensor.detach().clone() for tensor in tensors_in(first)]
    leaves = [*given.learnable().values(), *(p for p in part.parameters() if p.requires_grad)]
    total = sum((t.sum() for t in tensors_in(first) if t.requires_grad), torch.zeros((), dtype=torch.float64))
    if leaves and total.requires_grad:
        found += [g for g in torch.autograd.grad(total, leaves, allow_unused=True) if g is not None]
    found += results(subject, part, scene)
    return found + [tensor.detach().clone() for tensor in part.state_dict().values() if isinstance(tensor, Tensor)]


def alike(subject: Subject, scene: Scene, first: Mapping[str, Any], second: Mapping[str, Any]) -> bool | None:
    """Whether a part made with either arguments returns the same for a scene, to rounding.

    None where neither can be called with it.
    """
    found: list[list[Tensor] | None] = []
    for arguments in (first, second):
        try:
            found.append(results(subject, subject.make(**arguments), scene))
        except Exception:
            found.append(None)
    one, other = found
    return same(one, other, relative=1e-9) if one is not None and other is not None else None if one is other else False


def shows(subject: Subject, scene: Scene, first: Mapping[str, Any], second: Mapping[str, Any]) -> bool | None:
    """Whether a scene tells a part made with the first arguments from one made with the second.

    None where either of the two cannot be called with it.
    """
    try:
        return not same(observe(subject, scene, **first), observe(subject, scene, **second))
    except Exception:
        return None
