"""The command line: what it prints, and one sentence for what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from nearfar.cli import COMMANDS, cli, main
from nearfar.registry import default_registry


def run(*arguments: str):
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def fails(capsys, *arguments: str, code: int = 2) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == code
    return capsys.readouterr().err


def test_list_shows_names_providers_and_summaries():
    out = run("list", "*face*").output
    assert "losses (" in out
    assert "arcface" in out
    assert "nearfar-margin 0.1.0" in out
    assert "presets: insightface_2023, insightface_2019, " in out
    assert "pml.arc_face_loss" in out
    assert "  triplet " not in out


def test_list_filters():
    assert "semihard" in run("list", "--kind", "miner").output
    assert "pml." in run("list").output
    assert "pml." not in run("list", "--exclude", "pml.*").output
    assert "arcface" not in run("list", "--plugin", "iou").output
    assert "giou" in run("list", "--inputs", "pred_boxes").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tripl"], "no part is called 'tripl'; did you mean triplet, "),
        (["face", "--kind", "loss"], "no loss is called 'face'; did you mean adaface, arcface, cosface, magface? "),
        (["trip"], "nearfar list '*trip*' shows all "),
        (["semihrad"], "no part is called 'semihrad'; did you mean semihard, semihard_one?"),
        (["semihard", "--kind", "reducer"], "no reducer is called 'semihard'; `nearfar list` without a pattern"),
        (["--family", "margn"], "no part is of the family 'margn'; did you mean 'margin'?"),
        (["--inputs", "pred_box"], "no loss takes 'pred_box'; did you mean 'pred_boxes'?"),
        (["arcface", "--plugin", "pair"], "no part matches all of that"),
    ],
)
def test_list_suggests_what_is_near_where_nothing_matches(arguments, said):
    found = run("list", *arguments)
    assert found.stdout == ""
    assert said in found.stderr


def test_list_as_json_has_everything_the_specs_say():
    rows = json.loads(run("list", "--json", "arcface").output)
    assert rows[0]["full_name"] == "margin.arcface"
    assert rows[0]["needs"] == ["num_classes", "embedding_size"]


def test_show_has_formula_parameters_units_paper_and_presets():
    out = run("show", "arcface").output
    for text in (
        "margin.arcface",
        "Formula",
        r"\cos",
        "margin (radians) = 0.5",
        "1801.07698",
        "insightface_2023",
        "Recipe",
    ):
        assert text in out


def test_show_warns_of_known_defects():
    assert "known defect" in run("show", "pml.instance_loss").output


def test_show_as_json_is_json_for_every_part():
    from nearfar.registry import default_registry
    from nearfar.spec import KINDS

    for kind in KINDS:
        for entry in default_registry().entries(kind):
            data = json.loads(run("show", entry.full_name, "--kind", kind, "--json").output)
            assert data["full_name"] == entry.full_name


def test_plugins_lists_every_plugin_with_its_status():
    out = run("plugins").output
    assert "namespace" in out
    for namespace in ("core", "iou", "margin", "pair", "pml", "proxy"):
        assert namespace in out
    rows = json.loads(run("plugins", "--json").output)
    assert {row["status"] for row in rows} == {"active"}


def test_recipe_check_says_that_it_composes():
    out = run("recipe", "check", "triplet(margin=0.2, miner=semihard)").output
    assert out == "triplet(margin=0.2, miner=semihard): it composes\n"


def test_recipe_check_lists_everything_and_exits_with_2(capsys):
    result = CliRunner().invoke(cli, ["recipe", "check", "triplet(margn=1) + arcface(distance=cosine)"])
    assert result.exit_code == 2
    assert result.output.count("error: ") == 2


def test_recipe_check_reads_yaml_files(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text("terms:\n  - loss: softmax\n  - weight: 3e-3\n    loss: center\n", encoding="utf-8")
    assert "softmax + 0.003 * center: it composes" in run("recipe", "check", str(path)).output
    assert "cannot be read" in fails(capsys, "recipe", "check", str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize("form", ["string", "yaml", "json"])
def test_recipe_convert_writes_every_form(form, tmp_path):
    from nearfar.recipe import Recipe

    text = "softmax + 0.003 * center(reducer=sum)"
    out = run("recipe", "convert", text, "--to", form).output
    read = {"string": Recipe.of, "yaml": Recipe.from_yaml, "json": lambda t: Recipe.of(json.loads(t))}[form]
    assert read(out.strip()) == Recipe.of(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lits"], "there is no command 'lits'; did you mean 'list'?"),
        (["show", "arcfcae"], "no part is called 'arcfcae'; did you mean 'arcface'?"),
        (["show"], "Missing argument 'NAME'"),
        (["list", "--kind", "optimizer"], "'optimizer' is not one of"),
        (["recipe", "check", "a - b"], "a recipe is a sum"),
        (["recipe", "check", "softmax", "--context", "num_classes"], "--context takes name=value"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(capsys, arguments, message):
    err = fails(capsys, *arguments)
    assert message in err
    assert "Traceback" not in err


def test_every_command_is_listed_with_the_first_words_of_its_own_help():
    listed = run("--help").output
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in listed
        own = " ".join(run(name, "--help").output.split())
        assert line.split()[0] in own, name


def in_a_process(*arguments):
    """What becomes of plugins is decided once in a process."""
    command = [sys.executable, "-m", "nearfar", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_plugin_can_be_left_out_for_one_call():
    done = in_a_process("--no-plugin", "margin", "show", "margin.arcface")
    assert done.returncode == 2
    assert "the plugin 'margin' is blocked (blocked by name (margin))" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plugin_that_is_to_be_left_out_and_is_not_there_is_told():
    done = in_a_process("--no-plugin", "marginn", "list", "*face*")
    assert (done.returncode, "sphereface" in done.stdout) == (0, True)
    told = "nearfar: warning: --no-plugin: no plugin is called 'marginn', so it changes nothing; write 'margin'"
    assert done.stderr.strip() == told


def test_strict_mode_is_an_error_of_one_sentence():
    import os

    done = subprocess.run(
        [sys.executable, "-m", "nearfar", "list"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"NEARFAR_STRICT": "1", "NEARFAR_BLOCK": "iou"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("nearfar: NEARFAR_STRICT is set and not every plugin is active: iou (nearfar-iou")


# ---- what plugins add

RINGS = """
import click
from nearfar import CommandSpec, RecipeSpec, hookimpl

