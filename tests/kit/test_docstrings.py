"""A formula in a docstring that is not raw loses its backslashes, and its author is told so."""

from __future__ import annotations

import pytest

from kit.sound import SOUND_LOSS, SoundLoss, broken_laws

FORMULAS = [
    r"\frac{1}{2}",
    r"\beta d",
    r"\alpha d",
    r"\varphi(d)",
    r"\rho",
    r"\theta",
    r"\tau d",
    r"\text{if}",
    r"\times",
]


def with_formula(formula: str) -> type[SoundLoss]:
    """The sound loss with another formula."""
    said = (SoundLoss.__doc__ or "").replace("[d_{ap} - d_{an} + m]_+", formula)
    return type("Sound", (SoundLoss,), {"__doc__": said, "__init__": SoundLoss.__init__})


@pytest.mark.parametrize("formula", FORMULAS)
def test_what_is_left_of_a_formula_that_is_not_raw_is_found(formula):
    read = formula.encode().decode("unicode_escape")
    assert read != formula
    found = broken_laws("loss", with_formula(read), SOUND_LOSS, only="documented")
    assert f"its docstring has the control character {read[0]!r}" in found["documented"]
    assert 'begin it with r"""' in found["documented"]


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_raw_one_is_as_it_should_be(formula):
    assert broken_laws("loss", with_formula(formula), SOUND_LOSS, only="documented") == {}


def test_a_docstring_may_be_indented_by_tabs():
    tabbed = type(
        "Sound", (SoundLoss,), {"__doc__": SoundLoss.__doc__.replace("    ", "\t"), "__init__": SoundLoss.__init__}
    )
    assert broken_laws("loss", tabbed, SOUND_LOSS, only="documented") == {}
