"""Each law on losses of embeddings catches the loss that is wrong in that way, and only it does.

The broken parts have no docstrings, so that they inherit that of the sound one.
"""

from __future__ import annotations

import pytest
import torch

from kit.sound import SOUND_LOSS, SoundLoss, broken_laws
from kit.test_laws_numbers import SOUND_CLASS_LOSS, SoundClassLoss, with_values
from nearfar import Loss, MaterialTerms
from nearfar.errors import InputError
from nearfar.nn import ClassLoss
from nearfar.nn.terms import element_terms
from nearfar.nn.vectors import unit


class WeighsPosition(SoundLoss):
    # The first sample counts for more than the others.

    def terms(self, batch):
        terms = super().terms(batch)
        return with_values(terms, terms.values * (1 + 0.125 * (terms.indices[0] == 0)))


class WeighsReferencePosition(SoundLoss):
    # Positions in the reference set are compared with positions in the batch, where the sets differ in size.

    def terms(self, batch):
        terms = super().terms(batch)
        if len(batch.reference) == len(batch.embeddings):
            return terms
        a, _, n = terms.indices
        return with_values(terms, terms.values * (1 + 0.125 * (a == n)))


class MistakesReferenceLabels(SoundLoss):
    # Takes the labels of the batch for those of a reference set of the same size.

    def forward(self, embeddings, labels=None, indices_tuple=None, ref_emb=None, ref_labels=None):
        if ref_labels is not None and labels is not None and len(ref_labels) == len(labels):
            ref_labels = labels
        return super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)


class WeighsFirstClass(SoundLoss):
    # The class of the first sample counts for more than the others.

    def terms(self, batch):
        terms = super().terms(batch)
        if batch.labels is None or not len(batch.labels):
            return terms
        return with_values(terms, terms.values * (1 + 0.125 * (batch.labels == batch.labels[0])[terms.indices[0]]))


class WeighsFirstOfClass(SoundLoss):
    # The first sample of each class counts for more than the others, as it says.

    def terms(self, batch):
        terms = super().terms(batch)
        if batch.labels is None or not len(batch.labels):
            return terms
        places = torch.arange(len(batch.labels), device=batch.labels.device)
        first = (batch.labels[:, None] == batch.labels).int().argmax(1) == places
        return with_values(terms, terms.values * (1 + 0.125 * first[terms.indices[0]]))


class NearestToItself(SoundLoss):
    # A reference that is a copy of the anchor settles it, selected or not, where there are as many of them.

    def terms(self, batch):
        terms = super().terms(batch)
        if batch.is_self or len(batch.reference) != len(batch.embeddings):
            return terms
        apart = torch.cdist(batch.embeddings.detach(), batch.reference.detach()).amin(1) > 0
        return with_values(terms, terms.values * apart[terms.indices[0]])


class WeighsClassByRank(SoundLoss):
    # The class with the least id counts for more than the others.

    def terms(self, batch):
        terms = super().terms(batch)
        if batch.labels is None or not len(batch.labels):
            return terms
        return with_values(terms, terms.values * (1 + 0.125 * (batch.labels == batch.labels.min())[terms.indices[0]]))


class WeighsFirstWeight(SoundClassLoss):
    # Class 0 counts for more than the others, whatever is kept for it.

    def losses(self, embeddings, labels):
        return super().losses(embeddings, labels) * (1 + 0.125 * (labels == 0))


class ComparesSamples(SoundClassLoss):
    # The losses of a batch are a softmax of themselves, as over the wrong axis.

    def losses(self, embeddings, labels):
        losses = super().losses(embeddings, labels)
        return losses * losses.softmax(0)


class WeighsLength(SoundLoss):
    # Long embeddings count for more, and nobody says so.

    def terms(self, batch):
        terms = super().terms(batch)
        return with_values(terms, terms.values * batch.embeddings.norm(dim=1)[terms.indices[0]])


class PushesPositives(SoundLoss):
    # Positives and negatives in each other's place.

    def terms(self, batch):
        a, p, n = batch.triplets()
        d = self.distance(batch.embeddings, batch.reference)
        sign = -1 if self.distance.is_inverted else 1
        values = (sign * (d[a, n] - d[a, p]) + self.margin).relu()
        return MaterialTerms("triplet", values, (a, p, n), num_anchors=len(batch.embeddings), labels=batch.labels)


