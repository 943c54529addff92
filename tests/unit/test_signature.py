"""Signatures are read from source, followed through bases and facades, and never imported."""

from __future__ import annotations

import math
import sys
import textwrap
from typing import Literal

import pytest

from nearfar.errors import ArgumentError
from nearfar.signature import REQUIRED, read_class, read_target


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose modules would fail were they imported."""
    root = tmp_path / "acme_sig"
    (root / "deep").mkdir(parents=True)
    files = {
        "__init__.py": "from .deep import Base as Exported",
        "deep/__init__.py": "from .base import Base",
        "deep/base.py": '''
            raise RuntimeError("imported")
            class Base:
                """A base.

                Parameters
                ----------
                scale : float
                    [0..inf] How much.
                """
                def __init__(self, scale=2.0, *, reducer=None): ...
        ''',
        "loss.py": '''
            raise RuntimeError("imported")
            import torch
            from acme_sig import Exported
            from .deep.base import Base
            MARGIN = 3
            class Loss(Base):
                """A loss.

                Parameters
                ----------
                margin : float
                    [radians, 0..pi/2] How far.
                mode, other
                    Which one.
                """
                def __init__(self, num_classes: int, margin: float = 0.5, mode="a", other=MARGIN, **kwargs): ...
            class ByFacade(Exported):
                def __init__(self, own, **kwargs): ...
            class NoInit(Base): ...
            class Closed(Base):
                def __init__(self, only=1): ...
            class OnTorch(torch.nn.Module): ...
            class Variadic(Base):
                def __init__(self, *losses, weight=1): ...
            class Pinning(Base):
                def __init__(self, own=1, **kwargs):
                    super().__init__(scale=own, **kwargs)
            class Lost(Missing):
                def __init__(self, own=1, **kwargs): ...
        ''',
    }
    for name, text in files.items():
        (root / name).write_text(textwrap.dedent(text), encoding="utf-8")
    made = """
        def init(self, margin): ...
        Made = type('Made', (), {'__init__': init})
        class Assigned:
            __init__ = init
    """
    (tmp_path / "acme_sig_made.py").write_text(textwrap.dedent(made), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "acme_sig.loss"


def test_parameters_defaults_units_and_ranges_come_from_the_source(package):
    signature = read_target(f"{package}:Loss")
    assert [p.name for p in signature.parameters] == ["num_classes", "margin", "mode", "other", "scale", "reducer"]
    margin = signature["margin"]
    assert (margin.default, margin.unit, margin.low, margin.high) == (0.5, "radians", 0.0, math.pi / 2)
    assert margin.description == "How far."
    assert (signature["scale"].low, signature["scale"].high, signature["scale"].unit) == (0.0, math.inf, "")
    assert signature["num_classes"].default is REQUIRED
    assert signature["mode"].description == signature["other"].description == "Which one."
    assert repr(signature["other"].default) == "MARGIN"
    assert signature.docstring.startswith("A loss.")
    assert "acme_sig" not in sys.modules


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ByFacade", ["own", "scale", "reducer"]),
        ("NoInit", ["scale", "reducer"]),
        ("Closed", ["only"]),
        ("OnTorch", []),
        ("Variadic", ["losses", "weight"]),
        ("Pinning", ["own", "reducer"]),
    ],
)
def test_bases_are_followed_as_far_as_keyword_arguments_travel(package, name, expected):
    assert [p.name for p in read_target(f"{package}:{name}").parameters] == expected


def test_what_travels_up_must_be_named(package):
    signature = read_target(f"{package}:Loss")
    assert signature.bind("loss", [10, 0.1, "b", 4], {}) == {"num_classes": 10, "margin": 0.1, "mode": "b", "other": 4}
    with pytest.raises(ArgumentError, match="loss takes at most 4 arguments without a name, not 5"):
        signature.bind("loss", [10, 0.1, "b", 4, 2.0], {})


def test_a_target_that_cannot_be_read_as_source_is_imported(package):
    assert [p.name for p in read_target("acme_sig_made:Made").parameters] == ["margin"]
    assert [p.name for p in read_target("acme_sig_made:Assigned").parameters] == ["margin"]
    with pytest.raises(ArgumentError, match="cannot be read: RuntimeError: imported"):
        read_target(f"{package}:Lost")


@pytest.mark.parametrize("target", ["no_such_package.x:Y", "json:Nothing"])
def test_a_target_that_is_not_there_is_an_error(target):
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_target(target)


def test_unknown_arguments_are_answered_with_what_is_taken(package):
    signature = read_target(f"{package}:Loss")
    with pytest.raises(ArgumentError) as caught:
        signature.bind("loss", [], {"margn": 1})
    assert str(caught.value) == (
        "no parameter 'margn'; did you mean 'margin'? loss takes num_classes, margin (radians) = 0.5, mode = 'a', "
        "other = MARGIN, scale = 2.0, reducer = None"
    )


def test_an_argument_given_twice_is_an_error(package):
    with pytest.raises(ArgumentError, match="got 'num_classes' twice"):
        read_target(f"{package}:Loss").bind("loss", [1], {"num_classes": 2})


def test_surplus_arguments_go_to_a_variadic_parameter(package):
    signature = read_target(f"{package}:Variadic")
    assert signature.bind("x", [1, 2, 3], {"weight": 4}) == {"losses": (1, 2, 3), "weight": 4}
    assert signature.missing({}) == []


class Base:
    """A base.

    Parameters
    ----------
    scale : float
        [0..1] How much.
    """

    def __init__(self, scale: float = 2.0): ...


class Derived(Base):
    def __init__(self, margin, *, hard: bool = False, **kwargs): ...


class Described(Base):
    """A class that says what its base leaves unsaid.

    Parameters
    ----------
    temperature : float
        (0..inf] What it is divided by.
    share : float
        [percent, 0..100) How much.
    shape : tuple
        (n, d), or [n] for one.
    *parts : nn.Module
        What it is put together of.
    gone : int
        No longer taken.
    """

    def __init__(self, temperature: float, scale=1.0, share: float | Literal["auto", 2] = 5, shape=None, *parts): ...


def test_a_round_bracket_leaves_its_end_out():
    temperature, share = (read_class(Described)[name] for name in ("temperature", "share"))
    assert (temperature.low, temperature.high) == (0.0, math.inf)
    assert [temperature.holds(value) for value in (-1, 0, 1e-9, math.inf)] == [False, False, True, True]
    assert [share.holds(value) for value in (0, 99.9, 100, math.nan)] == [True, True, False, False]
    assert (temperature.range, share.range, share.unit) == ("0..inf without 0", "0..100 without 100", "percent")


def test_a_bracket_that_is_neither_unit_nor_range_is_left_in_the_description():
    shape = read_class(Described)["shape"]
    assert shape.description == "(n, d), or [n] for one."
    assert (shape.unit, shape.low, shape.range) == ("", None, "")
    assert shape.holds(-1)


def test_what_a_class_does_not_describe_is_described_as_in_its_base():
    assert read_class(Described)["scale"].description == "How much."
    assert read_class(Described)["parts"].description == "What it is put together of."


def test_what_is_described_and_is_no_parameter_is_a_stranger():
    assert read_class(Described).strangers == ("gone",)
    assert read_class(Derived).strangers == ()


def test_choices_are_those_of_a_literal():
    assert read_class(Described)["share"].choices == ("auto", 2)
    assert read_class(Described)["scale"].choices == ()


@pytest.mark.parametrize("read", [read_class, lambda cls: read_target(f"{cls.__module__}:{cls.__name__}")])
def test_source_and_class_are_read_alike(read):
    assert [(p.name, p.unit, p.keyword_only) for p in read(Described).parameters] == [
        ("temperature", "", False),
        ("scale", "", False),
        ("share", "percent", False),
        ("shape", "", False),
        ("parts", "", False),
    ]
    assert read(Described).strangers == ("gone",)


def test_a_class_at_hand_reads_as_its_source_would():
    signature = read_class(Derived)
    assert [(p.name, p.default) for p in signature.parameters] == [
        ("margin", REQUIRED),
        ("hard", False),
        ("scale", 2.0),
    ]
    assert signature["hard"].keyword_only
    assert signature["scale"].high == 1.0


def test_static_and_live_reading_agree_on_every_installed_part():
    import importlib

    from nearfar.registry import default_registry
    from nearfar.spec import KINDS

    for kind in KINDS:
        for entry in default_registry().entries(kind):
            module, _, name = entry.spec.target.partition(":")
            live = read_class(getattr(importlib.import_module(module), name))
            static = read_target(entry.spec.target)
            assert {p.name for p in static.parameters} == {p.name for p in live.parameters}, entry.full_name
            for parameter in static.parameters:
                if type(parameter.default) in (int, float, bool, str):
                    assert live[parameter.name].default == parameter.default, (entry.full_name, parameter.name)
