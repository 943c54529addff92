"""Each law on numbers catches the loss that is wrong in that way, and only it does.

The broken parts have no docstrings, so that they inherit that of the sound one.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from kit.sound import SOUND_BOX_LOSS, SOUND_LOSS, SoundBoxLoss, SoundLoss, broken_laws
from nearfar import Loss, MaterialTerms
from nearfar.nn import ClassLoss
from nearfar.nn.class_losses import cross_entropy
from nearfar.nn.terms import element_terms
from nearfar.nn.vectors import unit


def with_values(terms, values):
    """The terms of a triplet loss with other values."""
    return MaterialTerms("triplet", values, terms.indices, num_anchors=terms.num_anchors, labels=terms.labels)


def triplet(embeddings, labels, ref_emb=None, ref_labels=None, margin=0.5):
    """The definition of the sound loss: the mean over all triplets, one by one."""
    others, theirs = (embeddings, labels) if ref_emb is None else (ref_emb, ref_labels)
    costs = []
    for a, p, n in itertools.product(range(len(embeddings)), range(len(others)), range(len(others))):
        if labels[a] == theirs[p] != theirs[n] and not (ref_emb is None and a == p):
            x, y, z = (v / v.norm() for v in (embeddings[a], others[p], others[n]))
            costs.append(max(0.0, float((x - y).norm() - (x - z).norm()) + margin))
    return sum(costs) / len(costs)


def triplet_without_margin(embeddings, labels, ref_emb=None, ref_labels=None):
    """The definition of another loss."""
    return triplet(embeddings, labels, ref_emb, ref_labels, margin=0.0)


class WarmsUp(SoundLoss):
    # The value grows with the number of calls in training.

    def __init__(self, margin=0.5, *, distance=None, reducer=None):
        super().__init__(margin, distance=distance, reducer=reducer)
        self.register_buffer("calls", torch.zeros(()))

    def terms(self, batch):
        terms = super().terms(batch)
        factor = 1 + self.calls.double() / 100
        if self.training:
            self.calls += 1
        return with_values(terms, terms.values * factor)


def warm_triplet(embeddings, labels, calls, ref_emb=None, ref_labels=None):
    """The definition of a loss that warms up."""
    return triplet(embeddings, labels, ref_emb, ref_labels) * (1 + float(calls) / 100)


class SoundClassLoss(ClassLoss):
    r"""Cross entropy of cosines to class weights.

    .. math:: -\log\frac{e^{s\cos\theta_{iy_i}}}{\sum_j e^{s\cos\theta_{ij}}}

    Parameters
    ----------
    num_classes : int
        [1..inf] Number of classes.
    embedding_size : int
        [1..inf] Dimension of the embeddings.
    reducer
        As in :class:`nearfar.EmbeddingLoss`.
    """

    def __init__(self, num_classes: int, embedding_size: int, *, reducer=None):
        super().__init__(num_classes, embedding_size, reducer=reducer)
        self.weight = torch.nn.Parameter(torch.randn(num_classes, embedding_size))

    def losses(self, embeddings, labels):
        return cross_entropy(self.scores(embeddings), labels)

    def scores(self, embeddings):
        x, w = self.common(embeddings, self.weight)
        return 16 * unit(x)[0] @ unit(w)[0].T


SOUND_CLASS_LOSS = {
    "name": "sound_classes",
    "target": "somewhere:Else",
    "summary": "Cross entropy of cosines to class weights.",
    "needs": ("num_classes", "embedding_size"),
    "accepts": ("pairs", "triplets", "weights"),
    "memory": 1,
}


class SoundLogitLoss(Loss):
    r"""Binary cross entropy.

    .. math:: -y \log\sigma(z) - (1 - y) \log(1 - \sigma(z))
    """

    def terms(self, *inputs):
        logits, targets = inputs
        costs = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.to(logits), reduction="none")
        return element_terms(costs.sum(1))


SOUND_LOGIT_LOSS = {
    "name": "sound_logits",
    "target": "somewhere:Else",
    "summary": "Binary cross entropy.",
    "inputs": ("logits", "targets"),
    "optimum": 0.0,
    "memory": 1,
}


class DetachedWeights(SoundLoss):
    # Each triplet weighs what it costs, and the weight is held constant.

    def terms(self, batch):
        terms = super().terms(batch)
        return with_values(terms, terms.values * terms.values.detach())


class GradientTwice(SoundLoss):
    # The gradient is twice that of the value.

    def terms(self, batch):
        terms = super().terms(batch)
        return with_values(terms, 2 * terms.values - terms.values.detach())


class GradientTurned(SoundLoss):
    # The gradient is that of what is held constant, the other way round.

    def terms(self, batch):
        terms = super().terms(batch)
        return with_values(terms, 2 * terms.values.detach() - terms.values)


class RoundedOnTheWay(SoundLoss):
    # Costs in float32 pass through bfloat16.

    def terms(self, batch):
        terms = super().terms(batch)
        rounded = terms.values.bfloat16().float() if terms.values.dtype == torch.float32 else terms.values
        return with_values(terms, rounded)


class MarginInFloat32(SoundLoss):
    # The margin is a tensor of torch's default dtype: of 0.6, say, only seven digits are left.

    def terms(self, batch):
        a, p, n = batch.triplets()
        d = self.distance(batch.embeddings, batch.reference)
        sign = -1 if self.distance.is_inverted else 1
        costs = (sign * (d[a, p] - d[a, n]) + torch.tensor(self.margin)).relu()
        return MaterialTerms("triplet", costs, (a, p, n), num_anchors=len(d), labels=batch.labels)


class AveragedInFloat32(SoundLoss):
    # Whole numbers times one that is not are in torch's default dtype.

    def terms(self, batch):
        terms = super().terms(batch)
        return with_values(terms, terms.values / (terms.count() * 0.1) * (len(terms.values) * 0.1))


class OverflowsInHalf(SoundLoss):
    # A factor that float16 does not hold.

    def forward(self, embeddings, *args, **kwargs):
        return super().forward(embeddings * 1e5 if embeddings.dtype == torch.float16 else embeddings, *args, **kwargs)


class HalfUnderAutocast(SoundLoss):
    # The value goes along with autocast.

    def forward(self, *args, **kwargs):
        value = super().forward(*args, **kwargs)
        return value.bfloat16() if torch.is_autocast_enabled("cpu") else value


class CastsWeights(SoundClassLoss):
    # Half precision in the batch comes over the weights.

    def forward(self, embeddings, *args, **kwargs):
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            self.weight.data = self.weight.data.to(embeddings.dtype)
        return super().forward(embeddings, *args, **kwargs)


class RoundsWeights(SoundClassLoss):
    # The weights keep their dtype under autocast, but not their digits.

    def forward(self, embeddings, *args, **kwargs):
        if torch.is_autocast_enabled("cpu"):
            self.weight.data = self.weight.data.bfloat16().to(self.weight.dtype)
        return super().forward(embeddings, *args, **kwargs)


class DividesByLength(SoundLoss):
    # Unit vectors without a thought of those that have no length.

    def terms(self, batch):
        terms = super().terms(batch)
        lengths = batch.embeddings.norm(dim=1)
        return with_values(terms, terms.values * (lengths / lengths)[terms.indices[0]])


class SteepOnSquares(SoundLoss):
    # The root of a squared distance, which has no gradient where it is zero.

    def terms(self, batch):
        terms = super().terms(batch)
        if getattr(self.distance, "power", 1) != 2:
            return terms
        a, p, _ = terms.indices
        return with_values(terms, terms.values + 0 * self.distance(batch.embeddings, batch.reference)[a, p].sqrt())


class LogOfProbability(SoundLogitLoss):
    # The logarithm of a probability that rounds to 0.

    def terms(self, *inputs):
        super().terms(*inputs)
        logits, targets = inputs
        p, y = logits.sigmoid(), targets.to(logits)
        return element_terms(-(y * p.log() + (1 - y) * (1 - p).log()).sum(1))


class RelativeToWidth(SoundBoxLoss):
    # A box of no width has no relative error.

    def terms(self, *inputs):
        width = inputs[0][:, 2] - inputs[0][:, 0]
        return element_terms(super().terms(*inputs).values * (width / width))


@pytest.mark.parametrize(
    ("law", "target", "spec", "changed", "said"),
    [
        ("gradient", DetachedWeights, SOUND_LOSS, {}, "detached="),
        ("gradient", GradientTwice, SOUND_LOSS, {}, "along a direction of embeddings"),
        ("detached", SoundLoss, SOUND_LOSS, {"detached": "its weights"}, "the gradient is that of the value"),
        ("descent", GradientTurned, SOUND_LOSS, {"detached": "everything"}, "never lead below"),
        ("optimum", SoundLoss, SOUND_LOSS, {"optimum": 0.5}, "a perfect input costs 0"),
        ("optimum", SoundLogitLoss, SOUND_LOGIT_LOSS, {"optimum": 1.0}, "a perfect input costs 0"),
        (
            "definition",
            SoundLoss,
            SOUND_LOSS,
            {"definition": "kit.test_laws_numbers:triplet_without_margin"},
            "by its definition",
        ),
        (
            "definition",
            WarmsUp,
            SOUND_LOSS,
            {"definition": "kit.test_laws_numbers:triplet"},
            "after 3 calls, in which its parameters and buffers moved",
        ),
        ("precision", RoundedOnTheWay, SOUND_LOSS, {}, "rounding explains"),
        ("default_dtype", MarginInFloat32, SOUND_LOSS, {}, "unless float64 is torch's default dtype"),
        ("default_dtype", AveragedInFloat32, SOUND_LOSS, {}, "whole numbers"),
        ("half", OverflowsInHalf, SOUND_LOSS, {}, "in float16 the value is not finite"),
        ("autocast", HalfUnderAutocast, SOUND_LOSS, {}, "torch.bfloat16"),
        ("master_parameters", CastsWeights, SOUND_CLASS_LOSS, {}, "turns weight"),
        ("master_parameters", RoundsWeights, SOUND_CLASS_LOSS, {}, "changes the parameter weight"),
        ("extremes", DividesByLength, SOUND_LOSS, {}, "one vector of zeros"),
        ("extremes", SteepOnSquares, SOUND_LOSS, {}, "on core.squared_euclidean"),
        ("extremes", LogOfProbability, SOUND_LOGIT_LOSS, {"optimum": None}, "all wrong"),
        ("extremes", RelativeToWidth, SOUND_BOX_LOSS, {}, "no width"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_law_catches_what_is_wrong(law, target, spec, changed, said):
    found = broken_laws("loss", target, spec, **changed)
    assert set(found) == {law}
    assert said in found[law]


@pytest.mark.parametrize(
    ("target", "spec", "changed"),
    [
        (SoundLoss, SOUND_LOSS, {"definition": "kit.test_laws_numbers:triplet", "optimum": 0.0}),
        (WarmsUp, SOUND_LOSS, {"definition": "kit.test_laws_numbers:warm_triplet"}),
        (SoundClassLoss, SOUND_CLASS_LOSS, {}),
        (SoundLogitLoss, SOUND_LOGIT_LOSS, {}),
        (DetachedWeights, SOUND_LOSS, {"detached": "What a triplet weighs."}),
    ],
    ids=["definition", "definition with state", "class weights", "logits", "detached"],
)
def test_sound_losses_keep_every_law(target, spec, changed):
    assert broken_laws("loss", target, spec, **changed) == {}


def of_another_world(embeddings, labels):
    """A definition that does not run."""
    return embeddings["labels"]


def test_what_a_definition_raises_is_said_of_the_definition():
    found = broken_laws("loss", SoundLoss, SOUND_LOSS, definition="kit.test_laws_numbers:of_another_world")
    assert set(found) == {"definition"}
    assert found["definition"].startswith("its definition kit.test_laws_numbers:of_another_world raises IndexError: ")
    assert " of test_laws_numbers.py)" in found["definition"].partition("\n")[0]
