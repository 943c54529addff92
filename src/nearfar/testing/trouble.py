"""What is so wrong with a part that most laws would speak of nothing else: one law says it, the others point there."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nearfar.testing.exercise import tensors_in, usual
from nearfar.testing.law import Law, NotApplicable
from nearfar.testing.scene import Scene
from nearfar.testing.subject import seeded, target_of
from nearfar.told import told

if TYPE_CHECKING:
    from nearfar.testing.subject import Subject

__all__ = ["ROOTS", "Trouble", "trouble_of"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong, in words, and the law that says so."""

    law: str
    said: str
    scene: Scene | None = None

    def hides(self, law: Law) -> bool:
        """Whether ``law`` would speak of nothing else: without a class there is nothing that any of them is about."""
        return law.name != self.law and (not law.standalone or self.law == "target_exists")


def trouble_of(subject: Subject) -> Trouble | None:
    """The first of the root laws that a part does not keep; None where it keeps all of them."""
    with seeded(subject.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, find in ROOTS.items():
            if trouble := find(subject):
                return Trouble(name, *trouble)
    return None


#: What is wrong and what with; None where nothing is.
_Found = tuple[str, Scene | None] | None


# ---- its class


def _of_target(subject: Subject) -> _Found:
    where = subject.spec.target
    try:
        target_of(subject)
    except (Exception, SystemExit) as error:
        return f"{where} cannot be imported: {told(error, only_own=True)}", None
    return None


# ---- the sample


def _of_sample(subject: Subject) -> _Found:
    named = getattr(subject.spec, "sample", "")
    if not named:
        return None
    module, _, name = named.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit):  # which the law on what a spec names says
        return None
    said = _wrong_sample(function, subject.loss.inputs)
    return (f"{named} {said}", None) if said else None


def _wrong_sample(function: Callable[..., Any], names: Sequence[str]) -> str:
    before = torch.get_rng_state()
    try:
        first, again, other, more = (function(n=n, seed=seed) for n, seed in ((8, 0), (8, 0), (8, 1), (16, 0)))
    except (Exception, SystemExit) as error:
        return f"is called with n=8 and a seed, and raises {told(error)}"
    is_drawn_elsewhere = not torch.equal(before, torch.get_rng_state())
    if wrong := _wrong_inputs(first, names):
        return wrong
    if is_drawn_elsewhere:
        return (
            "draws from torch's own random generator, or starts it anew; draw from one that it makes: "
            "torch.Generator().manual_seed(seed)"
        )
    if not _equal(first, again):
        return "gives something else when it is called again with the same seed; let everything drawn follow from seed"
    if _equal(first, other):
        return "gives the same for another seed; laws try several, so draw the inputs from seed"
    if [tensor.shape for tensor in first] == [tensor.shape for tensor in more]:
        return "gives for n=16 no more rows than for n=8; laws try batches of several sizes"
    return ""


def _wrong_inputs(made: Any, names: Sequence[str]) -> str:
    listed = ", ".join(names)
    if not isinstance(made, tuple | list):
        return f"returns a {type(made).__name__}; return a tuple, a tensor for each of the inputs {listed}"
    if len(made) != len(names):
        return f"returns {len(made)} tensors; return one for each of the inputs {listed}"
    for name, value in zip(names, made, strict=True):
        if not isinstance(value, Tensor):
            return f"returns a {type(value).__name__} for {name}; return a tensor"
        if value.is_floating_point() and value.dtype != torch.float64:
            return f"returns {name} in {value.dtype}; return float64, of which the laws make other dtypes"
        if value.requires_grad:
            return f"returns {name} that requires a gradient; return plain tensors, the laws ask for gradients"
        if value.is_floating_point() and value.isnan().any():
            return f"returns {name} in which something is not a number; return inputs as training has them"
    return ""


def _equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


# ---- a plain call


def _of_call(subject: Subject) -> _Found:
    try:
        scene = usual(subject)
        found = subject.call(subject.make(), scene)
    except NotApplicable as error:
        return str(error), None
    except (Exception, SystemExit) as error:
        return f"{subject.source({})} does not run: {told(error)}", None
    if subject.kind == "loss" and not (isinstance(found, Tensor) and found.numel() == 1):
        what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"{type(found).__name__} {found!r}"
        return f"a loss is one number; of a plain batch it returns {what[:80]}", scene
    for tensor in tensors_in(found):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            wrong = float(tensor.detach()[~tensor.isfinite()].flatten()[0])
            return f"of a plain batch it gives {wrong}; ordinary inputs have to give something finite", scene
    return None


# ---- its gradient


def _of_gradient(subject: Subject) -> _Found:
    if subject.kind != "loss":
        return None
    for seed in range(3):  # that of one batch may cost nothing
        part, scene = subject.make(), usual(subject, seed).with_gradients()
        leaves = scene.learnable() | {f"part.{n}": p for n, p in part.named_parameters() if p.requires_grad}
        if not leaves:
            return None
        modes: list[bool] = []
        part.register_forward_hook(functools.partial(_note_mode, modes))
        try:
            value = subject.call(part, scene)
        except Exception as error:
            return f"of inputs that need a gradient it does not run: {told(error)}", scene
        if not all(modes):
            return "its call leaves gradients turned off for everybody, as torch.set_grad_enabled(False) does", scene
        if value.requires_grad:
            return _wrong_gradient(value, leaves, scene)
    return (
        f"nothing leads from its value back to {', '.join(leaves)}: it is cut from the graph on the way, by detach(), "
        "data, item(), no_grad() or a tensor made anew of its numbers",
        scene,
    )


def _note_mode(modes: list[bool], *_: Any) -> None:
    modes.append(torch.is_grad_enabled())


def _wrong_gradient(value: Tensor, leaves: dict[str, Tensor], scene: Scene) -> _Found:
    try:
        found = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
    except Exception as error:
        return f"its backward pass does not run: {told(error)}", scene
    for name, gradient in zip(leaves, found, strict=True):
        if gradient is not None and not gradient.isfinite().all():
            wrong = float(gradient[~gradient.isfinite()].flatten()[0])
            return (
                f"of a plain batch the value is {float(value.detach()):.6g}, and {wrong} is in the gradient of {name}",
                scene,
            )
    return None


#: The root laws, and what finds out, in the order in which they are asked: one that is not kept says it for all
#: after it.
ROOTS: dict[str, Callable[[Subject], _Found]] = {
    "target_exists": _of_target,
    "sample": _of_sample,
    "runs": _of_call,
    "differentiable": _of_gradient,
}
