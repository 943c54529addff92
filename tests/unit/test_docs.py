"""The words are true: every block of code runs, every hook and every part has its page, and the pages build."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import os
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import laws_page
from nearfar import catalogue, errors, grammar, hookspecs, yaml12
from nearfar.cli import COMMANDS as COMMANDS_OF_NEARFAR
from nearfar.describe import describe
from nearfar.discovery import Selector, discover
from nearfar.recipe import Recipe
from nearfar.registry import Registry, default_registry
from nearfar.spec import KINDS, PartSpec
from pages import BLOCKS as EVERY_BLOCK
from pages import PAGES, ROOT, SECOND_WALK, WALK, Block, agrees, commands, run

FIRST_PARTY = frozenset({"iou", "margin", "pair", "proxy"})
CONTEXT = {"num_classes": 8, "embedding_size": 64, "image_size": 64}


#: Blocks that stand for themselves: plugins are written, and a README read, by tests/e2e/test_tutorials.py.
BLOCKS = [
    block for block in EVERY_BLOCK if block.page not in (*WALK, *SECOND_WALK) and not block.page.startswith("examples/")
]


def _of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages and not block.excerpt]


# ---- Python


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The names of a module, with the plugins of this repository and nothing else; nothing registered is left behind.

    A module, since what is pickled has to be found in one.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEARFAR_PLUGINS", ",".join(FIRST_PARTY))
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    default_registry.cache_clear()
    yield vars(module)
    default_registry.cache_clear()


@pytest.mark.parametrize("page", sorted({block.page for block in _of("python", "pycon")}))
def test_the_python_on_a_page_runs_and_prints_what_it_shows(page, namespace):
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    for block in _of("python", "pycon"):
        if block.page != page:
            continue
        if block.language == "python":
            # As many lines in front as on the page, so that a traceback points into it.
            exec(compile("\n" * block.line + block.text, page, "exec"), namespace)
            continue
        example = doctest.DocTestParser().get_doctest(block.text, namespace, str(block), page, block.line)
        assert example.examples, f"{block} shows no prompt"
        printed: list[str] = []
        assert runner.run(example, out=printed.append, clear_globs=False).failed == 0, "".join(printed)
        namespace.update(example.globs)


def test_what_is_shown_as_a_part_of_a_file_is_one():
    excerpts = [block for block in BLOCKS if block.excerpt]
    assert excerpts
    for block in excerpts:
        assert block.text in (ROOT / block.excerpt).read_text(encoding="utf-8"), f"{block} shows another"


# ---- the command line


COMMANDS = [command for block in _of("console") for command in commands(block)]
NEARFAR = [command for command in COMMANDS if command.words[0] == "nearfar"]
#: Run as they stand: what trains is run only where it is said to fail at once.
SHORT = [command for command in NEARFAR if not command.trains or command.block.exits]
TRAINING = [command for command in NEARFAR if command.trains and not command.block.exits]


@pytest.mark.parametrize("command", SHORT, ids=str)
def test_a_command_prints_what_is_shown_and_exits_as_is_said(command, tmp_path):
    status, printed = run(command.words, tmp_path)
    assert status == command.block.exits, "\n".join(printed)
    assert agrees(command.shown, printed), "\n".join(printed)


@pytest.mark.parametrize("command", TRAINING, ids=str)
def test_a_command_that_trains_has_options_and_values_that_exist(command):
    from nearfar.cli import cli
    from nearfar.train import config

    line, rest = cli.get_command(None, command.words[1]), list(command.words[2:])
    if isinstance(line, click.Group):
        line, rest = line.get_command(click.Context(line), rest[0]), rest[1:]
    said = line.make_context("nearfar", rest).params
    config.Config.of(*map(config.set_layer, said.get("assignments", ())))
    for recipe in (*said.get("criteria", ()), *filter(None, [said.get("criterion")])):
        assert Recipe.of(recipe).plan(**CONTEXT).errors == ()
    if said.get("model"):
        import timm

        assert timm.is_model(said["model"])


@pytest.mark.long
def test_the_training_commands_of_the_readme_run(tmp_path):
    for command in TRAINING:
        if command.block.page == "README.md":
            brief = ("--epochs", "1", "--set", "steps_per_epoch=2") if command.words[1] == "train" else ()
            status, printed = run((*command.words, *brief), tmp_path)
            assert status == 0, "\n".join(printed)
            assert any(line.startswith("trained network") for line in printed)


def test_scripts_and_files_that_commands_name_exist():
    named = [word for command in COMMANDS for word in command.words if re.match(r"(scripts|plugins|examples)/", word)]
    assert named
    assert [word for word in named if not (ROOT / word).exists()] == []


def test_every_command_has_its_line():
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `nearfar ([\w-]+)` \|", page, flags=re.MULTILINE) == list(COMMANDS_OF_NEARFAR)


# ---- recipes and configurations


@pytest.mark.parametrize(
    "recipe", [pytest.param(line, id=line) for block in _of("") for line in block.text.splitlines() if line.strip()]
)
def test_a_recipe_on_a_page_composes(recipe):
    assert [problem.message for problem in Recipe.of(recipe).plan(**CONTEXT).errors] == []


@pytest.mark.parametrize("block", _of("yaml"), ids=str)
def test_yaml_on_a_page_is_a_recipe_a_comparison_or_the_configuration_with_every_default(block):
    if "terms:" in block.text.splitlines()[0]:
        assert Recipe.from_yaml(block.text).plan(**CONTEXT).errors == ()
        return
    data = yaml12.load(block.text, source=str(block))
    if "criteria" in data:
        from nearfar.bench import Comparison

        assert Comparison.of((str(block), data)).trainings
        return
    from nearfar.train import config

    assert config.Config.of((str(block), data)) == config.Config()
    assert list(_keys(data)) == list(_keys(config.Config().to_dict())), "a key is missing or out of order"


def _keys(data: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in data.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")


def test_the_grammar_and_the_tree_of_errors_are_those_of_the_source():
    for page, module in (("docs/recipes.md", grammar), ("docs/errors.md", errors)):
        (shown,) = [block.text for block in BLOCKS if block.page == page and block.language == "text"]
        literal = re.search(r"::\n\n((?:    .*\n|\n)+)", module.__doc__ or "")
        assert literal is not None
        assert shown.strip() == textwrap.dedent(literal.group(1)).strip()


# ---- hooks


def test_every_hook_is_documented_with_its_exact_signature():
    signatures = {
        f"def {name}{inspect.signature(hook)}:".replace("'", "")
        for name, hook in vars(hookspecs).items()
        if hasattr(hook, f"{hookspecs.PROJECT}_spec")
    }
    page = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^def nearfar_.*$", page, flags=re.MULTILINE)) == signatures
    assert len(signatures) == len(hookspecs.RETURNS)


# ---- laws


def test_the_page_of_laws_has_them_all_in_their_own_words():
    page = laws_page.PAGE.read_text(encoding="utf-8")
    assert page == laws_page.renewed(page), "run `python tests/laws_page.py`"


def test_the_page_of_laws_has_every_field_of_every_spec():
    page = laws_page.PAGE.read_text(encoding="utf-8")
    shared = {field.name for field in dataclasses.fields(PartSpec)}
    assert _fields(page, "Fields of every part") == shared
    for kind, spec in KINDS.items():
        own = {field.name for field in dataclasses.fields(spec)} - shared
        assert _fields(page, f"Fields of a {kind}") == own


def _fields(page: str, title: str) -> set[str]:
    """The fields in the table under a heading, where the laws that are named beside them exist."""
    section = page.partition(f"\n### {title}\n")[2].partition("\n#")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[3])} <= set(laws_page.LAWS)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row[1])}


# ---- the catalogue


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(discover(selector=Selector(allow=FIRST_PARTY)))


def _described(registry: Registry):
    return [describe(entry, registry) for kind in KINDS for entry in registry.entries(kind)]


def test_every_part_has_a_page_that_its_kinds_page_links_to(registry):
    pages = catalogue.pages(registry)
    for d in _described(registry):
        text = pages[catalogue.page_name(d)]
        assert text.startswith(f"# {d.full_name}\n")
        assert f"[`{d.full_name}`]({catalogue.page_name(d)})" in pages[f"{catalogue.TITLES[d.kind].lower()}.md"]
    assert len(pages) == len(_described(registry)) + len(KINDS) + len(["index.md", "conformance.md"])


def test_a_page_has_what_the_part_says_of_itself(registry):
    for d in _described(registry):
        text = catalogue.page(d).replace("\\", "").replace("``", "`")
        missing = [p.name for p in d.parameters if f"| `{p.name}` |" not in text]
        missing += [name for name in d.spec.presets if f"| `{name}` |" not in text]
        missing += [s for s in (*d.deviations, *d.defects) if s.replace("\\", "").replace("``", "`") not in text]
        assert not missing, f"{d.full_name} lacks {missing}"
        assert d.recipe in text
        assert text.count("{warning}") == len(d.defects)


def test_units_and_ranges_are_in_the_table_of_parameters(registry):
    text = catalogue.page(describe(registry.resolve("loss", "arcface"), registry))
    assert "| `margin` | `0.5` | radians | 0 … π | " in text
    assert "| `num_classes` | required |  | 1 … ∞ | " in text


def test_every_loss_of_the_first_party_plugins_shows_its_formula(registry):
    own = [d for d in _described(registry) if d.kind == "loss" and d.full_name.partition(".")[0] in FIRST_PARTY]
    assert own
    assert [d.full_name for d in own if "```{math}\n" not in catalogue.page(d)] == []


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")  # known defects are told; here that is no news
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pytorch-metric-learning on NumPy 2
def test_the_recipe_line_of_a_page_runs_unless_it_leaves_something_to_fill_in(registry):
    import nearfar

    for d in _described(registry):
        if "=…" in d.recipe:
            assert any(p.required and p.name not in d.spec.needs for p in d.parameters)
        elif d.full_name != "pml.threshold_reducer":  # one of two optional arguments must be given
            eval(d.recipe, {"nearfar": nearfar})


def test_a_page_has_the_prose_of_the_docstring_with_its_formulas_in_their_places(registry):
    text = catalogue.page(describe(registry.resolve("loss", "center"), registry))
    first, second = text.index("L_i = "), text.index("\\Delta c_j = ")
    assert first < text.index("and once a step in training, {math}`c_j") < second < text.index("## Recipe")
    assert "## Notes\n\nEmbeddings (n, embedding_size), labels (n,). ``centers`` are (num_classes" in text
    assert "- `ArgumentError`: ``update`` is neither of the two" in text
    assert "## References\n\nWen, Zhang, Li, Qiao (2016)." in text


def test_nothing_on_a_page_needs_an_extension_of_myst(registry):
    for d in _described(registry):
        assert not re.search(r"^:::|(?<!\\)\$(?! nearfar)", catalogue.page(d), re.MULTILINE), d.full_name


def test_a_plugins_own_catalogue_has_its_parts_only_and_forgets_those_that_are_gone(registry, tmp_path):
    margin = next(plugin for plugin in registry.plugins if plugin.namespace == "margin")
    fewer = Registry([dataclasses.replace(margin, specs=margin.specs[1:])])
    catalogue.write(tmp_path, Registry([margin]), plugin="margin")
    assert (tmp_path / f"losses/margin.{margin.specs[0].name}.md").exists()
    written = catalogue.write(tmp_path, fewer, plugin="margin")
    names = {f"losses/margin.{spec.name}.md" for spec in margin.specs[1:]}
    assert {str(path.relative_to(tmp_path)) for path in written} == names | {
        "index.md",
        "losses.md",
        "conformance.md",
    }
    assert sorted(tmp_path.rglob("*.md")) == written


def test_a_page_that_did_not_change_keeps_its_date(registry, tmp_path):
    for path in catalogue.write(tmp_path, registry):
        os.utime(path, (1, 1))
    assert {path.stat().st_mtime for path in catalogue.write(tmp_path, registry)} == {1}


def test_the_catalogue_of_everything_is_made_without_torch():
    code = (
        "import sys; from nearfar.catalogue import pages; from nearfar.registry import default_registry; "
        "assert len(pages(default_registry())) > 50; assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# ---- the build


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs")
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "doctrees")]
    done = subprocess.run(
        [sys.executable, *command, str(ROOT / "docs"), str(out / "html")], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_the_documentation_builds_without_a_warning(built):
    assert (built / "index.html").exists()


def test_links_to_files_on_the_built_pages_resolve(built):
    broken = set()
    for page in built.rglob("*.html"):
        for link in re.findall(r'<a [^>]*href="([^"#?]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists():
                broken.add(f"{page.relative_to(built)}: {link}")
    assert not broken


def test_formulas_are_drawn_without_a_script_from_elsewhere(built):
    page = (built / "catalogue" / "losses" / "margin.arcface.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert not re.search(r'<script[^>]*src="https?:', page)


def test_links_between_the_files_of_the_repository_resolve():
    broken = []
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            generated = link.startswith("catalogue/")  # the strict build has these
            if not re.match(r"[a-z]+:", link) and not generated and not (page.parent / link).exists():
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


# ---- the repository


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("this is no checkout of a repository")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


#: Paths that exist on one machine only, and where packages happen to be fetched from.
PRIVATE = re.compile(
    r"(?<![\w.~$})-])/(?:home|Users|root|work|mnt|opt|srv|private)/\w"
    r"|[A-Z]:\\Users\\"
    r"|pypi\.org|pythonhosted\.org|registry\.npmjs\.org|(?:index|registry)[-_]url\s*="
)


def test_no_file_names_a_path_of_a_machine_or_a_host_of_packages():
    found = []
    for path in _tracked():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in PRIVATE.finditer(text)]
        if len(ROOT.parts) > 1 and str(ROOT) in text:
            found.append(f"{path.relative_to(ROOT)}: {ROOT}")
    assert found == []
