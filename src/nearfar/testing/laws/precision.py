"""Losses in float32, in half precision and under autocast."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nearfar.testing.law import LawBroken, law
from nearfar.testing.scene import Scene
from nearfar.testing.subject import Subject, refuse_chance
from nearfar.testing.values import current, is_number, others
from nearfar.testing.variants import variants

_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

#: How many times farther from the exact result than a change of the inputs by one rounding takes it a result may be:
#: the errors of some tens of operations, each of the size of one rounding of the inputs, add up.
_ROUNDINGS = 16

#: What two results in float64 may differ by, of their size.
_DIGITS = 1e-11

_Result = dict[str, Tensor]


@law("loss")
def precision(subject: Subject) -> None:
    """Value and gradient in float32 are those in float64, but for what rounding the inputs would change as well.

    A loss is as sensitive to rounding as its formula: the tolerance is 16 times what changing each input and
    parameter by one unit in its last place changes. More is cancellation, or an intermediate of lower precision.
    """
    refuse_chance(subject)
    for arguments in variants(subject).values():
        for seed in range(1 if arguments else 2):
            scene = subject.scene(seed=subject.seed + seed).to(torch.float32)
            _compare(subject, scene, torch.float32, arguments, {"float32": _result(subject, scene, arguments)})


@law("loss")
def default_dtype(subject: Subject) -> None:
    """In float64 value and gradient do not depend on torch's default dtype: a constant made in float32 has lost half
    of its digits. With other numbers for arguments too, as 0.5 is in float32 what it is in float64.
    """
    refuse_chance(subject)
    for arguments in (*variants(subject).values(), *_inexact(subject)):
        scenes = [subject.scene()]
        if subject.loss.reference and subject.is_on_embeddings:
            scenes.append(subject.with_reference(scenes[0]))
        for scene in scenes:
            try:
                found = _result(subject, scene, arguments)
            except Exception:  # which other laws tell
                continue
            _compare_defaults(subject, scene, arguments, found)


def _compare_defaults(subject: Subject, scene: Scene, arguments: Mapping[str, Any], found: _Result) -> None:
    exact = _result(subject, scene, arguments, _by_default(torch.float64), backward_too=True)
    for name, tensor in exact.items():
        error, scale = _largest(found[name] - tensor), _scale(scene, exact, name)
        if not error <= _DIGITS * scale + torch.finfo(torch.float64).tiny:
            what = "value" if name == "value" else f"gradient of {name}"
            raise LawBroken(
                f"in float64 the {what} is off by {error:.3g} of {scale:.3g} unless float64 is torch's default dtype: "
                "some constant, or a product of whole numbers and one that is not, is in float32",
                scene,
                **arguments,
            )


def _inexact(subject: Subject) -> Iterator[dict[str, Any]]:
    """Of each number that an argument is, or may be, another that float32 cannot hold."""
    for parameter in subject.signature.parameters:
        own = current(subject, parameter.name)
        is_known = is_number(own) or (own is None and "float" in parameter.annotation)
        for value in others(subject, parameter) if is_known else ():
            if isinstance(value, float) and float(torch.tensor(value, dtype=torch.float32)) != value:
                changed: dict[str, Any] = {parameter.name: value}
                with contextlib.suppress(Exception):  # of what needs another argument beside it
                    subject.make(**changed)
                    yield changed
                    break


@contextlib.contextmanager
def _by_default(dtype: torch.dtype) -> Iterator[None]:
    """What nobody gives a dtype is in this one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@law("loss", cases=_HALVES)
def half(subject: Subject, case: str) -> None:
    """A batch in half precision gives a finite value and gradient near those of the same numbers in float64, with
    parameters in float32.

    Near means to half precision: 16 times what changing each input by one unit in its last place changes.
    """
    refuse_chance(subject)
    dtype = _HALVES[case]
    for arguments in variants(subject).values():
        for seed in range(1 if arguments else 2):
            scene = subject.scene(seed=subject.seed + seed).to(dtype)
            _compare(subject, scene, dtype, arguments, {case: _result(subject, scene, arguments)})


@law("loss", cases=["bfloat16"])
def autocast(subject: Subject, case: str) -> None:
    """Under autocast value and gradient are finite, near those in float64, and the value is in float32 at least.

    With inputs in float32 and in half precision, as a network under autocast hands them on.
    """
    refuse_chance(subject)
    dtype = _HALVES[case]
    for arguments in variants(subject).values():
        scene = subject.scene().to(dtype)
        found = {
            f"{given} under autocast": _result(subject, scene.to(given), arguments, torch.autocast("cpu", dtype))
            for given in (torch.float32, dtype)
        }
        for how, result in found.items():
            if torch.finfo(result["value"].dtype).bits < 32:
                raise LawBroken(f"the value of {how} is {result['value'].dtype}, which sums cannot be kept in", scene)
        _compare(subject, scene, dtype, arguments, found)


