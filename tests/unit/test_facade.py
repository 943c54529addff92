"""The façade: an exact ``__all__``, everything in it there, and every error in one tree."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import nearfar
from nearfar import errors


@pytest.mark.parametrize("name", nearfar.__all__)
def test_every_public_name_is_there(name):
    assert getattr(nearfar, name) is not None


def test_the_list_of_public_names_is_sorted_and_exact():
    assert nearfar.__all__ == sorted(nearfar.__all__)
    assert set(nearfar.__all__) == {"__version__", *nearfar._WHERE}
    assert dir(nearfar) == sorted([*nearfar.__all__, *nearfar._PACKAGES])


def test_packages_need_no_import_of_their_own():
    code = (
        "import sys, nearfar\nassert 'torch' not in sys.modules\n"
        "for name in nearfar._PACKAGES: assert getattr(nearfar, name).__name__ == 'nearfar.' + name\n"
        "assert nearfar.train.train and nearfar.errors.RecipeError"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_a_package_whose_extra_is_missing_says_what_installs_it(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("nearfar.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(vars(nearfar), "train", raising=False)
    monkeypatch.setitem(sys.modules, "lightning", None)
    assert not hasattr(nearfar, "train")
    with pytest.raises(AttributeError, match=r"pip install 'nearfar\[train\]'"):
        _ = nearfar.train
    with pytest.raises(errors.MissingExtra, match=r"pip install 'nearfar\[train\]'"):
        from nearfar import train  # noqa: F401


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
