"""Each law on what a call leaves behind catches the part that leaves it, and only that law does."""

from __future__ import annotations

import warnings
import weakref

import pytest
import torch

from kit.sound import SOUND_DISTANCE, SOUND_LOSS, SOUND_MINER, SoundDistance, SoundLoss, SoundMiner, broken_laws
from nearfar.nn import IndexSelection, MaterialTerms


def scaled(terms, factor):
    """Terms with their values times a factor."""
    return MaterialTerms("triplet", terms.values * factor, terms.indices, num_anchors=terms.num_anchors)


#: Part → what is left of its last call, graph and all; outside the part, so that no law on what parts keep sees it.
LAST = weakref.WeakKeyDictionary()


class KeepsItsGraph(SoundLoss):
    # Adds nothing of the last call's value to this one's: its graph comes along.

    def forward(self, *args, **kwargs):
        value = super().forward(*args, **kwargs)
        last = LAST.get(self)
        LAST[self] = value
        return value if last is None or not last.requires_grad else value + 0 * last


class KeepsItsBatch(SoundLoss):
    # Pulls at the last call's embeddings too, which are no one's to pull at any more.

    def forward(self, embeddings, *args, **kwargs):
        last = LAST.get(self)
        LAST[self] = embeddings
        value = super().forward(embeddings, *args, **kwargs)
        return value if last is None else value + 0 * last.nan_to_num(posinf=0, neginf=0).sum()


class WearsOut(torch.autograd.Function):
    # Its backward pass spoils what the next one needs.

    @staticmethod
    def forward(ctx, x):
        ctx.uses = 0
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.uses += 1
        return gradient / ctx.uses


class WearsOutLoss(SoundLoss):
    def forward(self, *args, **kwargs):
        return WearsOut.apply(super().forward(*args, **kwargs))


class KeepsItsSize(SoundLoss):
    # Believes that every batch is as large as the first.

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        self.size = 0

    def terms(self, batch):
        self.size = self.size or len(batch.embeddings)
        return scaled(super().terms(batch), self.size / max(len(batch.embeddings), 1))


class TrimsInPlace(SoundLoss):
    # Takes the last binary places off its embeddings, in the caller's tensor.

    def terms(self, batch):
        batch.embeddings.data.mul_(2**44).round_().div_(2**44)
        return super().terms(batch)


class RoundsInPlace(SoundDistance):
    # Takes the smallest numbers off its input, in the caller's tensor.

    def matrix(self, query, reference):
        query.data.mul_(1 - 1e-14)
        return super().matrix(query, reference)


class DrawsANumber(SoundLoss):
    # Draws a number, and makes no use of it.

    def terms(self, batch):
        torch.rand(())
        return super().terms(batch)


class SilencesWarnings(SoundMiner):
    # Turns off a warning for everybody.

    def choose(self, batch, distance, loss):
        warnings.filterwarnings("ignore", "nothing that is ever said")
        return super().choose(batch, distance, loss)


class MindsGradients(SoundLoss):
    # Half as much where no gradient is recorded.

    def terms(self, batch):
        return scaled(super().terms(batch), 1.0 if torch.is_grad_enabled() else 0.5)


class CachesAConstant(SoundLoss):
    # Makes a constant in the first call, which inference mode spoils for training.

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        self.register_buffer("factor", None, persistent=False)

    def terms(self, batch):
        if self.factor is None:
            self.factor = torch.ones((), dtype=torch.float64, device=batch.embeddings.device)
        return scaled(super().terms(batch), self.factor)


class CountsAlways(SoundLoss):
    # Costs more with every call, in eval mode too.

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        self.register_buffer("calls", torch.zeros(()))

    def terms(self, batch):
        self.calls += 1
        return scaled(super().terms(batch), 1 + self.calls.double() / 1000)


class StartsFromZero(SoundLoss):
    # Numbers the classes from 0, in the tensor it was given.

    def forward(self, embeddings, labels=None, *args, **kwargs):
        if isinstance(labels, torch.Tensor) and len(labels):
            labels -= labels.min()
        return super().forward(embeddings, labels, *args, **kwargs)


