"""Laws of reducers.

They are called as pytorch-metric-learning's losses call theirs, with a dictionary of losses, the embeddings and the
labels; those that have ``reduce`` are given :class:`nearfar.Terms` as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from nearfar.errors import NearfarError
from nearfar.nn.terms import ARITY, MaterialTerms, Terms
from nearfar.testing.definition import definition_of
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.scene import Scene
from nearfar.testing.search import for_all
from nearfar.testing.subject import Subject, seeded
from nearfar.testing.terms import FusedTerms, entry_of, losses, terms_of, terms_scene, with_values
from nearfar.testing.variants import variants
from nearfar.told import told

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_STEP = 1e-6
_SEEDS = st.integers(0, 2**16)


# ---- what a reducer takes and returns


@law("reducer")
def reduces(subject: Subject) -> None:
    """It reduces the kinds of terms that the spec names, and refuses any other by an error that says so."""
    for kind in ARITY:
        scene = terms_scene(kind)
        if kind in subject.reducer.reduces:
            subject.call(subject.make(), scene)
            continue
        try:
            subject.call(subject.make(), scene)
        except (NearfarError, NotImplementedError, TypeError, ValueError) as error:
            if str(error):
                continue
        except Exception as error:
            name = type(error).__name__
            raise LawBroken(
                f"by its spec it does not reduce {kind} terms; given some it fails: {name}", scene
            ) from error
        raise LawBroken(f"by its spec it does not reduce {kind} terms, but it does not say so when given some", scene)


@law("reducer", cases=variants)
def keeps(subject: Subject, case: str = "") -> None:
    """It returns one number; one that declares that it keeps the terms returns every value of them."""
    arguments = variants(subject)[case]
    for kind in _kinds(subject):
        scene = terms_scene(kind)
        found = subject.call(subject.make(**arguments), scene)
        values = scene["loss_dict"]["loss"]["losses"]
        if subject.reducer.keeps:
            if sorted(_flat(found).tolist()) != sorted(values.tolist()):
                raise LawBroken(f"it declares that it keeps {kind} terms, but changes them", scene, **arguments)
        elif not isinstance(found, Tensor) or found.numel() != 1:
            what = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise LawBroken(f"of {kind} terms it returns {what}; declare keeps=True", scene, **arguments)


@law("reducer")
def handed_on(subject: Subject) -> None:
    """What a loss has reduced itself is handed on as it is."""
    value = torch.tensor(3.0, dtype=torch.float64)
    scene = Scene(dict(zip(("loss_dict", "embeddings", "labels"), losses("element"), strict=True)))
    scene = scene.replace(loss_dict=entry_of("already_reduced", value, None))
    found = _flat(subject.call(subject.make(), scene))
    if found.tolist() != [3.0]:
        raise LawBroken(f"a loss that is 3 already comes back as {found.tolist()}")


@law("reducer")
def no_terms(subject: Subject) -> None:
    """A loss without a term is 0, with a gradient that a backward pass can go through."""
    if subject.reducer.keeps:
        raise NotApplicable("it keeps the terms, of which there are none")
    for kind in _kinds(subject):
        scene = terms_scene(kind).with_gradients()
        embeddings = scene["embeddings"]
        # The number 0 is how pytorch-metric-learning's losses write the absence of any term.
        found = [subject.call(subject.make(), scene.replace(loss_dict=entry_of(kind, 0, None)))]
        part: Any = subject.make()
        if hasattr(part, "reduce"):
            none = tuple(torch.zeros(0, dtype=torch.int64) for _ in range(ARITY[kind]))
            values, anchors, labels = embeddings.sum(1)[:0], len(embeddings), scene["labels"]
            found.append(part.reduce(MaterialTerms(kind, values, none, num_anchors=anchors, labels=labels)))
        for value in map(_number, found):
            if not value.requires_grad:
                raise LawBroken(f"of no {kind} terms the value has no gradient", scene)
            (gradient,) = torch.autograd.grad(value, embeddings)
            if float(value) != 0 or gradient.count_nonzero():
                raise LawBroken(
                    f"of no {kind} terms the value is {float(value)}, its gradient up to {float(gradient.abs().max())}",
                    scene,
                )


# ---- what it computes


@law("reducer", cases=variants)
def reduced_as_defined(subject: Subject, case: str = "") -> None:
    """The value is that of its definition, for every kind of terms, with weights and with a normaliser."""
    arguments = variants(subject)[case]
    definition_of(subject, arguments)

    def holds(kind: str, seed: int) -> None:
        scene = terms_scene(kind, seed=seed)
        plain = terms_of(scene)
        found = {"": subject.call(subject.make(**arguments), scene)}
        expected = {"": _defined(subject, arguments, plain)}
        part: Any = subject.make(**arguments)
        if hasattr(part, "reduce"):
            weights = torch.rand(len(plain.values), generator=torch.Generator().manual_seed(seed)).double()
            variations: Mapping[str, Mapping[str, Any]] = {
                " of terms": {},
                " of weighted terms": {"weights": weights},
                " of terms in groups": {"groups": torch.arange(plain.num_anchors) // 2 * 7},
                " with a normaliser of 2.5": {"normalizer": 2.5},
                " with a tensor as normaliser": {"normalizer": torch.tensor(4.0, dtype=torch.float64)},
            }
            for how, changed in variations.items():
                terms = terms_of(scene, **changed)
                found[how], expected[how] = part.reduce(terms), _defined(subject, arguments, terms)
        for how in found:
            _compare(found[how], expected[how], f"by its definition the value{how} is", scene, arguments)

    for kind in _kinds(subject):
        for_all(subject, partial(holds, kind), examples=2, seed=_SEEDS)


@law("reducer", cases=variants)
def fused_terms(subject: Subject, case: str = "") -> None:
    """Terms that know their sums in closed form, and come in several blocks, are reduced like the same terms made one
    by one, gradient and all."""
    arguments = variants(subject)[case]
    if not hasattr(subject.make(**arguments), "reduce"):
        raise NotApplicable("it reduces dictionaries of losses alone")

    def reduced(terms: Terms) -> Tensor:
        part: Any = subject.make(**arguments)  # afresh, as it may keep something
        with seeded(subject.seed):
            value: Tensor = part.reduce(terms)
        return value

    def holds(kind: str, seed: int) -> None:
        scene = terms_scene(kind, seed=seed)
        made = terms_of(scene, normalizer=3.0)
        leaf = made.values.detach().requires_grad_()
        fused = FusedTerms(made, leaf)
        again = MaterialTerms(
            kind, leaf, made.indices, num_anchors=made.num_anchors, labels=made.labels, normalizer=made.normalizer
        )
        expected, found = reduced(again), reduced(fused)
        _compare(found, expected, "of terms that are made the value is", scene, arguments)
        to_found, to_expected = (torch.autograd.grad(value.sum(), leaf)[0] for value in (found, expected))
        _compare(to_found, to_expected, "of terms that are made the gradient is", scene, arguments)

    for kind in _kinds(subject):
        for_all(subject, partial(holds, kind), examples=2, seed=_SEEDS)


@law("reducer", cases=variants)
def reduced_gradient(subject: Subject, case: str = "") -> None:
    """The gradient is that of the value, by finite differences in float64."""
    _refuse_keeping(subject)
    arguments = variants(subject)[case]

    def holds(kind: str, seed: int) -> None:
        scene = terms_scene(kind, seed=seed)
        values = scene["loss_dict"]["loss"]["losses"]
        direction = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed), dtype=values.dtype)

        def value(at: Tensor) -> Tensor:
            return _number(subject.call(subject.make(**arguments), with_values(scene, at)))

        leaf = values.clone().requires_grad_()
        reduced = value(leaf)
        if not reduced.requires_grad:
            raise LawBroken("the value has no gradient", scene, **arguments)
        given = float(torch.autograd.grad(reduced, leaf)[0] @ direction)
        ahead, behind = (float(value(values + sign * _STEP * direction)) for sign in (1, -1))
        expected = (ahead - behind) / (2 * _STEP)
        if not abs(given - expected) <= 1e-5 * max(1.0, abs(expected)):
            raise LawBroken(
                f"of {kind} terms the gradient along a direction is {given:.8g}, and the value changes by "
                f"{expected:.8g}",
                scene,
                **arguments,
            )

    for kind in _kinds(subject):
        for_all(subject, partial(holds, kind), examples=2, seed=_SEEDS)


@law("reducer", cases=_DTYPES)
def reduced_half(subject: Subject, case: str) -> None:
    """In half precision the value is that of float64 to within rounding, wherever half precision can hold it: sums on
    the way to it may be too large."""
    _refuse_keeping(subject)
    dtype = _DTYPES[case]
    many = [terms_scene("element", batch=3000, scale=100.0)] if "element" in _kinds(subject) else []
    for scene in [*map(terms_scene, _kinds(subject)), *many]:
        half = scene["loss_dict"]["loss"]["losses"].to(dtype)
        expected = float(_number(subject.call(subject.make(), with_values(scene, half.double()))))
        if abs(expected) > torch.finfo(dtype).max:
            continue
        narrow = with_values(scene.replace(embeddings=scene["embeddings"].to(dtype)), half)
        found = float(_number(subject.call(subject.make(dtype), narrow)))
        if not abs(found - expected) <= 4 * torch.finfo(dtype).eps * max(abs(expected), float(half.abs().max())):
            raise LawBroken(f"of {len(half)} values in {case} it is {found:.6g}, in float64 {expected:.6g}", scene)


# ---- what it may depend on


@law("reducer", cases=variants)
def term_order(subject: Subject, case: str = "") -> None:
    """Neither the order of the terms nor that of the batch they come from changes the value."""
    if subject.reducer.order_dependent or subject.reducer.random:
        raise NotApplicable("it declares that it depends on the order, or on chance")
    arguments = variants(subject)[case]

    def holds(kind: str, seed: int) -> None:
        scene = terms_scene(kind, seed=seed)
        terms = terms_of(scene)
        expected = _flat(subject.call(subject.make(**arguments), scene)).sort().values
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(terms.values), generator=generator)
        places = torch.randperm(terms.num_anchors, generator=generator)
        shuffled = entry_of(kind, terms.values[order], tuple(index[order] for index in terms.indices))
        moved = entry_of(kind, terms.values, tuple(places[index] for index in terms.indices))
        labels = torch.empty_like(scene["labels"])
        labels[places] = scene["labels"]
        for how, given in {
            "terms": scene.replace(loss_dict=shuffled),
            "batch": scene.replace(loss_dict=moved, labels=labels),
        }.items():
            found = _flat(subject.call(subject.make(**arguments), given)).sort().values
            _compare(found, expected, f"before the {how} came in another order the value was", scene, arguments)

    for kind in _kinds(subject):
        for_all(subject, partial(holds, kind), examples=2, seed=_SEEDS)


@law("reducer")
def reference_terms(subject: Subject) -> None:
    """Positives and negatives may come from a reference set larger than the batch: where in it does not matter."""
    kinds = [kind for kind in _kinds(subject) if ARITY[kind] > 1]
    if not kinds:
        raise NotApplicable("it reduces elements alone")
    for kind in kinds:
        scene = terms_scene(kind)
        terms = terms_of(scene)
        anchors, *others = terms.indices
        beyond = entry_of(kind, terms.values, (anchors, *(other + terms.num_anchors for other in others)))
        expected = _flat(subject.call(subject.make(), scene))
        given = scene.replace(loss_dict=beyond)
        try:
            found = _flat(subject.call(subject.make(), given))
        except Exception as error:
            raise LawBroken(
                f"{kind} terms of a batch of {terms.num_anchors} that point into a reference set of "
                f"{2 * terms.num_anchors} fail: {told(error)}",
                given,
            ) from error
        _compare(found, expected, f"with the others of {kind} terms within the batch the value is", given, {})


# ---- shared


def _kinds(subject: Subject) -> list[str]:
    """The kinds of terms it reduces: not what a loss has reduced already, which is nothing to reduce."""
    return [kind for kind in ARITY if kind in subject.reducer.reduces]


def _defined(subject: Subject, arguments: dict[str, Any], terms: Terms) -> Any:
    context = {
        "anchors": terms.indices[0].tolist(),
        "labels": None if terms.labels is None else terms.labels.tolist(),
        "weights": None if terms.weights is None else terms.weights.tolist(),
        "groups": None if terms.groups is None else terms.groups.tolist(),
        "normalizer": None if terms.normalizer is None else float(terms.normalizer),
    }
    return definition_of(subject, arguments, **context)(terms.values.tolist())


def _refuse_keeping(subject: Subject) -> None:
    if subject.reducer.keeps:
        raise NotApplicable("it keeps the terms as they are")


def _flat(found: Any) -> Tensor:
    """What a reducer returned as a vector: a number, the values, or a dictionary with the values."""
    if isinstance(found, Mapping) and len(found) == 1:
        (entry,) = found.values()
        found = entry["losses"] if isinstance(entry, Mapping) and "losses" in entry else entry
    if not isinstance(found, Tensor):
        raise LawBroken(f"a reducer returns a tensor, or keeps the dictionary it is given; got {found!r:.60}")
    return found.detach().reshape(-1)


def _number(found: Any) -> Tensor:
    if not isinstance(found, Tensor) or found.numel() != 1:
        raise NotApplicable("what it returns is no number; see the law `keeps`")
    return found.reshape(())


def _compare(found: Any, expected: Any, how: str, scene: Scene, arguments: dict[str, Any]) -> None:
    """Raise :class:`LawBroken` unless two results are equal to within rounding; numbers, lists or tensors."""
    first, second = (_listed(each) for each in (found, expected))
    scale = max([1.0, *map(abs, second)])
    if len(first) != len(second) or not all(abs(a - b) <= 1e-9 * scale for a, b in zip(first, second, strict=True)):
        said = [", ".join(f"{value:.9g}" for value in values[:4]) for values in (second, first)]
        raise LawBroken(f"{how} {said[0]}; it is {said[1]}", scene, **arguments)


def _listed(result: Any) -> list[float]:
    if isinstance(result, Iterable) and not isinstance(result, Tensor | Mapping):
        return [float(value) for value in result]
    if isinstance(result, int | float):
        return [float(result)]
    return [float(value) for value in _flat(result).tolist()]
