"""What is checked: a part, and how to make it and call it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import random
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nearfar.build import make_part
from nearfar.discovery import Plugin
from nearfar.grammar import Live, Part, parse_part
from nearfar.nn.losses import Loss
from nearfar.nn.terms import MaterialTerms
from nearfar.planner import signature_of
from nearfar.registry import Entry, Registry
from nearfar.signature import Signature
from nearfar.spec import DistanceSpec, LossSpec, MinerSpec, ReducerSpec
from nearfar.testing.law import LawBroken, NotApplicable
from nearfar.testing.scene import CLASSES, DIM, ChoiceMaker, Maker, Scene, batch, boxes, rotated_boxes, scenes_for
from nearfar.testing.surroundings import restored

if TYPE_CHECKING:
    from nearfar.testing.trouble import Trouble

__all__ = ["PluginSubject", "Subject", "refuse_chance", "seeded", "target_of"]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Every global random generator started from ``seed``, and put back where it was afterwards."""
    state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # manual_seed formats a traceback for a GPU that is not there
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)


@dataclass(frozen=True, eq=False)
class PluginSubject:
    """A plugin as a whole."""

    plugin: Plugin
    registry: Registry

    kind = "plugin"

    @property
    def name(self) -> str:
        return self.plugin.namespace

    @property
    def expected_failures(self) -> Mapping[str, str]:
        return {}

    @property
    def trouble(self) -> None:
        return None