@hookimpl
def nearfar_recipes():
    notes = ("A note.",)
    return [RecipeSpec(name="usual", recipe="triplet(margn=0.1)", summary="Triplets.", source="here", notes=notes)]

@hookimpl
def nearfar_commands():
    yield CommandSpec(group="plot", name="rings", target=__name__ + ":command", summary="Draw rings.")
    yield CommandSpec(group="plot", name="lost", target="nowhere.at_all:command", summary="Draw nothing.")

@click.command("rings")
@click.option("--number", default=1)
def command(number):
    "Draw rings."
    click.echo("o" * number)
"""


@pytest.fixture
def rings(install):
    install("acme-rings", "acme", RINGS)
    default_registry.cache_clear()
    yield
    default_registry.cache_clear()


def test_a_command_of_a_plugin_is_listed_with_whose_it_is_and_runs(rings):
    assert re.search(r"^  rings +Draw rings. \(acme-rings 1.0\)$", run("plot", "--help").output, flags=re.MULTILINE)
    assert run("plot", "rings", "--number", "3").output == "ooo\n"


def test_a_command_that_no_plugin_adds_is_refused_with_what_there_is(rings, capsys):
    err = fails(capsys, "plot", "ring")
    assert "no plugin adds plot 'ring'; did you mean 'rings'?" in err
    err = fails(capsys, "bench", "nonsense-of-all-sorts")
    assert "no plugin adds bench 'nonsense-of-all-sorts'; there are" in err


def test_a_command_that_cannot_be_imported_says_whose_it_is(rings, capsys):
    err = fails(capsys, "plot", "lost")
    assert err == "nearfar: plot lost of acme-rings 1.0 cannot be imported from nowhere.at_all:command: " + (
        "No module named 'nowhere'\n"
    )


def test_recipes_are_shown_with_where_they_come_from_and_what_is_wrong_with_them(rings):
    out = run("show", "usual").output
    assert out.startswith("usual  recipe, acme-rings 1.0\n  triplet(margn=0.1)\n  Triplets.\n  A note.\n")
    assert "source: here" in out
    assert "it does not compose here: no parameter 'margn'; did you mean 'margin'?" in " ".join(out.split())
    assert run("show", "acme.usual").output == out
    assert out in run("show", "recipes").output


def test_recipes_are_shown_as_data(rings):
    rows = {row["name"]: row for row in json.loads(run("show", "recipes", "--json").output)}
    assert rows["dense_detector"]["inputs"] == ["logits", "targets", "pred_boxes", "target_boxes"]
    assert "box_normalizer" in rows["dense_detector"]["optional_inputs"]
    assert rows["center_loss"]["needs"] == ["num_classes", "embedding_size"]
    assert rows["dense_detector"]["problems"] == []
    assert json.loads(run("show", "center_loss", "--json").output) == rows["center_loss"]


def test_plugins_count_recipes_and_commands(rings):
    (line,) = [line for line in run("plugins").output.splitlines() if line.startswith("acme ")]
    assert line.endswith("active  1 recipe, 2 commands")


# ---- plugins that are not there


@pytest.fixture
def broken(install):
    """A plugin that cannot be loaded."""
    install("rival-losses", "rival", "import rival_no_such_module", requires="nearfar")
    default_registry.cache_clear()
    yield
    default_registry.cache_clear()


SAID = "nearfar: a plugin is not active: rival (failed); `nearfar plugins` says why\n"


@pytest.mark.parametrize(
    "arguments", [("list",), ("list", "--json"), ("show", "arcface"), ("show", "arcface", "--json")]
)
def test_a_plugin_that_failed_is_mentioned_below_and_beside_what_was_asked(broken, arguments):
    done = run(*arguments)
    assert done.stderr == SAID
    assert "rival" not in done.stdout
    assert "arcface" in done.stdout


def test_nothing_is_mentioned_where_every_plugin_is_active_or_left_out_on_purpose(broken, monkeypatch):
    monkeypatch.setenv("NEARFAR_BLOCK", "rival")
    default_registry.cache_clear()
    assert run("list", "arcface").stderr == ""


def test_a_part_nobody_has_may_be_of_the_plugin_that_failed(broken, capsys):
    assert fails(capsys, "show", "no_such_part").startswith(SAID)
    said = fails(capsys, "show", "rival.part")  # which says why itself
    assert "the plugin 'rival' is failed" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", [("list",), ("docs", "-o", "there")])
@pytest.mark.parametrize(
    ("namespace", "message"),
    [
        ("mragin", "no plugin has the namespace 'mragin'; did you mean 'margin'?"),
        ("nearfar-margin", "no plugin has the namespace 'nearfar-margin'; did you mean 'margin'?"),
        ("xyz", "no plugin has the namespace 'xyz'; there are core, iou, margin, pair, pml, proxy, rival"),
        ("rival", "the plugin 'rival' is failed: ModuleNotFoundError: No module named 'rival_no_such_module'"),
    ],
)
def test_a_namespace_nobody_has_is_answered_with_those_there_are(broken, capsys, command, namespace, message):
    said = fails(capsys, command[0], "--plugin", namespace, *command[1:])
    assert said.startswith(f"nearfar: {message}")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "plugin", "takes_folder"),
    [
        ("check-plugin", [], True),
        ("docs", ["-o", "there", "--plugin"], True),
        ("list", ["--plugin"], False),
        ("show", [], False),
    ],
)
def test_who_forgot_to_install_the_plugin_of_the_folder_is_told_so(
    tmp_path, monkeypatch, capsys, command, plugin, takes_folder
):
    assert run("new-plugin", "zeta-losses", "-o", str(tmp_path / "zeta")).exit_code == 0
    monkeypatch.chdir(tmp_path / "zeta")
    said = "that of this folder is not installed: `python -m pip install -e .`"
    end = ".zeta" if command == "show" else ""
    found = fails(capsys, command, *plugin, f"zeta{end}")
    assert said in found
    assert (f"{said}, or give . in its place" in found) == takes_folder
    assert said not in fails(capsys, command, *plugin, f"theta{end}")
