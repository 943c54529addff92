"""The variants of a part: what it does besides what it does by default."""

from __future__ import annotations

from typing import Literal

import pytest

from kit.sound import SOUND_LOSS, SoundLoss
from nearfar.discovery import Selector, discover
from nearfar.registry import Registry
from nearfar.spec import LossSpec, Preset
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants


class Switching(SoundLoss):
    """A loss with a switch, a choice, and a switch that needs more than itself."""

    def __init__(
        self,
        margin: float = 0.5,
        swap: bool = False,
        form: Literal["hinge", "log"] | None = "hinge",
        learn: bool = False,
        classes: int | None = None,
        *,
        distance: object = None,
        reducer: object = None,
    ) -> None:
        super().__init__(margin, distance=distance, reducer=reducer)
        if learn and classes is None:
            raise ValueError("how many classes?")


@pytest.fixture
def registry():
    return Registry(discover(selector=Selector(allow=frozenset({"core"}))))


def subject(registry, target, **changed):
    return Subject(registry.register(LossSpec(**{**SOUND_LOSS, **changed}), target), registry)


def test_a_part_without_switches_has_its_defaults_alone(registry):
    assert variants(subject(registry, SoundLoss)) == {"": {}}


def test_switches_and_choices_are_changed_one_by_one_and_what_cannot_be_made_is_left_out(registry):
    assert variants(subject(registry, Switching)) == {
        "": {},
        "swap=True": {"swap": True},
        "form='log'": {"form": "log"},
    }


def test_presets_come_by_their_names_and_stand_for_what_they_change(registry):
    presets = {
        "near": Preset(arguments={"margin": 0.1}, source="here"),
        "logarithmic": Preset(arguments={"form": "log"}, source="here"),
    }
    found = variants(subject(registry, Switching, presets=presets))
    assert list(found) == ["", "near", "logarithmic", "swap=True"]
    assert found["near"] == {"preset": "near"}


def test_switches_are_turned_from_where_the_example_has_them(registry):
    assert "swap=False" in variants(subject(registry, Switching, example="swap=True"))


def test_variants_can_be_made(registry):
    of = subject(registry, Switching)
    for arguments in variants(of).values():
        assert isinstance(of.make(**arguments), Switching)