@dataclass(frozen=True, eq=False)
class Subject:
    """A part that is checked.

    Attributes
    ----------
    entry, registry
        The part as it is registered, and what its example's names are looked up in.
    seed
        What everything random in its checks is started from.
    """

    entry: Entry
    registry: Registry
    seed: int = 0

    # ---- what it says of itself

    @property
    def kind(self) -> str:
        return self.entry.kind

    @property
    def name(self) -> str:
        """Its full name; with its kind where another kind has the same."""
        full = self.entry.full_name
        return full if len(self.registry.kinds_of(full)) < 2 else f"{full}.{self.kind}"

    @property
    def spec(self) -> Any:
        """Its spec; ``loss``, ``miner``, ``reducer`` and ``distance`` have it under its type."""
        return self.entry.spec

    @property
    def loss(self) -> LossSpec:
        assert isinstance(self.entry.spec, LossSpec)
        return self.entry.spec

    @property
    def miner(self) -> MinerSpec:
        assert isinstance(self.entry.spec, MinerSpec)
        return self.entry.spec

    @property
    def reducer(self) -> ReducerSpec:
        assert isinstance(self.entry.spec, ReducerSpec)
        return self.entry.spec

    @property
    def distance(self) -> DistanceSpec:
        assert isinstance(self.entry.spec, DistanceSpec)
        return self.entry.spec

    @property
    def expected_failures(self) -> Mapping[str, str]:
        return self.entry.spec.expected_failures

    @functools.cached_property
    def signature(self) -> Signature:
        return signature_of(self.entry)

    @functools.cached_property
    def example(self) -> dict[str, Any]:
        """The arguments of the spec's example."""
        text = self.entry.spec.example
        part = parse_part(f"{self.entry.full_name}({text})") if text else Part(self.entry.full_name)
        return self.signature.bind(self.entry.full_name, part.positional, part.named)

    @property
    def is_on_embeddings(self) -> bool:
        """Whether it is called with embeddings and labels: a miner, or most losses."""
        if self.kind == "miner":
            return self.miner.on_embeddings
        return self.kind == "loss" and self.loss.inputs == ("embeddings", "labels")

    @property
    def known_inputs(self) -> tuple[str, ...]:
        """The inputs of a loss where their names say what they are; none where a sample of its own makes them."""
        return () if self.loss.sample else self.loss.inputs

    @property
    def has_free_size(self) -> bool:
        """Whether embeddings may be of any size: it keeps no weights of a size of theirs."""
        return "embedding_size" not in self.signature and not self.entry.spec.example

    @functools.cached_property
    def takes_reducer(self) -> bool:
        """Whether a loss can be given a reducer: by its constructor, or as an attribute that nearfar's own have."""
        return "reducer" in self.signature or isinstance(self.make(), Loss)

    # ---- making it

    def part(self, **arguments: Any) -> Part:
        """The part with its example's arguments, what its context supplies, and ``arguments`` above both."""
        context = {"num_classes": CLASSES, "embedding_size": DIM, "image_size": 16}
        needed = {n: context[n] for n in self.entry.spec.needs if n in context and n in self.signature}
        return Part(self.entry.full_name, (), {**needed, **self.example, **arguments})

    def make(self, dtype: torch.dtype = torch.float64, **arguments: Any) -> nn.Module:
        """The part as a module, the same one every time; its parameters in ``dtype``.

        ``arguments`` are values as a recipe has them, or modules.
        """
        live = {n: Live(v) if isinstance(v, nn.Module) else v for n, v in arguments.items()}
        with seeded(self.seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # known defects of the part: here they are what is looked for
            made = make_part(self.part(**live), self.kind, self.registry, {})
        assert isinstance(made, nn.Module)
        return made.to(dtype)

    def source(self, arguments: Mapping[str, Any]) -> str:
        """Source text that makes the part."""
        written = {n: v for n, v in arguments.items() if not isinstance(v, nn.Module)}
        return f'nearfar.create_{self.kind}("{str(self.part(**written)).replace(chr(34), chr(39))}")'

    # ---- calling it

    @functools.cached_property
    def _maker(self) -> Maker | ChoiceMaker:
        """The first way of making inputs that the loss takes; or those of a miner."""
        if self.kind == "miner":
            return ChoiceMaker(self.miner)
        makers = scenes_for(self.loss)
        if not makers:
            raise NotApplicable(
                f"nothing is known of inputs called {', '.join(self.loss.inputs)}; the spec's sample can make them"
            )
        for maker in makers[:-1]:
            with contextlib.suppress(Exception):
                self.call(self.make(), maker(seed=self.seed))
                return maker
        return makers[-1]

    def scene(self, *, classes: int = 4, per_class: int = 3, dim: int | None = None, seed: int | None = None) -> Scene:
        """Inputs for one call: of ``classes · per_class`` rows, float64.

        A miner and a loss on embeddings get ``embeddings`` and ``labels`` in random order, ``per_class`` of each
        class; a loss on anything else what its inputs' names say. ``dim`` is kept only where any size will do, and
        there are no more classes than an example gives as ``num_classes``.
        """
        seed = self.seed if seed is None else seed
        classes = min(classes, self.example.get("num_classes", CLASSES))
        if not self.is_on_embeddings:
            return self._maker(n=classes * per_class, seed=seed)
        dim = dim if dim is not None and self.has_free_size else DIM
        embeddings, labels = batch(classes, per_class, dim, seed)
        origin = f"nearfar.testing.batch(classes={classes}, per_class={per_class}, dim={dim}, seed={seed})"
        return Scene({"embeddings": embeddings, "labels": labels}, origin)

    def rows(self, n: int, seed: int) -> tuple[Tensor, str]:
        """What a distance compares, (n, …) float64, and source text that makes it again."""
        maker = {"boxes": boxes, "rotated_boxes": rotated_boxes}.get(self.distance.on)
        if maker is None:
            return batch(1, n, DIM, seed)[0], f"nearfar.testing.batch(1, {n}, {DIM}, {seed})[0]"
        return maker(n, seed)[0], f"nearfar.testing.scene.{maker.__name__}({n}, {seed})[0]"

    def with_reference(self, scene: Scene, *, classes: int = 4, per_class: int = 4, seed: int | None = None) -> Scene:
        """The scene with a reference set of another size than the batch."""
        seed = self.seed + 1000 if seed is None else seed
        ref_emb, ref_labels = batch(classes, per_class, scene["embeddings"].shape[1], seed)
        changed = scene.replace(ref_emb=ref_emb.to(scene["embeddings"].dtype), ref_labels=ref_labels)
        origin = (
            f"{scene.origin} + nearfar.testing.batch(classes={classes}, per_class={per_class}, "
            f"dim={ref_emb.shape[1]}, seed={seed})"
        )
        return Scene(changed.inputs, origin)

    def call(self, part: nn.Module, scene: Scene) -> Any:
        """What the part returns for a scene, random generators started from the seed."""
        given = dict(scene.inputs)
        with restored(), seeded(self.seed), warnings.catch_warnings(), _said_with(scene):
            # Not as a part would do it itself, which would change nothing then.
            warnings.filterwarnings("ignore", message="(?s).*")
            if self.kind == "loss" and not self.loss.on_embeddings:
                return part(*(given[name] for name in self.loss.inputs))
            if self.kind == "miner" and not self.is_on_embeddings:
                return self._choose(part, given)
            if self.kind == "miner":
                return part(*(given.get(name) for name in ("embeddings", "labels", "ref_emb", "ref_labels")))
            if self.kind == "loss":
                return part(given.pop("embeddings"), given.pop("labels", None), **given)
            return part(*given.values())

    def _choose(self, part: nn.Module, given: dict[str, Any]) -> Any:
        """What a matcher matches; of a miner of elements the places of the values that it keeps, and these."""
        if self.miner.produces == "matches":
            inputs = [given.pop(name) for name in self.miner.inputs if name in given]
            return part(*inputs, **given)
        values = given.pop("values")
        index = torch.arange(len(values), device=values.device)
        terms = MaterialTerms("element", values, (index,), num_anchors=len(values), **given)
        kept = part({"loss": terms})["loss"]
        return (*kept.indices, kept.values)

    def value(self, scene: Scene, part: nn.Module | None = None, **arguments: Any) -> Tensor:
        """The loss of a scene as a 0-d tensor, by a freshly made part unless one is given.

        Raises
        ------
        LawBroken
            It is no single number.
        """
        found = self.call(self.make(**arguments) if part is None else part, scene)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise LawBroken(f"a loss is one number; got {_label(found)}", scene, **arguments)
        return found.reshape(())

    def gradients(self, scene: Scene, part: nn.Module | None = None, **arguments: Any) -> dict[str, Tensor]:
        """The gradients of the loss by input and by parameter (``part.name``); zeros where it has none."""
        part = self.make(**arguments) if part is None else part
        scene = scene.with_gradients()
        leaves = scene.learnable() | {f"part.{n}": p for n, p in part.named_parameters() if p.requires_grad}
        value = self.value(scene, part)
        if not value.requires_grad:
            raise LawBroken(
                "the loss has no gradient: it does not depend on its inputs by autograd", scene, **arguments
            )
        with _said_with(scene):
            found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }

    @functools.cached_property
    def trouble(self) -> Trouble | None:
        """What is so wrong with the part that most laws would speak of nothing else; None where nothing is."""
        from nearfar.testing.trouble import trouble_of  # which makes calls of subjects

        return trouble_of(self)


@contextlib.contextmanager
def _said_with(scene: Scene) -> Iterator[None]:
    """What a part raises carries what it was called with, for whoever reports it."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(AttributeError):
            error.scene = scene  # type: ignore[attr-defined]
        raise


def target_of(subject: Subject) -> Any:
    """The class of a part, or the function that makes it; whatever its import raises is raised."""
    if subject.entry.target is not None:
        return subject.entry.target
    module, _, name = subject.spec.target.partition(":")
    return getattr(importlib.import_module(module), name)


def refuse_chance(subject: Subject) -> None:
    """Raise :class:`NotApplicable` for a part that draws random numbers: two calls that differ draw others."""
    if subject.spec.random:
        raise NotApplicable("it draws random numbers")


def _label(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"[:80]
