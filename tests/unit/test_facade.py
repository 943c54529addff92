"""The façade: an exact ``__all__``, everything in it there, and every error in one tree."""

from __future__ import annotations

import inspect

import pytest

import nearfar
from nearfar import errors


@pytest.mark.parametrize("name", nearfar.__all__)
def test_every_public_name_is_there(name):
    assert getattr(nearfar, name) is not None


def test_the_list_of_public_names_is_sorted_and_exact():
    assert nearfar.__all__ == sorted(nearfar.__all__)
    assert set(nearfar.__all__) == {"__version__", *nearfar._WHERE}
    assert dir(nearfar) == nearfar.__all__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'nearfar' has no attribute 'nonsense'"):
        _ = nearfar.nonsense


@pytest.mark.parametrize(
    "name", [n for n, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
)
def test_every_error_is_in_the_tree_and_drawn_in_it(name):
    cls = getattr(errors, name)
    assert issubclass(cls, errors.NearfarError | errors.NearfarWarning)
    assert name in errors.__doc__


def test_a_missing_extra_names_the_command_that_installs_it():
    assert str(errors.MissingExtra("nearfar train", extra="train")) == (
        "nearfar train needs an optional part of nearfar: pip install 'nearfar[train]'"
    )
