"""A part in words: what its spec declares and what its docstring says, nothing of it imported."""

from __future__ import annotations

import ast
import json
import textwrap

import pytest
from click.testing import CliRunner

from nearfar.cli import cli
from nearfar.describe import Description, describe
from nearfar.discovery import Plugin, discover
from nearfar.registry import Registry, default_registry
from nearfar.spec import DistanceSpec, LossSpec, MinerSpec, PartSpec, ReducerSpec
from nearfar.testing.subject import Subject

PART = '''
    raise ImportError("whoever only describes the part has no need of this")

    class Spread:
        r"""Pushes everything apart.

        Then, with the square,

        .. math:: L = -\\sum d^2

        and of a similarity :math:`s` the opposite.

        Parameters
        ----------
        margin : float
            [radians, 0..pi] How far; 0.5 as in the paper.
        rate : float
            How fast.

        Notes
        -----
        Terms are ``element``.

        - One each,
        - no more.

        Raises
        ------
        ArgumentError
            The margin is negative.

        References
        ----------
        Somebody (2020), equation 7.
        """

        def __init__(self, rate, margin=0.5, num_classes=2): ...
'''


@pytest.fixture
def part(tmp_path, monkeypatch):
    """Describe a spec of the class above, ``part(LossSpec, optimum=0.0)``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "spread_module.py").write_text(textwrap.dedent(PART), encoding="utf-8")

    def describing(cls: type[PartSpec] = LossSpec, **fields: object) -> Description:
        spec = cls(**{"name": "spread", "target": "spread_module:Spread", "summary": "Pushes apart."} | fields)
        plugin = Plugin(namespace="acme", distribution="acme-losses", version="1.2", module="m", specs=(spec,))
        registry = Registry([plugin])
        return describe(registry.entries(cls.kind)[0], registry)

    return describing


def test_the_docstring_is_told_in_its_own_order(part):
    d = part()
    assert [(block.kind, block.text) for block in d.opening] == [
        ("paragraph", "Pushes everything apart."),
        ("paragraph", "Then, with the square,"),
        ("math", r"L = -\sum d^2"),
        ("paragraph", "and of a similarity :math:`s` the opposite."),
    ]
    assert d.formula == r"L = -\sum d^2"
    assert [(s.title, [block.kind for block in s.blocks]) for s in d.sections] == [("Notes", ["paragraph", "list"])]
    assert d.raises == (("ArgumentError", "The margin is negative."),)
    assert [block.text for block in d.references] == ["Somebody (2020), equation 7."]


@pytest.mark.parametrize(
    ("cls", "fields", "said"),
    [
        (LossSpec, {"memory": 1}, "memory: grows with the batch"),
        (LossSpec, {"memory": 2}, "memory: grows with the square of the batch"),
        (LossSpec, {"memory": 3}, "memory: grows with the cube of the batch"),
        (LossSpec, {"synchronizations": 0}, "host synchronisations: none"),
        (LossSpec, {"synchronizations": 1}, "host synchronisations: 1 a call"),
        (LossSpec, {"optimum": 0.0}, "a perfect input costs 0, with a gradient of zero"),
        (LossSpec, {"detached": "weights are"}, "its gradient is deliberately not that of its value: weights are"),
        (LossSpec, {"uses_norm": True}, "its value depends on the length of the embeddings"),
        (LossSpec, {"separates": True}, "it goes on growing as boxes that share nothing move apart"),
        (LossSpec, {"invariances": ("flip",)}, "flip of all boxes together leaves its value as it is"),
        (
            LossSpec,
            {"invariances": ("translation", "scale", "flip")},
            "translation, scale and flip of all boxes together leaves its value as it is",
        ),
        (
            LossSpec,
            {"definition": "acme.plain:spread"},
            "it agrees with a slow and plain definition, ``acme.plain.spread``",
        ),
        (LossSpec, {"order_dependent": True}, "its value depends on the order of the batch"),
        (MinerSpec, {"produces": "pairs", "random": True}, "it draws random numbers"),
        (ReducerSpec, {"keeps": True}, "it keeps the terms as they are"),
        (ReducerSpec, {"asks": ("labels",)}, "takes losses that have the labels of each term"),
        (DistanceSpec, {"metric": True}, "it obeys the triangle inequality"),
        (DistanceSpec, {"symmetric": False}, "from x to y it is not what it is from y to x"),
        (LossSpec, {"thresholds": {"m": "negative"}}, "m is compared with the distance itself: negative pairs cost"),
        (LossSpec, {"wraps": ("pair.*",)}, "takes the losses: pair.*"),
        (LossSpec, {"needs": ("num_classes",)}, "from its context: num_classes"),
    ],
)
def test_what_a_spec_declares_is_said_in_words_and_what_it_does_not_is_left_out(part, cls, fields, said):
    def sentences(d: Description) -> list[str]:
        return [*d.composes, *d.properties, *d.cost]

    base = {"produces": "pairs"} if cls is MinerSpec else {}
    new = set(sentences(part(cls, **base | fields))) - set(sentences(part(cls, **base)))
    assert len(new) == 1
    assert new.pop().startswith(said)


def test_the_recipe_uses_the_example_of_the_spec_and_a_placeholder_only_without_one(part):
    assert part().recipe == 'nearfar.compose("spread(rate=…)")'
    assert part(example="rate=2").recipe == 'nearfar.compose("spread(rate=2)")'
    assert part(needs=("num_classes",)).recipe == 'nearfar.compose("spread(rate=…)", num_classes=10)'
    assert part(example="2, num_classes=3", needs=("num_classes",)).recipe == (
        'nearfar.compose("spread(2, num_classes=3)")'
    )
    assert part(MinerSpec, produces="pairs", example="2").recipe == 'nearfar.create_miner("spread(2)")'


def test_an_example_with_quotes_is_still_python(part):
    (call,) = ast.parse(part(example='rate="fast"').recipe).body
    assert call.value.args[0].value == 'spread(rate="fast")'


def test_an_example_that_is_no_recipe_is_shown_as_it_is(part):
    assert part(example="rate=<2>").recipe == 'nearfar.compose("spread(rate=<2>)")'


def test_a_reference_that_only_repeats_the_paper_is_said_once():
    registry = default_registry()
    arcface, center = (describe(registry.resolve("loss", name), registry) for name in ("arcface", "center"))
    assert arcface.paper
    assert arcface.references == ()
    assert "equations 2 to 4" in center.references[0].text


def test_the_command_that_checks_a_part_selects_it_and_no_other():
    registry = default_registry()
    entries = [entry for kind in ("loss", "distance") for entry in registry.entries(kind)]
    names = [Subject(entry, registry).name for entry in entries]
    for entry, own in zip(entries, names, strict=True):
        pattern = describe(entry, registry).check.split(" -k ")[1]
        assert [name for name in names if pattern in f"{name}::gradient"] == [own]


# ---- nearfar show

PLUGIN = """
    from nearfar import LossSpec, hookimpl

    @hookimpl
    def nearfar_losses():
        return [LossSpec(
            name="spread", target="spread_module:Spread", summary="Pushes apart.", family="odd", memory=2,
            synchronizations=1, optimum=0.0, requires="acme-extras", example="rate=2",
            expected_failures={"empty": "A batch of nothing is refused.", "dtype[bfloat16]": "Too coarse."},
        )]