class Attraction(ClassLoss):
    r"""Squared distance to a learned centre.

    .. math:: \lVert x_i - c_{y_i} \rVert^2

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
        self.centers = torch.nn.Parameter(torch.zeros(num_classes, embedding_size))

    def losses(self, embeddings, labels):
        x, centers = self.common(embeddings, self.centers)
        return (x - centers[labels]).square().sum(1)

    def scores(self, embeddings):
        return -torch.cdist(*self.common(embeddings, self.centers))


ATTRACTION = {
    **SOUND_CLASS_LOSS,
    "name": "attraction",
    "summary": "Squared distance to a learned centre.",
    "uses_norm": True,
}
COLLAPSES = {"collapses": "It only draws a class together.", "optimum": 0.0}


class SeveralWeights(SoundClassLoss):
    # Two weight vectors a class, of which the nearer counts, as it should.

    def __init__(self, num_classes: int, embedding_size: int, *, reducer=None):
        super().__init__(num_classes, embedding_size, reducer=reducer)
        self.weight = torch.nn.Parameter(torch.randn(embedding_size, 2 * num_classes))

    def scores(self, embeddings):
        x, w = self.common(embeddings, self.weight)
        return 16 * (unit(x)[0] @ unit(w, 0)[0]).unflatten(1, (2, self.num_classes)).amax(1)


class Views(Loss):
    r"""Cross entropy of a sample's second view among those of the batch.

    .. math:: -\log\frac{e^{s\cos(u_i, v_i)}}{\sum_j e^{s\cos(u_i, v_j)}}
    """

    sign = 1

    def terms(self, *inputs):
        if inputs[0].shape != inputs[1].shape:
            raise InputError("first_view and second_view differ in shape")
        logits = self.sign * 16 * unit(inputs[0])[0] @ unit(inputs[1])[0].T
        if not len(logits):
            return element_terms(logits.sum(1))
        own = torch.arange(len(logits), device=logits.device)
        return element_terms(torch.nn.functional.cross_entropy(logits, own, reduction="none"))


class ViewsApart(Views):
    # The second view of a sample is pushed away.

    sign = -1


VIEWS = {
    "name": "views",
    "target": "somewhere:Else",
    "summary": "Cross entropy of a sample's second view among those of the batch.",
    "inputs": ("first_view", "second_view"),
    "memory": 2,
}


@pytest.mark.parametrize(
    ("law", "target", "spec", "changed", "said"),
    [
        ("permutation", WeighsPosition, SOUND_LOSS, {}, "the order of the batch changes the value"),
        ("permutation", WeighsFirstClass, SOUND_LOSS, {"order_dependent": True}, "which class comes first"),
        ("permutation", SoundLoss, SOUND_LOSS, {"order_dependent": True}, "never changes the value"),
        ("reference_permutation", WeighsReferencePosition, SOUND_LOSS, {}, "the order of the reference set"),
        ("reference_permutation", MistakesReferenceLabels, SOUND_LOSS, {}, "the order of the reference set"),
        ("reference_is_batch", NearestToItself, SOUND_LOSS, {}, "compared with a copy of the batch"),
        ("relabelling", WeighsClassByRank, SOUND_LOSS, {}, "renamed to"),
        ("relabelling", WeighsFirstWeight, SOUND_CLASS_LOSS, {}, "renamed to"),
        ("sample_independence", ComparesSamples, SOUND_CLASS_LOSS, {}, "among others and"),
        ("scale", WeighsLength, SOUND_LOSS, {}, "uses_norm="),
        ("scale", SoundLoss, SOUND_LOSS, {"uses_norm": True}, "cost the same"),
        ("clustering", PushesPositives, SOUND_LOSS, {}, "perfect clusters cost"),
        ("clustering", Attraction, ATTRACTION, {}, "collapses="),
        ("clustering", SoundLoss, SOUND_LOSS, COLLAPSES, "the spec says that the loss collapses"),
        ("clustering", ViewsApart, VIEWS, {}, "two views"),
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
        (WeighsFirstOfClass, SOUND_LOSS, {"order_dependent": True}),
        (Attraction, ATTRACTION, COLLAPSES),
        (SeveralWeights, SOUND_CLASS_LOSS, {}),
        (Views, VIEWS, {}),
    ],
    ids=["order dependent", "collapses", "several weights a class", "two views"],
)
def test_sound_losses_keep_every_law(target, spec, changed):
    assert broken_laws("loss", target, spec, **changed) == {}


class UpsideDown(SoundLoss):
    # Forgets that of a similarity larger is nearer.

    def terms(self, batch):
        a, p, n = batch.triplets()
        d = self.distance(batch.embeddings, batch.reference)
        values = (d[a, p] - d[a, n] + self.margin).relu()
        return MaterialTerms("triplet", values, (a, p, n), num_anchors=len(batch.embeddings), labels=batch.labels)


def test_a_loss_that_is_upside_down_on_similarities_is_found():
    found = broken_laws("loss", UpsideDown, SOUND_LOSS)
    assert set(found) == {"similarity"}
    assert "larger is nearer" in found["similarity"]
