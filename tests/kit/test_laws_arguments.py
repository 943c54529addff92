"""Each law about arguments finds the part whose arguments are not what is said of them, and no other law does."""

from __future__ import annotations

import pytest

from kit.sound import SOUND_LOSS, SOUND_MINER, SOUND_REDUCER, SoundLoss, SoundMiner, SoundReducer, broken_laws
from nearfar.errors import ArgumentError
from nearfar.nn.losses import EmbeddingLoss
from nearfar.spec import Preset


def with_docstring(cls, text):
    """A class that differs from another in its docstring alone."""
    return type(f"{cls.__name__}Otherwise", (cls,), {"__doc__": text, "__init__": cls.__init__})


WRITTEN = """Triplet loss.

Parameters
----------
margin : float
    {margin}
{more}
"""


@pytest.mark.parametrize(
    ("margin", "more", "said"),
    [
        ("[radian] How far.", "", "margin: the unit is written 'radians', not 'radian'"),
        ("[0-1] How far.", "", "margin: the bracket '[0-1]' is none of"),
        ("[radians 0..pi] How far.", "", "margin: the bracket '[radians 0..pi]' is none of"),
        ("(0..many] How far.", "", "margin: the bracket '(0..many]' is none of"),
        ("[2..1] How far.", "", "margin: the range 2..1 is empty"),
        ("[0..0.25] How far.", "", "margin: the default 0.5 is not in its range 0..0.25"),
        ("[0..0.5) How far.", "", "margin: the default 0.5 is not in its range 0..0.5 without 0.5"),
        ("[0..inf] How far.", "scale : float\n    No such thing.", "scale is described, and is no parameter"),
    ],
)
def test_a_docstring_describes_the_parameters(margin, more, said):
    broken = with_docstring(SoundLoss, WRITTEN.format(margin=margin, more=more))
    assert said in broken_laws("loss", broken, SOUND_LOSS, only="documented")["documented"]


class Undescribed(SoundLoss):
    """A triplet loss of which little is said.

    Parameters
    ----------
    margin : float
        [0..inf] How much nearer a positive has to be.
    """

    def __init__(self, margin: float = 0.5, power: float = 1.0, *, distance=None, reducer=None):
        super().__init__(margin * power, distance=distance, reducer=reducer)


def test_every_parameter_is_described():
    found = broken_laws("loss", Undescribed, SOUND_LOSS)
    assert set(found) == {"documented"}
    assert "power is not described" in found["documented"]


class WithoutFormula(EmbeddingLoss):
    """A triplet loss in words alone."""

    terms = SoundLoss.terms
    margin = 0.5


def test_a_loss_has_a_formula():
    found = broken_laws("loss", WithoutFormula, SOUND_LOSS)
    assert set(found) == {"documented"}
    assert "it has no formula" in found["documented"]


class Scaled(SoundReducer):
    """The mean of the values, times a number.

    Parameters
    ----------
    scale : float
        What the mean is multiplied with.
    """

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def reduce(self, terms):
        return super().reduce(terms) * self.scale


class ByNameAlone(Scaled):
    """It hands its arguments on, and looks for one of them among those with a name."""

    def __init__(self, *args, **kwargs):
        super().__init__(kwargs["scale"])


def test_what_has_a_place_may_be_given_by_place():
    assert not broken_laws("reducer", Scaled, SOUND_REDUCER, example="scale=2.0")
    found = broken_laws("reducer", ByNameAlone, SOUND_REDUCER, example="scale=2.0")
    assert set(found) == {"signature"}
    assert "ByNameAlone(2.0) raises KeyError: 'scale'" in found["signature"]


class Particular(SoundMiner):
    """It does not take what it says is its default.

    Parameters
    ----------
    limit : float, optional
        Refused where it is given.
    """

    def __init__(self, limit: float | None = None, **kwargs):
        super().__init__(**kwargs)

    def __new__(cls, *args, **kwargs):
        if "limit" in kwargs:
            raise TypeError("there is no limit")
        return super().__new__(cls)


def test_a_default_can_be_given():
    found = broken_laws("miner", Particular, SOUND_MINER)
    assert set(found) == {"signature"}
    assert "limit = None is its default and cannot be given" in found["signature"]


class Mended(SoundReducer):
    """Its source says that it takes a number, and something takes that away.

    Parameters
    ----------
    scale : float
        Nothing.
    """

    def __init__(self, scale: float = 1.0):
        super().__init__()