"""


@pytest.fixture
def installed(install, tmp_path, monkeypatch):
    install("acme-losses", "acme", PLUGIN)
    (tmp_path / "site" / "spread_module.py").write_text(textwrap.dedent(PART), encoding="utf-8")
    monkeypatch.setattr("nearfar.cli.show.default_registry", lambda: Registry(discover()))


def test_show_prints_what_spec_and_docstring_say(installed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = CliRunner().invoke(cli, ["show", "spread"], catch_exceptions=False).output
    told = [" ".join(line.split()) for line in out.splitlines()]
    for line in (
        "acme.spread loss, acme-losses 1.0, family odd",
        "Pushes apart.",
        "Then, with the square,",
        r"L = -\sum d^2",
        "and of a similarity s the opposite.",
        "margin (radians) = 0.5 in [0, 3.14159]",
        "How far; 0.5 as in the paper.",
        "a perfect input costs 0, with a gradient of zero",
        "memory: grows with the square of the batch",
        "host synchronisations: 1 a call",
        "Terms are `element`.",
        "- One each,",
        "ArgumentError: The margin is negative.",
        "Somebody (2020), equation 7.",
        "nearfar check-plugin acme -k acme.spread::",
        "- does not keep empty: A batch of nothing is refused.",
        "- does not keep dtype[bfloat16]: Too coarse.",
        "acme-losses 1.0, as `spread_module.Spread`",
        "it needs the distribution `acme-extras`",
        'nearfar.compose("spread(rate=2)")',
    ):
        assert line in told
    assert max(map(len, out.splitlines())) <= 80


def test_show_as_json_has_the_prose_as_it_is_written(installed):
    data = json.loads(CliRunner().invoke(cli, ["show", "spread", "--json"], catch_exceptions=False).output)
    assert ".. math:: L" in data["opening"]
    assert data["sections"]["Notes"].startswith("Terms are ``element``.")
    assert data["raises"] == [{"type": "ArgumentError", "description": "The margin is negative."}]
    assert data["expected_failures"]["empty"] == "A batch of nothing is refused."
    assert (data["memory"], data["synchronizations"]) == (2, 1)
