"""``nearfar new-plugin``: what it refuses, what it asks, and what it writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import nearfar
from nearfar.cli import cli, main
from nearfar.cli import new_plugin as module
from nearfar.scaffold import FAMILIES, LICENCES, Draft, render, write

EVERY_KIND = (("loss", "my_loss"), ("miner", "my_miner"), ("reducer", "my_reducer"), ("distance", "my_distance"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def draft(name: str = "acme-losses", namespace: str = "acme", parts=EVERY_KIND, **options) -> Draft:
    return Draft.of(name, namespace, parts, **({"year": 2026} | options))


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in found}


def refused(capsys, here: Path, *arguments: str) -> str:
    """The one sentence it says instead of writing anything."""
    before = files(here.parent)
    with pytest.raises(SystemExit) as caught:
        main(["new-plugin", *arguments])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("nearfar: ")
    assert said.err.count("\n") == 1
    assert files(here.parent) == before
    return said.err


# ---- refusals


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("acme losses", "cannot name a distribution"),
        ("-acme", "cannot name a distribution"),
        ("acme-", "cannot name a distribution"),
        ("äcme", "cannot name a distribution"),
        ("../acme", "cannot name a distribution"),
        ("", "cannot name a distribution"),
        ("3d-losses", "'3d_losses', which is no identifier"),
        ("lambda", "a keyword"),
        ("json", "hide the standard library's module"),
        ("XML", "hide the standard library's module"),
        ("nearfar-pair", "of nearfar's own"),
        ("nearfar_Margin", "of nearfar's own"),
        ("Torch", "installed already"),
        ("pytorch.metric_learning", "installed already"),
        ("yaml", "another package is"),
    ],
)
def test_a_name_that_no_new_distribution_can_have_is_refused(capsys, here, name, why):
    assert why in refused(capsys, here, "--namespace", "acme", "--", name)


@pytest.mark.parametrize(
    ("namespace", "why"),
    [
        ("acme-losses", "no identifier"),
        ("acme.losses", "no identifier"),
        ("class", "no identifier"),
        ("", "no identifier"),
        ("margin", "belongs to nearfar-margin"),
        ("pml", "belongs to nearfar"),
        ("local", "belongs to nearfar"),
    ],
)
def test_a_namespace_that_no_new_plugin_can_have_is_refused(capsys, here, namespace, why):
    assert why in refused(capsys, here, "acme-losses", "--namespace", namespace)


def test_a_namespace_of_an_installed_plugin_is_refused_even_where_that_is_broken(capsys, here, install):
    install("rival-losses", "rival", "import no_such_module", version="2.1")
    assert "taken by rival-losses 2.1" in refused(capsys, here, "acme-losses", "--namespace", "rival")


def test_the_name_of_an_installed_distribution_is_refused_however_it_is_written(capsys, here, install):
    install("rival-losses", "rival", version="2.1")
    assert "installed already, as version 2.1" in refused(capsys, here, "Rival_Losses", "--namespace", "acme")


@pytest.mark.parametrize("kind", ["loss", "miner", "reducer", "distance"])
def test_a_keyword_is_refused_as_such(capsys, here, kind):
    said = refused(capsys, here, "acme-losses", f"--{kind}=class")
    assert f"'class' cannot name a {kind}: it is a keyword of Python's" in said
    assert f"class_{kind} would do" in said


def test_a_family_that_is_none_is_refused_with_those_there_are(capsys, here):
    said = refused(capsys, here, "acme-losses", "--loss", "near:quadruplet")
    assert "there is no family 'quadruplet' of losses; there are triplet, pair, margin, proxy, iou, other" in said


def test_only_losses_have_a_family(capsys, here):
    assert "'near:pair' cannot name a miner" in refused(capsys, here, "acme-losses", "--miner", "near:pair")


@pytest.mark.parametrize("name", ["my-loss", "MyLoss", "_loss", "loss_", "my__loss", "2d", "löss", ""])
@pytest.mark.parametrize("kind", ["loss", "miner", "reducer", "distance"])
def test_a_part_that_no_recipe_could_name_is_refused(capsys, here, kind, name):
    assert f"cannot name a {kind}" in refused(capsys, here, "acme-losses", f"--{kind}={name}")


def test_a_part_given_twice_is_refused(capsys, here):
    said = refused(capsys, here, "acme-losses", "--loss", "near", "--miner", "near", "--loss", "near")
    assert "the loss 'near' is given twice" in said


def test_parts_that_would_be_one_class_are_refused(capsys, here):
    assert "both be the class A1" in refused(capsys, here, "acme-losses", "--loss", "a1", "--miner", "a_1")


def test_parts_that_would_be_one_module_are_refused(capsys, here):
    said = refused(capsys, here, "acme-losses", "--loss", "near", "--miner", "near", "--reducer", "near_loss")
    assert "both be the module near_loss" in said


def test_a_family_without_a_loss_is_refused(capsys, here):
    assert "no loss is to be written" in refused(capsys, here, "acme-losses", "--miner", "near", "--family", "pair")


def test_an_author_who_would_break_the_files_is_refused(capsys, here):
    assert "cannot be printed" in refused(capsys, here, "acme-losses", "--author", "Ada\nLovelace")


def test_no_name_and_nobody_to_ask_is_refused(capsys, here):
    assert "name the plugin" in refused(capsys, here)


@pytest.mark.parametrize("output", [None, "elsewhere"])
def test_a_folder_with_anything_in_it_is_refused(capsys, here, output):
    folder = here / (output or "acme-losses")
    folder.mkdir()
    (folder / ".hidden").write_text("mine", encoding="utf-8")
    arguments = ["--output", output] if output else []
    assert f"{folder.name}: the folder is not empty" in refused(capsys, here, "acme-losses", *arguments)


def test_git_s_own_folder_makes_a_folder_no_less_empty(capsys, here):
    (here / "acme-losses" / ".git").mkdir(parents=True)
    (here / "acme-losses" / ".git" / "HEAD").write_text("ref: refs/heads/main", encoding="utf-8")
    main_ok(capsys, "acme-losses", "--loss", "mine")
    assert (here / "acme-losses" / ".git" / "HEAD").read_text(encoding="utf-8") == "ref: refs/heads/main"
    assert (here / "acme-losses" / "pyproject.toml").is_file()
    assert "not empty" in refused(capsys, here, "acme-losses", "--loss", "mine")


def test_a_file_in_the_folder_s_place_is_refused(capsys, here):
    (here / "acme-losses").write_text("mine", encoding="utf-8")
    assert "acme-losses: it is a file" in refused(capsys, here, "acme-losses")


def test_a_second_run_is_refused_and_leaves_the_first_one_s_files(capsys, here):
    main_ok(capsys, "acme-losses", "--loss", "mine")
    (here / "acme-losses" / "README.md").write_text("mine", encoding="utf-8")
    assert "not empty" in refused(capsys, here, "acme-losses", "--loss", "mine")


# ---- writing


def main_ok(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["new-plugin", *arguments])
    said = capsys.readouterr()
    assert caught.value.code == 0, said.err
    assert said.err == ""
    return said.out


def test_it_writes_a_folder_of_the_name_and_says_what_comes_next(capsys, here):
    said = main_ok(capsys, "acme-losses", "--loss", "my_loss", "--miner", "my_miner")
    assert "the loss my_loss and the miner my_miner" in said
    assert [line.strip() for line in said.splitlines()[-4:]] == [
        "cd acme-losses",
        "python -m pip install -e '.[test]'",
        "python -m pytest",
        "nearfar check-plugin acme",
    ]
    assert sorted(files(here)) == [
        "acme-losses/.github/workflows/test.yml",
        "acme-losses/.gitignore",
        "acme-losses/CHANGELOG.md",
        "acme-losses/LICENSE",
        "acme-losses/README.md",
        "acme-losses/pyproject.toml",
        "acme-losses/src/acme_losses/__init__.py",
        "acme-losses/src/acme_losses/definitions.py",
        "acme-losses/src/acme_losses/my_loss.py",
        "acme-losses/src/acme_losses/my_miner.py",
        "acme-losses/src/acme_losses/plugin.py",
        "acme-losses/src/acme_losses/py.typed",
        "acme-losses/tests/test_acme_losses.py",
    ]


def test_who_is_in_the_folder_already_is_not_sent_there(capsys, here):
    said = main_ok(capsys, "acme-losses", "--loss", "my_loss", "-o", ".")
    assert "cd " not in said
    assert "  python -m pip install" in said


def test_each_loss_may_have_a_family_of_its_own(capsys, here):
    main_ok(
        capsys, "acme-losses", "--loss", "near:proxy", "--loss", "far", "--loss", "taught:other", "--family", "margin"
    )
    source = files(here / "acme-losses" / "src" / "acme_losses")
    assert "SquaredEuclidean" in source["near.py"]
    assert "cos" in source["far.py"]
    assert 'inputs=("student", "target")' in source["plugin.py"]
    assert 'sample="acme_losses.samples:taught"' in source["plugin.py"]
    assert "def taught(n: int, seed: int)" in source["samples.py"]


def test_a_loss_on_pairs_costs_for_each_pair_and_one_on_triplets_for_each_triplet(capsys, here):
    main_ok(capsys, "acme-losses", "--loss", "near:pair", "--loss", "far:triplet", "--loss", "wide")
    source = files(here / "acme-losses" / "src" / "acme_losses")
    assert "batch.pairs()" in source["near.py"]
    assert "batch.triplets()" in source["far.py"]
    assert "batch.triplets()" in source["wide.py"]
    assert 'emits=("pos_pair", "neg_pair")' in source["plugin.py"]


def test_a_loss_that_says_its_family_leaves_nothing_to_be_asked_of_it(here, monkeypatch):
    done = ask(monkeypatch, "acme-losses", "acme", "near:proxy", "-", "-", "-", "MIT", "")
    assert done.exit_code == 0, done.output
    assert "Family" not in done.output
    assert "SquaredEuclidean" in (here / "acme-losses" / "src" / "acme_losses" / "near.py").read_text(encoding="utf-8")


def test_a_name_that_an_installed_part_has_is_warned_of(here):
    done = CliRunner().invoke(
        cli, ["new-plugin", "acme-losses", "--namespace", "acme", "--loss", "triplet", "--miner", "near"]
    )
    assert done.exit_code == 0
    assert done.stderr == (
        "nearfar: warning: pair.triplet is a loss too: where both are installed, the bare name triplet stands for "
        "neither, and recipes have to say acme.triplet\n"
    )
    assert "cd acme-losses" in done.stdout


@pytest.mark.parametrize("arguments", [("--miner", "triplet"), ("--loss", "triplet_margin_loss")])
def test_a_part_of_another_kind_or_of_pml_shares_no_bare_name(here, arguments):
    assert CliRunner().invoke(cli, ["new-plugin", "acme-losses", *arguments]).stderr == ""


def test_a_folder_with_a_space_is_quoted_in_what_comes_next(capsys, here):
    assert "cd 'my plugin/a'" in main_ok(capsys, "acme-losses", "-o", "my plugin/a")
    assert (here / "my plugin" / "a" / "pyproject.toml").is_file()


def test_without_parts_it_writes_a_loss_named_like_the_namespace(capsys, here):
    main_ok(capsys, "Acme.Losses")
    assert (here / "Acme.Losses" / "src" / "acme_losses" / "acme.py").is_file()


@pytest.mark.parametrize(
    ("name", "namespace"),
    [
        ("acme-losses", "acme"),
        ("nearfar-acme", "acme"),
        ("torch-metric-losses", "torch_metric_losses"),
        ("A.b_c", "a_b_c"),
    ],
)
def test_a_namespace_is_made_of_the_name_where_none_is_given(capsys, here, name, namespace):
    main_ok(capsys, name)
    project = tomllib.loads((here / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert list(project["entry-points"]["nearfar"]) == [namespace]


@pytest.mark.parametrize("output", [".", "there"])
def test_an_empty_folder_is_filled(capsys, here, output):
    folder = here / output
    folder.mkdir(exist_ok=True)
    before = folder.stat().st_ino
    main_ok(capsys, "acme-losses", "-o", output)
    assert files(folder) == render(Draft.of("acme-losses", "acme", year=_year(folder)))
    assert folder.stat().st_ino == before  # a shell that is in it stays in it


def _year(folder: Path) -> int:
    return int((folder / "LICENSE").read_text(encoding="utf-8").split("Copyright (c) ")[1][:4])


def test_the_folder_has_the_permissions_that_folders_get(capsys, here):
    main_ok(capsys, "acme-losses")
    (here / "other").mkdir()
    assert (here / "acme-losses").stat().st_mode == (here / "other").stat().st_mode


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("step", ["write_text", "rename"])
def test_what_interrupts_it_leaves_nothing(here, monkeypatch, exists, error, step):
    folder = here / "acme-losses"
    if exists:
        folder.mkdir()
    original, calls = getattr(Path, step), []

    def fail(path: Path, *arguments, **options):
        calls.append(path)
        if len(calls) == (3 if exists or step == "write_text" else 1):
            raise error
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(error):
        write(render(draft()), folder)
    assert len(calls) >= 1
    assert list(here.rglob("*")) == ([folder] if exists else [])


def test_what_appears_in_the_folder_meanwhile_is_not_overwritten(here, monkeypatch):
    folder = here / "acme-losses"
    folder.mkdir()
    original = Path.write_text

    def meanwhile(path: Path, text: str, **options) -> int:
        original(folder / "README.md", "mine", encoding="utf-8")
        return original(path, text, **options)

    monkeypatch.setattr(Path, "write_text", meanwhile)
    with pytest.raises(FileExistsError):
        write(render(draft()), folder)
    assert files(here) == {"acme-losses/README.md": "mine"}


# ---- asking


def ask(monkeypatch, *answers: str, arguments: tuple[str, ...] = ()):
    monkeypatch.setattr(module, "_somebody_is_there", lambda: True)
    typed = "".join(f"{answer}\n" for answer in answers)
    return CliRunner().invoke(cli, ["new-plugin", *arguments], input=typed, catch_exceptions=False)


def test_asked_nothing_it_asks_and_writes_what_was_answered(here, monkeypatch):
    answers = ("acme-losses", "acme", "near far", "pick", "-", "-", "margin", "Apache-2.0", "Ada Lovelace")
    done = ask(monkeypatch, *answers)
    assert done.exit_code == 0, done.output
    expected = Draft.of(
        "acme-losses",
        "acme",
        [("loss", "near"), ("loss", "far"), ("miner", "pick")],
        family="margin",
        licence="Apache-2.0",
        author="Ada Lovelace",
        year=int((here / "acme-losses" / "LICENSE").read_text(encoding="utf-8").split("   Copyright ")[1][:4]),
    )
    assert files(here / "acme-losses") == render(expected)


def test_every_question_but_the_name_has_an_answer_already(here, monkeypatch):
    done = ask(monkeypatch, "acme-losses", *[""] * 8)
    assert done.exit_code == 0, done.output
    assert files(here / "acme-losses") == render(Draft.of("acme-losses", "acme", year=_year(here / "acme-losses")))


def test_a_wrong_answer_is_explained_and_asked_again(here, monkeypatch):
    (here / "taken").mkdir()
    (here / "taken" / "file").touch()
    answers = (
        "json",
        "taken",
        "acme-losses",
        "pml",
        "acme",
        "MyLoss",
        "near",
        "-",
        "-",
        "-",
        "circle",
        "triplet",
        "MIT",
        "",
    )
    done = ask(monkeypatch, *answers)
    assert done.exit_code == 0, done.output
    for why in (
        "standard library",
        "taken: the folder is not empty",
        "belongs to nearfar",
        "cannot name a loss",
        "circle",
    ):
        assert why in done.output
    assert (here / "acme-losses" / "src" / "acme_losses" / "near.py").is_file()


def test_what_was_said_on_the_command_line_is_not_asked(here, monkeypatch):
    said = ("--namespace", "acme", "--miner", "pick", "--licence", "mit", "--author", "Ada", "-o", "there")
    done = ask(monkeypatch, "acme-losses", arguments=said)
    assert done.exit_code == 0, done.output
    assert files(here / "there") == render(
        Draft.of("acme-losses", "acme", [("miner", "pick")], author="Ada", year=_year(here / "there"))
    )


def test_an_end_of_the_answers_writes_nothing(here, monkeypatch):
    assert ask(monkeypatch, "acme-losses", "acme").exit_code == 1
    assert not list(here.iterdir())


# ---- what is written

DRAFTS = {
    **{family: draft(parts=[("loss", "my_loss")], family=family) for family in FAMILIES},
    **{kind: draft(parts=[(kind, name)]) for kind, name in EVERY_KIND if kind != "loss"},
    "every kind": draft(),
    "two losses of boxes, and a miner": draft(
        parts=[("loss", "one"), ("loss", "two"), ("miner", "three")], family="iou"
    ),
    "a loss of every family": draft(parts=[("loss", f"a_{family}:{family}") for family in FAMILIES]),
    "one name for every kind": draft(parts=[(kind, "near") for kind, _ in EVERY_KIND], family="proxy"),
    "names that would hide what they use": draft(
        parts=[("loss", "max"), ("loss", "loss"), ("miner", "batch"), ("reducer", "sum"), ("reducer", "math")]
    ),
    "names of modules that every plugin has": draft(parts=[("loss", "plugin"), ("reducer", "definitions")]),
    "names that are constants as classes": draft(parts=[("loss", "none"), ("miner", "true"), ("distance", "tensor")]),
    **{
        f"long names, {family}": draft(
            name="a-distribution-of-losses-with-a-long-name",
            namespace="a_namespace_with_a_long_name",
            parts=[(kind, f"a_{kind}_with_a_long_name") for kind, _ in EVERY_KIND],
            family=family,
        )
        for family in FAMILIES
    },
}


@pytest.mark.parametrize("case", DRAFTS)
def test_what_is_written_is_formatted_and_free_of_lint(here, case):
    write(render(DRAFTS[case]), here / "plugin")
    rules = "A,B,C4,E,F,FA,I,N,PIE,PT,RET,RUF100,SIM,UP,W"
    for command in (("format", "--check", "--diff"), ("check", "--extend-select", rules, "--ignore", "E501")):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "plugin"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def types_of_torch(tmp_path_factory) -> str:
    """Where mypy keeps what it found out once."""
    return str(tmp_path_factory.mktemp("mypy"))


@pytest.mark.long
@pytest.mark.parametrize("case", [*FAMILIES, "every kind", "one name for every kind"])
def test_what_is_written_passes_mypy_s_strict_checks(here, case, types_of_torch):
    write(render(DRAFTS[case]), here / "plugin")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", types_of_torch, "src", "tests"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=here / "plugin",
        env=os.environ | {"MYPYPATH": "src"},
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("case", DRAFTS)
def test_every_file_ends_in_one_line_break_and_holds_nothing_of_its_template(case):
    for path, text in render(DRAFTS[case]).items():
        assert not text or (text.endswith("\n") and not text.endswith("\n\n")), path
        assert "{%" not in text, path
        assert "{#" not in text, path
        assert not any(line != line.rstrip() for line in text.splitlines()), path


def test_the_same_draft_gives_the_same_files_in_every_process():
    code = (
        "import hashlib; from nearfar.scaffold import Draft, render;"
        f"files = render(Draft.of('acme-losses', 'acme', {EVERY_KIND!r}, year=2026));"
        "print(hashlib.sha256(repr(files).encode()).hexdigest())"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1


@pytest.mark.parametrize("licence", LICENCES)
def test_the_project_file_says_what_was_asked_for(licence):
    author = 'Ada "the \\ first" Lovelace, Ünïversität'
    written = render(draft(name="Acme.Losses", licence=licence, author=author))
    read = tomllib.loads(written["pyproject.toml"])
    project = read["project"]
    assert project["name"] == "Acme.Losses"
    assert project["authors"] == [{"name": author}]
    assert project["license"] == licence
    assert project["license-files"] == ["LICENSE"]
    assert project["entry-points"] == {"nearfar": {"acme": "acme_losses.plugin"}}
    assert read["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/acme_losses"]
    (requirement,) = [r for r in project["dependencies"] if r.startswith("nearfar")]
    major, minor, _ = nearfar.__version__.split(".")
    assert requirement == f"nearfar>={major}.{minor}"


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("MIT", "Permission is hereby granted, free of charge"),
        ("BSD-3-Clause", "Neither the name of the copyright holder"),
        ("Apache-2.0", "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION"),
    ],
)
def test_the_licence_names_its_owner_and_the_year(licence, words):
    text = render(draft(licence=licence, author="Ada Lovelace", year=2031))["LICENSE"]
    assert words in text
    (line,) = [line for line in text.splitlines() if "Ada Lovelace" in line]
    assert "Copyright" in line
    assert "2031" in line
    assert "[yyyy]" not in text


def test_whoever_names_no_author_gets_the_authors_of_the_plugin():
    assert "The acme-losses authors" in render(draft(author="  "))["LICENSE"]


def test_a_name_that_is_shared_is_parted_by_kind():
    parts = {part.kind: part for part in draft(parts=[("loss", "near"), ("miner", "near"), ("loss", "far")]).parts[1:]}
    parts["loss"] = draft(parts=[("loss", "near"), ("miner", "near")]).parts[0]
    assert (parts["loss"].module, parts["loss"].class_name) == ("near_loss", "NearLoss")
    assert (parts["miner"].module, parts["miner"].class_name) == ("near_miner", "NearMiner")
    assert {parts["loss"].name, parts["miner"].name} == {"near"}


def test_a_plain_name_becomes_the_module_and_in_camel_case_the_class():
    (part,) = draft(parts=[("loss", "my_2d_loss")]).parts
    assert (part.module, part.class_name, part.definition) == ("my_2d_loss", "My2dLoss", "my_2d_loss")


@pytest.mark.parametrize("family", ["margin", "proxy"])
def test_a_loss_that_learns_has_no_definition(family):
    written = render(draft(parts=[("loss", "my_loss")], family=family))
    assert "src/acme_losses/definitions.py" not in written
    assert "definition=" not in written["src/acme_losses/plugin.py"]


@pytest.mark.parametrize("case", DRAFTS)
def test_the_readme_says_where_each_part_is_and_that_is_where_it_is(case):
    written = render(DRAFTS[case])
    source = f"src/{DRAFTS[case].package}"
    table = written["README.md"].partition("## Change it")[2].partition("\n- ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == len(DRAFTS[case].parts)
    for row in rows:
        said = re.findall(r"`(\w+)` in `(\w+\.py)`", row)
        assert said
        for name, file in said:
            assert re.search(rf"^(class|def) {name}\(", written[f"{source}/{file}"], re.MULTILINE), (name, file)


def test_no_paper_is_made_up():
    for text in render(draft()).values():
        assert 'Paper(authors="' not in text
        assert "arXiv:" not in text


def test_it_loads_nothing_heavy(here):
    code = (
        "import sys; from nearfar.cli import cli;"
        "cli.main(args=['new-plugin', 'acme-losses'], standalone_mode=False);"
        "heavy = {'torch', 'numpy', 'timm', 'hypothesis'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
