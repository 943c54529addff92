"""What is wrong with everything that a part gives is said by one law, and the others are skipped and point there."""

from __future__ import annotations

import pytest
import torch

from kit.sound import SOUND_DISTANCE, SOUND_LOSS, SoundDistance, SoundLoss, broken_laws
from nearfar import Loss
from nearfar.discovery import Selector, discover
from nearfar.nn.terms import element_terms
from nearfar.registry import Registry
from nearfar.spec import LossSpec
from nearfar.testing.check import Check
from nearfar.testing.law import LAWS
from nearfar.testing.subject import Subject


class NotANumber(SoundLoss):
    # The logarithm of nothing.

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs) + 0 * torch.zeros(()).log()


class NowhereNear(SoundDistance):
    # Infinitely far.

    def matrix(self, query, reference):
        return super().matrix(query, reference) / 0


class OfEachAnchor(SoundLoss):
    # A value for each sample.

    def forward(self, embeddings, *args, **kwargs):
        return super().forward(embeddings, *args, **kwargs).expand(len(embeddings))


class Cut(SoundLoss):
    # A number without a history.

    def forward(self, *args, **kwargs):
        return torch.tensor(super().forward(*args, **kwargs).item())


class SteepAtZero(SoundLoss):
    # The root of zero has no gradient.

    def forward(self, embeddings, *args, **kwargs):
        return super().forward(embeddings, *args, **kwargs) + (0 * embeddings).sum().sqrt()


class ScalesItsInput(SoundLoss):
    # In place, which torch refuses where the input needs a gradient.

    def terms(self, batch):
        batch.embeddings.mul_(1.001)
        return super().terms(batch)


class Broken(torch.autograd.Function):
    # Its backward pass divides by what it never kept.

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / ctx.size


class BrokenBackward(SoundLoss):
    def forward(self, *args, **kwargs):
        return Broken.apply(super().forward(*args, **kwargs))


class TurnsGradientsOff(SoundLoss):
    # For everybody, once its value is computed.

    def forward(self, *args, **kwargs):
        value = super().forward(*args, **kwargs)
        torch.set_grad_enabled(False)
        return value


@pytest.mark.parametrize(
    ("kind", "target", "spec", "law", "word"),
    [
        ("loss", TurnsGradientsOff, SOUND_LOSS, "differentiable", "leaves gradients turned off for everybody"),
        ("loss", NotANumber, SOUND_LOSS, "runs", "it gives nan"),
        ("distance", NowhereNear, SOUND_DISTANCE, "runs", "it gives inf"),
        ("loss", OfEachAnchor, SOUND_LOSS, "runs", "a loss is one number; of a plain batch it returns a tensor (12,)"),
        ("loss", Cut, SOUND_LOSS, "differentiable", "item()"),
        ("loss", SteepAtZero, SOUND_LOSS, "differentiable", "is in the gradient of embeddings"),
        ("loss", BrokenBackward, SOUND_LOSS, "differentiable", "of test_laws_roots.py)"),
        ("loss", ScalesItsInput, SOUND_LOSS, "differentiable", "of inputs that need a gradient it does not run"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_is_wrong_with_everything_is_said_once(kind, target, spec, law, word):
    found = broken_laws(kind, target, spec)
    assert set(found) == {law}, found
    assert word in found[law]


def test_the_other_laws_say_where_to_look():
    registry = Registry(discover(selector=Selector(allow=frozenset({"core", "pml"}))))
    subject = Subject(registry.register(LossSpec(**SOUND_LOSS), NotANumber), registry)
    found = Check(subject, LAWS["permutation"]).run()
    assert found.status == "skipped"
    assert found.reason.startswith("see the law `runs`: ")


# ---- samples


class Graded(Loss):
    r"""Squared difference of scores and grades.

    .. math:: (s - g)^2
    """

    def terms(self, *inputs):
        scores, grades = inputs
        if scores.shape != grades.shape:
            raise ValueError(f"scores {tuple(scores.shape)} and grades {tuple(grades.shape)} differ")
        return element_terms((scores - grades).square())


def right(n=8, seed=0):
    """Scores and grades as they should be."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(2))


def one_tensor(n=8, seed=0):
    return torch.stack(right(n, seed))


def by_name(n=8, seed=0):
    return dict(zip(("scores", "grades"), right(n, seed), strict=True))


def too_few(n=8, seed=0):
    return right(n, seed)[:1]


def lists(n=8, seed=0):
    return tuple(tensor.tolist() for tensor in right(n, seed))


def single_precision(n=8, seed=0):
    return tuple(tensor.float() for tensor in right(n, seed))


def leaves(n=8, seed=0):
    return tuple(tensor.requires_grad_() for tensor in right(n, seed))


def with_holes(n=8, seed=0):
    return tuple(tensor / 0 * 0 for tensor in right(n, seed))


def unseeded(n=8, seed=0):
    return tuple(torch.randn(n, dtype=torch.float64) for _ in range(2))


def seeds_everybody(n=8, seed=0):
    torch.manual_seed(seed)
    return tuple(torch.randn(n, dtype=torch.float64) for _ in range(2))


def deaf_to_its_seed(n=8, seed=0):
    return right(n, 0)


def of_one_size(n=8, seed=0):
    return right(8, seed)


def without_arguments():
    return right()


_COUNTED = iter(range(10**6))


def counting(n=8, seed=0):
    return right(n, next(_COUNTED))


GRADED = {
    "name": "graded",
    "target": "somewhere:Else",
    "summary": "Squared difference of scores and grades.",
    "inputs": ("scores", "grades"),
    "memory": 1,
}


def test_a_right_sample_is_held_against_nobody():
    assert broken_laws("loss", Graded, GRADED, sample="kit.test_laws_roots:right") == {}


@pytest.mark.parametrize(
    ("sample", "word"),
    [
        (one_tensor, "returns a Tensor; return a tuple, a tensor for each of the inputs scores, grades"),
        (by_name, "returns a dict; return a tuple"),
        (too_few, "returns 1 tensors; return one for each of the inputs scores, grades"),
        (lists, "returns a list for scores"),
        (single_precision, "returns scores in torch.float32; return float64"),
        (leaves, "requires a gradient"),
        (with_holes, "is not a number"),
        (unseeded, "draws from torch's own random generator"),
        (seeds_everybody, "draws from torch's own random generator"),
        (deaf_to_its_seed, "gives the same for another seed"),
        (of_one_size, "no more rows than for n=8"),
        (without_arguments, "raises TypeError: without_arguments() got an unexpected keyword argument 'n'"),
        (counting, "gives something else when it is called again with the same seed"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_sample_is_no_fault_of_the_loss(sample, word):
    found = broken_laws("loss", Graded, GRADED, sample=f"kit.test_laws_roots:{sample.__name__}")
    assert set(found) == {"sample"}
    assert f"kit.test_laws_roots:{sample.__name__} " in found["sample"]
    assert word in found["sample"]


class Exponential(Graded):
    # Overflows where scores are large.

    def terms(self, *inputs):
        terms = super().terms(*inputs)
        return element_terms(terms.values + (inputs[0] - inputs[1]).exp())


def test_inputs_that_nothing_is_known_of_are_made_huge_all_the_same():
    found = broken_laws("loss", Exponential, GRADED, sample="kit.test_laws_roots:right")
    assert set(found) == {"extremes"}
    assert "inputs times 10000" in found["extremes"]