Mended.__init__ = lambda self: SoundReducer.__init__(self)


def test_a_constructor_is_what_its_source_says():
    found = broken_laws("reducer", Mended, SOUND_REDUCER)
    assert "its source says (scale = 1.0), and once imported it takes ()" in found["signature"]


def test_a_preset_gives_arguments():
    empty = Preset(arguments={}, source="nowhere in particular")
    found = broken_laws("miner", SoundMiner, SOUND_MINER, presets={"empty": empty})
    assert set(found) == {"presets"}
    assert "gives no argument" in found["presets"]


def test_a_preset_can_be_made():
    unknown = Preset(arguments={"margn": 0.2}, source="nowhere in particular")
    found = broken_laws("miner", SoundMiner, SOUND_MINER, presets={"mistyped": unknown})
    assert set(found) == {"presets"}
    assert "margn" in found["presets"]


class Spoilt(SoundMiner):
    """It takes the size of images, and does well without.

    Parameters
    ----------
    image_size : int
        Nothing.
    """

    def __init__(self, image_size: int = 7, **kwargs):
        super().__init__(**kwargs)


def test_what_is_needed_is_missed():
    found = broken_laws("miner", Spoilt, SOUND_MINER, needs=("image_size",))
    assert set(found) == {"needs"}
    assert "can be made without it" in found["needs"]


class Indifferent(Spoilt):
    """It insists on the size of images, and does nothing with it."""

    def __init__(self, image_size: int, **kwargs):
        super().__init__(image_size, **kwargs)


def test_what_is_needed_matters():
    found = broken_laws("miner", Indifferent, SOUND_MINER, needs=("image_size",))
    assert set(found) == {"needs"}
    assert "make the same part" in found["needs"]


def test_what_is_needed_is_a_parameter():
    found = broken_laws("miner", SoundMiner, SOUND_MINER, needs=("image_size",), only="needs")
    assert "no such parameter" in found["needs"]


class Immovable(SoundLoss):
    """Its margin is 0.5 whatever is asked for."""

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None):
        super().__init__(margin, distance=distance, reducer=reducer)
        self.margin = 0.5


def test_an_argument_matters():
    found = broken_laws("loss", Immovable, SOUND_LOSS)
    assert set(found) == {"arguments_matter"}
    assert "margin = 1, 0.25" in found["arguments_matter"]


def test_the_spec_may_say_why_an_argument_does_not_matter():
    why = {"arguments_matter[margin]": "It is kept for those who give it."}
    assert not broken_laws("loss", Immovable, SOUND_LOSS, expected_failures=why)


class Lenient(SoundLoss):
    """It takes any margin."""

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None):
        super().__init__(0.5, distance=distance, reducer=reducer)
        self.margin = margin


def test_an_argument_out_of_range_is_refused():
    found = broken_laws("loss", Lenient, SOUND_LOSS)
    assert set(found) == {"arguments_refused"}
    assert "margin = -0.001 is taken, beyond 0..inf" in found["arguments_refused"]


class Gruff(Lenient):
    """It refuses a margin without a word of which."""

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None):
        if not margin >= 0:
            raise ArgumentError("no")
        super().__init__(margin, distance=distance, reducer=reducer)


class Strict(SoundLoss):
    """It refuses a margin of 0, which its docstring allows."""

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None):
        super().__init__(margin, distance=distance, reducer=reducer)
        if margin == 0:
            raise ArgumentError("margin must be greater than 0")


@pytest.mark.parametrize(
    ("broken", "said"),
    [(Gruff, "refused without its name: no"), (Strict, "margin = 0.0 is in 0..inf, and refused")],
)
def test_a_range_is_what_is_refused_by_name(broken, said):
    found = broken_laws("loss", broken, SOUND_LOSS)
    assert set(found) == {"arguments_refused"}
    assert said in found["arguments_refused"]


class HalfOpen(SoundLoss):
    """It says that a margin of 0 is not taken, and takes it.

    Parameters
    ----------
    margin : float
        (0..inf] How much nearer a positive has to be.
    """

    def __init__(self, margin: float = 0.5, *, distance=None, reducer=None):
        super().__init__(margin, distance=distance, reducer=reducer)


def test_an_open_end_is_not_in_the_range():
    found = broken_laws("loss", HalfOpen, SOUND_LOSS)
    assert set(found) == {"arguments_refused"}
    assert "margin = 0.0 is taken, beyond 0..inf without 0" in found["arguments_refused"]
