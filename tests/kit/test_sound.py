"""Sound parts keep every law: what a law finds elsewhere is not of its own making."""

from __future__ import annotations

import pytest

from kit import sound


@pytest.mark.parametrize(
    ("kind", "target", "spec"),
    [
        ("loss", sound.SoundLoss, sound.SOUND_LOSS),
        ("loss", sound.SoundBoxLoss, sound.SOUND_BOX_LOSS),
        ("miner", sound.SoundMiner, sound.SOUND_MINER),
        ("miner", sound.SoundMatcher, sound.SOUND_MATCHER),
        ("miner", sound.SoundElementMiner, sound.SOUND_ELEMENT_MINER),
        ("reducer", sound.SoundReducer, sound.SOUND_REDUCER),
        ("distance", sound.SoundDistance, sound.SOUND_DISTANCE),
    ],
    ids=["loss", "box loss", "miner", "matcher", "miner of elements", "reducer", "distance"],
)
def test_a_sound_part_keeps_every_law(kind, target, spec):
    assert sound.broken_laws(kind, target, spec) == {}
