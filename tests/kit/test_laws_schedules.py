"""The law about numbers that move finds the part of which they do not."""

from __future__ import annotations

import pytest

from kit.sound import SOUND_LOSS, SoundLoss, broken_laws


class Precomputed(SoundLoss):
    """A triplet loss that reads its margin when it is made.

    Parameters
    ----------
    margin : float
        [0..inf] How much nearer a positive has to be.
    """

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None):
        super().__init__(margin, distance=distance, reducer=reducer)
        self.twice = 2 * margin


class Forgetful(SoundLoss):
    """A triplet loss that keeps its margin under another name.

    Parameters
    ----------
    slack : float
        [0..inf] How much nearer a positive has to be.
    """

    def __init__(self, slack: float = 0.5, *, distance=None, reducer=None):
        super().__init__(slack, distance=distance, reducer=reducer)


class Deaf(SoundLoss):
    """A triplet loss that has its margin in a tensor as well.

    Parameters
    ----------
    margin : float
        [0..inf] How much nearer a positive has to be.
    """

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None):
        super().__init__(margin, distance=distance, reducer=reducer)
        self.hidden = [margin]

    def terms(self, batch):
        kept, self.margin = self.margin, self.hidden[0]
        try:
            return super().terms(batch)
        finally:
            self.margin = kept


@pytest.mark.parametrize(
    ("broken", "name", "said"),
    [
        (Precomputed, "margin", "twice is computed from margin when it is made"),
        (Forgetful, "slack", "slack is not kept as a number that could move"),
        (Deaf, "margin", "a part gives something else than one made with it"),
        (SoundLoss, "power", "the constructor takes no such parameter"),
    ],
)
def test_a_number_that_is_said_to_move_is_read_at_each_call(broken, name, said):
    found = broken_laws("loss", broken, SOUND_LOSS, only="schedulable", schedulable=(name,))
    assert said in found["schedulable"]


def test_one_that_is_read_at_each_call_may_move():
    assert broken_laws("loss", SoundLoss, SOUND_LOSS, only="schedulable", schedulable=("margin",)) == {}
