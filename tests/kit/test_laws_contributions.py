"""The laws about recipes and commands find the recipe that does not compose and the command that is none."""

from __future__ import annotations

import pytest

from nearfar.registry import default_registry
from nearfar.testing import checks_of

RECIPE = """
from nearfar import RecipeSpec, hookimpl

@hookimpl
def nearfar_recipes():
    return [RecipeSpec(name="{name}", recipe="{recipe}", summary="A recipe.", source="here")]
"""
COMMAND = """
import click
from nearfar import CommandSpec, hookimpl

@hookimpl
def nearfar_commands():
    return [CommandSpec(group="plot", name="rings", target=__name__ + ":{target}", summary="Draw rings.")]

@click.command("rings")
def command():
    {body}
"""


@pytest.fixture
def broken(install):
    """The laws that a plugin ``acme`` of this source breaks, with the reasons."""

    def hold(source: str) -> dict[str, str]:
        install("acme-losses", "acme", source, requires="nearfar>=0.1")
        default_registry.cache_clear()
        checks = [check for check in checks_of(default_registry(), "acme") if check.subject.kind == "plugin"]
        results = [check.run() for check in checks]
        assert {"shown_recipes", "commands"} & {result.law for result in results}
        return {result.law: result.reason for result in results if result.status == "failed"}

    yield hold
    default_registry.cache_clear()


def test_a_recipe_that_composes_and_a_command_that_loads_break_no_law(broken):
    source = RECIPE.format(name="usual", recipe="arcface + 0.5 * triplet(margin=0.1)")
    assert not broken(source + COMMAND.format(target="command", body='"""Draw."""'))


@pytest.mark.parametrize(
    ("name", "recipe", "said"),
    [
        ("usual", "triplet(margn=0.1)", "does not compose: no parameter 'margn'"),
        ("usual", "triplet +", "the recipe usual cannot be read"),
        ("triplet", "arcface", "the recipe triplet has the name of a loss"),
    ],
)
def test_a_recipe_that_would_not_be_shown_or_not_compose(broken, name, recipe, said):
    found = broken(RECIPE.format(name=name, recipe=recipe))
    assert set(found) == {"shown_recipes"}
    assert said in found["shown_recipes"]


@pytest.mark.parametrize(
    ("target", "body", "said"),
    [
        ("nowhere", '"""Draw."""', "nowhere cannot be imported: AttributeError"),
        ("hookimpl", '"""Draw."""', "is no click command"),
        ("command", "pass", "plot rings has no help"),
    ],
)
def test_a_command_that_cannot_be_called_or_says_nothing(broken, target, body, said):
    found = broken(COMMAND.format(target=target, body=body))
    assert set(found) == {"commands"}
    assert said in found["commands"]