@law("loss")
def backward_under_autocast(subject: Subject) -> None:
    """A backward pass begun inside an autocast block in bfloat16 gives finite gradients near those in float64.

    torch advises against it, and many a training loop does it. What is multiplied there may be rounded to bfloat16.
    """
    refuse_chance(subject)
    dtype = torch.bfloat16
    for arguments in variants(subject).values():
        scene = subject.scene().to(dtype)
        surroundings = torch.autocast("cpu", dtype)
        result = _result(subject, scene.to(torch.float32), arguments, surroundings, backward_too=True)
        _compare(subject, scene, dtype, arguments, {"a backward pass under autocast": result})


@law("loss")
def master_parameters(subject: Subject) -> None:
    """A batch in half precision, and autocast, leave the dtype of parameters and buffers, and the parameters' values,
    as they were: an optimiser goes on with them."""
    calls: list[tuple[str, torch.dtype, contextlib.AbstractContextManager[Any]]] = [
        *((name, dtype, contextlib.nullcontext()) for name, dtype in _HALVES.items()),
        ("float32 under autocast", torch.float32, torch.autocast("cpu", torch.bfloat16)),
    ]
    for how, dtype, surroundings in calls:
        part, scene = subject.make(torch.float32), subject.scene().to(dtype)
        before = {name: parameter.detach().clone() for name, parameter in part.named_parameters()}
        dtypes = {n: t.dtype for n, t in [*part.named_parameters(), *part.named_buffers()]}
        with surroundings, contextlib.suppress(Exception):  # whether it works at all is another law's business
            subject.call(part, scene)
        for name, tensor in [*part.named_parameters(), *part.named_buffers()]:
            if tensor.dtype != dtypes.get(name, tensor.dtype):
                raise LawBroken(f"a batch in {how} turns {name} from {dtypes[name]} to {tensor.dtype}", scene)
            if name in before and not torch.equal(tensor.detach(), before[name]):
                change = float((tensor.detach() - before[name]).abs().max())
                raise LawBroken(f"a batch in {how} changes the parameter {name} by up to {change:.3g}", scene)


def _result(
    subject: Subject,
    scene: Scene,
    arguments: Mapping[str, Any],
    surroundings: contextlib.AbstractContextManager[Any] | None = None,
    *,
    backward_too: bool = False,
) -> _Result:
    """Value and gradients of a part whose parameters are float32, or float64 where the scene is.

    ``surroundings`` are those of the call, and of the backward pass if ``backward_too``.
    """
    dtype = next(iter(scene.learnable().values())).dtype
    part = subject.make(torch.promote_types(dtype, torch.float32), **arguments)
    scene = scene.with_gradients()
    leaves = scene.learnable() | {f"part.{n}": p for n, p in part.named_parameters() if p.requires_grad}
    with contextlib.ExitStack() as stack:
        stack.enter_context(surroundings or contextlib.nullcontext())
        value = subject.value(scene, part)
        if not backward_too:
            stack.close()
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    gradients = {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(leaves.items(), found, strict=True)}
    return {"value": value.detach(), **gradients}


def _compare(
    subject: Subject, scene: Scene, dtype: torch.dtype, arguments: Mapping[str, Any], found: Mapping[str, _Result]
) -> None:
    """Raise where a result is not finite, or farther from that in float64 than rounding to ``dtype`` explains."""
    for how, result in found.items():
        for name, tensor in result.items():
            if not tensor.isfinite().all():
                what = "value" if name == "value" else f"gradient of {name}"
                raise LawBroken(f"in {how} the {what} is not finite", scene, **arguments)
    exact = _result(subject, scene.to(torch.float64), arguments)
    changes = _changes(subject, scene.to(torch.float64), exact, dtype, arguments)
    eps, least = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    for how, result in found.items():
        for name, expected in exact.items():
            error = _largest(result[name].double() - expected)
            allowed = _ROUNDINGS * (changes[name] + eps * _scale(scene, exact, name) + least)
            if not error <= allowed:
                what = "value" if name == "value" else f"gradient of {name}"
                raise LawBroken(
                    f"in {how} the {what} is off by {error:.3g}, where rounding explains {allowed:.3g}; "
                    f"in float64 its largest entry is {_largest(expected):.6g}",
                    scene,
                    **arguments,
                )


def _scale(scene: Scene, exact: _Result, name: str) -> float:
    """How large the value is, or a gradient and what it is a difference of."""
    scale = _largest(exact[name])
    if name in scene.inputs:
        # A gradient that comes to nothing is a difference of two of the size of value over input.
        scale += _largest(exact["value"]) / max(_largest(scene[name]), 1.0)
    return scale


def _changes(
    subject: Subject, scene: Scene, exact: _Result, dtype: torch.dtype, arguments: Mapping[str, Any]
) -> dict[str, float]:
    """By how much value and gradients change, at most of a few tries, when the inputs change by one rounding."""
    generator = torch.Generator().manual_seed(subject.seed)
    largest = dict.fromkeys(exact, 0.0)
    for _ in range(3):
        signs = {n: torch.randn(x.shape, generator=generator).sign() for n, x in scene.learnable().items()}
        near = scene.replace(**{n: x * (1 + torch.finfo(dtype).eps * signs[n]) for n, x in scene.learnable().items()})
        for name, tensor in _result(subject, near, arguments).items():
            largest[name] = max(largest[name], _largest(tensor - exact[name]))
    return largest


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max()) if tensor.numel() else 0.0
