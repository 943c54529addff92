"""What the tab key offers: asked of click as the shells ask it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import click
import pytest
from click.shell_completion import BashComplete, FishComplete, ZshComplete
from click.testing import CliRunner

from nearfar.cli import COMMANDS, cli
from nearfar.cli.complete import namespaces, part_names
from nearfar.registry import default_registry
from nearfar.spec import KINDS

SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


def offered(*words: str) -> list[str]:
    """What is offered for the last of the words after ``nearfar``."""
    *before, incomplete = words
    complete = BashComplete(cli, {}, "nearfar", "_NEARFAR_COMPLETE")
    return [item.value for item in complete.get_completions(before, incomplete) if item.type == "plain"]


def test_commands_are_offered():
    assert offered("") == list(COMMANDS)
    assert offered("sh") == ["show"]


@pytest.mark.parametrize("command", ["show", "list"])
def test_every_part_is_offered_by_the_shortest_name_it_answers_to(command):
    registry = default_registry()
    names = [registry.short_name(entry) for kind in KINDS for entry in registry.entries(kind)]
    assert offered(command, "") == list(dict.fromkeys(names))  # once, where parts of two kinds share it
    for kind in KINDS:
        for entry in registry.entries(kind):
            assert registry.resolve(kind, registry.short_name(entry)) == entry


def test_a_name_is_offered_in_full_where_no_short_one_begins_so():
    assert offered("show", "arcf") == ["arcface", "arcface_triplet", "arcface_casia", "arcface_ms1m", "arcface_ms1mv3"]
    assert offered("show", "margin.a") == [
        "margin.adacos",
        "margin.adaface",
        "margin.am_softmax",
        "margin.arcface",
        "margin.arcnegface",
    ]
    assert offered("show", "nothing_begins_so") == []


def test_recipes_are_offered_beside_parts():
    assert "dense_detector" in offered("show", "dense")
    assert "recipes" in offered("show", "rec")


def test_a_kind_that_was_named_is_kept_to():
    assert offered("show", "--kind", "miner", "se") == ["semihard", "semihard_one"]
    assert "semihard" not in offered("show", "--kind", "loss", "se")


def test_plugins_and_families_are_offered():
    assert offered("list", "--plugin", "p") == ["pair", "pml", "proxy"]
    assert offered("docs", "--plugin", "ma") == ["margin"]
    assert offered("check-plugin", "p") == ["pair", "pml", "proxy"]
    assert offered("--no-plugin", "p") == ["pair", "pml", "proxy"]
    assert "triplet" in offered("list", "--family", "tri")


@pytest.mark.parametrize("words", [("check-plugin",), ("docs", "--plugin")])
def test_folders_are_offered_where_no_namespace_begins_so(words):
    complete = BashComplete(cli, {}, "nearfar", "_NEARFAR_COMPLETE")
    found = complete.get_completions(list(words), "./ac")
    assert [(item.value, item.type) for item in found] == [("./ac", "dir")]


def test_a_plugin_that_failed_is_offered_to_be_left_out_and_not_to_be_checked(install):
    install("rival-losses", "rival", "import rival_no_such_module", requires="nearfar")
    assert offered("--no-plugin", "ri") == ["rival"]
    assert offered("check-plugin", "ri") == []


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("triplet_c", ["triplet_center"]),
        ("softmax + contrastive_c", ["softmax + contrastive_center"]),
        ("softmax + 0.003 * contrastive_c", ["softmax + 0.003 * contrastive_center"]),
        ("softmax+0.003*contrastive_c", ["softmax+0.003*contrastive_center"]),
        ("margin.arcf", ["margin.arcface"]),
        ("triplet(miner=batch_h", ["triplet(miner=batch_hard"]),
        ("triplet(margin=0.2, miner = batch_h", ["triplet(margin=0.2, miner = batch_hard"]),
        ("triplet(reducer=avg", ["triplet(reducer=avg_non_zero"]),
        ("triplet(distance=squ", ["triplet(distance=squared_euclidean"]),
        ("triplet(miner=semihard(distance=squ", ["triplet(miner=semihard(distance=squared_euclidean"]),
        ("pml.cross_batch_memory(triplet_c", ["pml.cross_batch_memory(triplet_center"]),
        ("triplet(miner=arc", []),  # no miner is called so
        ("triplet(margin=", []),  # a number
        ("triplet(margin=0.2", []),
        ("0.5 * 1e", []),
        ('arcface(preset="ins', []),  # a text
        ("triplet trip", []),  # no place for a part
    ],
)
@pytest.mark.parametrize("command", [("train", "--criterion"), ("recipe", "check"), ("recipe", "convert")])
def test_the_last_name_of_a_recipe_is_completed_as_its_place_asks(command, recipe, expected):
    assert offered(*command, recipe) == expected


def test_a_recipe_may_also_be_a_file():
    complete = BashComplete(cli, {}, "nearfar", "_NEARFAR_COMPLETE")
    for command in (["recipe", "check"], ["train", "--criterion"], ["explain"]):
        (item,) = complete.get_completions(command, "runs/recipe.ya")
        assert (item.type, item.value) == ("file", "runs/recipe.ya")


def test_a_part_is_offered_with_what_it_is():
    complete = ZshComplete(cli, {}, "nearfar", "_NEARFAR_COMPLETE")
    (item,) = complete.get_completions(["show"], "batch_h")
    assert item.help == default_registry().resolve("miner", "batch_hard").spec.summary


def test_helpers_serve_any_command():
    @click.command
    @click.argument("plugin", shell_complete=namespaces)
    @click.argument("part", shell_complete=part_names)
    def command(plugin: str, part: str) -> None: ...

    complete = BashComplete(command, {}, "command", "_COMPLETE")
    assert [item.value for item in complete.get_completions([], "io")] == ["iou"]
    assert [item.value for item in complete.get_completions(["iou"], "gi")] == ["giou"]


def test_a_plugin_that_is_not_active_is_neither_offered_nor_in_the_way(install, monkeypatch):
    install("broken-losses", "broken", "raise ImportError('no')")
    monkeypatch.setenv("NEARFAR_STRICT", "1")
    assert offered("list", "--plugin", "b") == []
    assert offered("show", "arcf") == ["arcface", "arcface_triplet", "arcface_casia", "arcface_ms1m", "arcface_ms1mv3"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_asks_and_is_answered_without_torch(shell):
    code = (
        "import sys\n"
        "from nearfar.cli import main\n"
        "try:\n    main([])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'griffe', 'rich', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    words = {"COMP_WORDS": "nearfar show arcf", "COMP_CWORD": "arcf" if shell == "fish" else "2"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "_NEARFAR_COMPLETE": f"{shell}_complete", **words},
    )
    assert done.returncode == 0, done.stderr
    assert "arcface" in done.stdout.replace("\n", " ").split() or "plain,arcface" in done.stdout
    assert done.stderr == ""


# ---- nearfar completion


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_clicks_and_its_first_line_says_how_to_install_it(shell):
    done = CliRunner().invoke(cli, ["completion", shell], catch_exceptions=False)
    first, _, script = done.output.partition("\n")
    assert first.startswith("# To install it: ")
    assert f"nearfar completion {shell}" in first
    assert f"_NEARFAR_COMPLETE={shell}_complete" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_reads_the_script_and_registers_the_completion():
    script = CliRunner().invoke(cli, ["completion", "bash"], catch_exceptions=False).output
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\ncomplete -p nearfar"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "_nearfar_completion nearfar" in done.stdout


def test_an_unknown_shell_is_refused_with_those_there_are():
    done = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert all(shell in done.output for shell in SHELLS)