class StartsGeneratorsAnew(SoundLoss):
    # Draws nothing, but every batch of everybody else's dropout is the same from now on.

    def terms(self, batch):
        torch.manual_seed(0)
        return super().terms(batch)


class SeedsWhenMade(SoundLoss):
    # Its weights, if it had any, were always the same; and so is everybody else's next dropout.

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        torch.manual_seed(0)


class SilencesWhenMade(SoundLoss):
    # Turns off a warning for everybody, from the start.

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        warnings.filterwarnings("ignore", "nothing that anybody says")


class EmptyHanded(SoundMiner):
    # Finds nothing where no gradient mode is on, as it always is in a miner, unless that is inference mode.

    def choose(self, batch, distance, loss):
        if torch.is_inference_mode_enabled():
            none = torch.empty(0, dtype=torch.int64)
            return IndexSelection((none, none, none))
        return super().choose(batch, distance, loss)


class LeavesAMode(SoundLoss):
    # Asks for deterministic kernels, from then on and of everybody.

    def terms(self, batch):
        torch.use_deterministic_algorithms(True)
        return super().terms(batch)


class SilencesEverything(SoundLoss):
    # Wants to hear of nothing any more, nor anybody else to.

    def terms(self, batch):
        warnings.filterwarnings("ignore")
        return super().terms(batch)


class CostsMoreInEval(SoundLoss):
    # Has another value where it is not trained.

    def terms(self, batch):
        return scaled(super().terms(batch), 1.0 if self.training else 2.0)


@pytest.mark.parametrize(
    ("kind", "target", "spec", "law", "word"),
    [
        ("loss", SilencesEverything, SOUND_LOSS, "globals_untouched", "the filters of warnings"),
        ("loss", LeavesAMode, SOUND_LOSS, "globals_untouched", "whether torch is to be deterministic"),
        ("loss", CostsMoreInEval, SOUND_LOSS, "evaluation", "in eval mode a batch gives"),
        ("loss", KeepsItsGraph, SOUND_LOSS, "repeated", "second batch fails"),
        ("loss", KeepsItsBatch, SOUND_LOSS, "repeated", "reaches embeddings of the first"),
        ("loss", WearsOutLoss, SOUND_LOSS, "backward_twice", "another gradient"),
        ("loss", KeepsItsSize, SOUND_LOSS, "growth", "batch 2, of 12 rows"),
        ("loss", TrimsInPlace, SOUND_LOSS, "inputs_untouched", "its input embeddings"),
        ("loss", StartsFromZero, SOUND_LOSS, "inputs_untouched", "its input labels"),
        ("distance", RoundsInPlace, SOUND_DISTANCE, "inputs_untouched", "its input query_emb"),
        ("loss", DrawsANumber, SOUND_LOSS, "globals_untouched", "torch's random generator"),
        ("loss", StartsGeneratorsAnew, SOUND_LOSS, "globals_untouched", "torch's random generator"),
        ("loss", SeedsWhenMade, SOUND_LOSS, "globals_untouched", "making it starts torch's random generator anew"),
        ("loss", SilencesWhenMade, SOUND_LOSS, "globals_untouched", "making it changes the filters of warnings"),
        ("miner", SilencesWarnings, SOUND_MINER, "globals_untouched", "the filters of warnings"),
        ("loss", MindsGradients, SOUND_LOSS, "without_gradient", "under torch.no_grad()"),
        ("loss", CachesAConstant, SOUND_LOSS, "without_gradient", "cannot be trained"),
        ("miner", EmptyHanded, SOUND_MINER, "without_gradient", "under torch.inference_mode()"),
        ("loss", CountsAlways, SOUND_LOSS, "evaluation", "in eval mode"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_a_call_leaves_behind_is_found(kind, target, spec, law, word):
    found = broken_laws(kind, target, spec)
    assert set(found) == {law}
    assert word in found[law]


def test_a_part_that_is_random_may_draw_numbers():
    assert "globals_untouched" not in broken_laws("loss", DrawsANumber, SOUND_LOSS, random=True)
