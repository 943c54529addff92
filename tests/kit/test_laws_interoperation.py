"""Each law about parts of pytorch-metric-learning finds the part that does not go with them, and no other law does."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kit.sound import (
    SOUND_DISTANCE,
    SOUND_LOSS,
    SOUND_REDUCER,
    SoundDistance,
    SoundLoss,
    SoundReducer,
    broken_laws,
)


class OneThing(SoundLoss):
    """Given a selection, it looks at the batch alone."""

    def terms(self, batch):
        if batch.selection is not None and not batch.is_self and len(batch.reference) > 12:
            raise IndexError("a selection is of the batch")
        return super().terms(batch)


def test_what_their_miners_select_is_taken():
    found = broken_laws("loss", OneThing, SOUND_LOSS)
    assert set(found) == {"pml_miners"}
    assert "selects of a reference set it raises IndexError" in found["pml_miners"]


class BadlyDivided(SoundLoss):
    """What it tells others to divide by is no number."""

    def _reduce_foreign(self, named, inputs, labels):
        for terms in named.values():
            terms.normalizer = torch.nan
        return super()._reduce_foreign(named, inputs, labels)


def test_their_reducers_reduce():
    found = broken_laws("loss", BadlyDivided, SOUND_LOSS)
    assert set(found) == {"pml_reducers"}
    assert "reduced by pml.divisor_reducer it is nan" in found["pml_reducers"]


class AmongFriends(SoundLoss):
    """It asks its distance for more than pytorch-metric-learning's have."""

    def terms(self, batch):
        self.distance.matrix(batch.embeddings, batch.reference)
        return super().terms(batch)


def test_their_distances_are_worked_on():
    found = broken_laws("loss", AmongFriends, SOUND_LOSS)
    assert set(found) == {"pml_distances"}
    assert "has no attribute 'matrix'" in found["pml_distances"]


class ByKeyword(nn.Module):
    r"""A triplet loss that takes by name what others give by place.

    .. math:: [d_{ap} - d_{an} + m]_+

    Parameters
    ----------
    margin : float
        [0..inf] How much nearer a positive has to be.
    distance, reducer
        As in :class:`nearfar.EmbeddingLoss`.
    """

    def __init__(self, margin: float = 0.5, *, distance: Any = None, reducer: Any = None) -> None:
        super().__init__()
        self.inner = SoundLoss(margin, distance=distance, reducer=reducer)

    def forward(self, embeddings, labels=None, *, indices_tuple=None, ref_emb=None, ref_labels=None):
        return self.inner(embeddings, labels, indices_tuple, ref_emb, ref_labels)


def test_it_goes_into_their_sum_of_losses():
    found = broken_laws("loss", ByKeyword, SOUND_LOSS)
    assert set(found) == {"pml_multiple_losses"}
    assert "positional arguments" in found["pml_multiple_losses"]


class Particular(SoundReducer):
    """It reduces losses that say what to divide them by, and no others."""

    def forward(self, loss_dict, embeddings, labels):
        for entry in loss_dict.values():
            entry["divisor"]
        return super().forward(loss_dict, embeddings, labels)


def test_a_reducer_goes_into_their_losses():
    found = broken_laws("reducer", Particular, SOUND_REDUCER)
    assert set(found) == {"pml_losses"}
    assert "in pml.contrastive_loss it raises KeyError" in found["pml_losses"]


class Pedantic(SoundDistance):
    """It compares distances with distances alone, and none with a number."""

    def margin(self, x, y):
        assert x.shape == y.shape
        return super().margin(x, y)


def test_a_distance_goes_into_their_losses():
    found = broken_laws("distance", Pedantic, SOUND_DISTANCE)
    assert set(found) == {"pml_losses"}
    assert "in pml.contrastive_loss it raises AttributeError" in found["pml_losses"]


class Moving(SoundLoss):
    """It settles down when it is moved itself, and not when what it is part of is."""

    factor = 2.0

    def to(self, *args, **kwargs):
        self.factor = 1.0
        return super().to(*args, **kwargs)

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs) * self.factor


def test_composed_it_is_what_it_is_by_itself():
    found = broken_laws("loss", Moving, SOUND_LOSS)
    assert "composed from 'local.sound'" in found["composed"]
