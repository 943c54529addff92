"""Each law on labels, shapes and layouts catches the part that is wrong in that way, and only it does.

The broken parts have no docstrings, so that they inherit those of the sound ones, which keep the laws on docstrings.
"""

from __future__ import annotations

import torch

from kit.sound import SOUND_BOX_LOSS, SOUND_LOSS, SoundBoxLoss, SoundLoss, broken_laws
from nearfar.nn import ClassLoss


class NarrowLabels(SoundLoss):
    # Compares labels in float32, which has no number of its own for each of them.

    def forward(self, embeddings, labels=None, indices_tuple=None, ref_emb=None, ref_labels=None):
        if isinstance(labels, torch.Tensor) and labels.dtype == torch.int64:
            labels = labels.float().long()
        return super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)


class ClippedLabels(ClassLoss):
    r"""Softmax; takes a label beyond the last class for the last class.

    .. math:: -\log p_y

    Parameters
    ----------
    num_classes, embedding_size
        As in :class:`nearfar.ClassLoss`.
    reducer
        As in :class:`nearfar.Loss`.
    """

    def __init__(self, num_classes: int, embedding_size: int, *, reducer=None) -> None:
        super().__init__(num_classes, embedding_size, reducer=reducer)
        self.weight = torch.nn.Parameter(0.1 * torch.randn(num_classes, embedding_size))

    def scores(self, embeddings):
        embeddings, weight = self.common(embeddings, self.weight)
        return embeddings @ weight.T

    def losses(self, embeddings, labels):
        return torch.nn.functional.cross_entropy(self.scores(embeddings), labels, reduction="none")

    def _check_range(self, labels):
        # Huge labels are refused as they should be: what is wrong shows at the edge alone.
        if len(labels) and (labels.min() < 0 or labels.max() > self.num_classes):
            super()._check_range(labels)
        labels.clamp_(max=self.num_classes - 1)


class RoundsGrades(SoundLoss):
    # Whatever is relevant at all is a positive to it.

    graded = True


class Flattens(SoundLoss):
    # Takes several vectors a sample for one long one.

    def forward(self, embeddings, labels=None, indices_tuple=None, ref_emb=None, ref_labels=None):
        long = embeddings.flatten(1) if embeddings.ndim == 3 else embeddings
        return super().forward(long, labels, indices_tuple, ref_emb, ref_labels)


class Broadcasts(SoundBoxLoss):
    # Compares every prediction with a single target, where only one is given.

    def terms(self, *inputs):
        prediction, target = inputs
        return super().terms(prediction, target.expand_as(prediction) if len(target) == 1 else target)


class Pairs(SoundBoxLoss):
    # Compares as many predictions as there are targets, which is a way to match them.

    def terms(self, *inputs):
        prediction, target = inputs
        return super().terms(prediction[: len(target)], target[: len(prediction)])


class Views(SoundLoss):
    # Views its embeddings, which must lie in one piece for that.

    def terms(self, batch):
        batch.embeddings.view(-1)
        return super().terms(batch)


def test_labels_that_lose_bits_are_found():
    found = broken_laws("loss", NarrowLabels, SOUND_LOSS)
    assert set(found) == {"labels"}
    assert "labels from 2⁶² on" in found["labels"]


def test_labels_that_are_clipped_are_found():
    spec = {
        **SOUND_LOSS,
        "needs": ("num_classes", "embedding_size"),
        "accepts": ("pairs", "triplets", "weights"),
        "emits": ("element",),
        "reference": False,
        "distances": (),
        "default_distance": "",
        "uses_norm": True,
        "memory": 1,
    }
    found = broken_laws("loss", ClippedLabels, spec)
    assert set(found) == {"labels"}
    assert "a label 6 of 6 classes" in found["labels"]


def test_grades_that_are_taken_for_classes_are_found():
    found = broken_laws("loss", RoundsGrades, SOUND_LOSS)
    assert set(found) == {"grades"}
    assert "are not refused" in found["grades"]
    found = broken_laws("loss", RoundsGrades, {**SOUND_LOSS, "graded": True})
    assert set(found) == {"grades"}
    assert "not heeded" in found["grades"]


def test_embeddings_that_are_flattened_are_found():
    found = broken_laws("loss", Flattens, SOUND_LOSS)
    assert set(found) == {"shapes"}
    assert "(12, 2, dim)" in found["shapes"]


def test_a_target_that_is_broadcast_is_found():
    found = broken_laws("loss", Broadcasts, SOUND_BOX_LOSS)
    assert set(found) == {"shapes"}
    assert "1 target_boxes: the one is taken for all 12" in found["shapes"]


def test_a_loss_that_matches_as_many_as_it_can_may_be_given_fewer_targets_than_predictions():
    assert "shapes" not in broken_laws("loss", Pairs, SOUND_BOX_LOSS)


def test_a_loss_that_asks_for_embeddings_in_one_piece_is_found():
    assert set(broken_laws("loss", Views, SOUND_LOSS)) == {"layout"}
