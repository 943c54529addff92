"""The words are true: every block of code runs, every hook and every part has its page, and the pages build."""

from __future__ import annotations

import doctest
import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from nearfar import catalogue, errors, grammar, hookspecs, yaml12
from nearfar.describe import describe
from nearfar.discovery import Selector, discover
from nearfar.recipe import Recipe
from nearfar.registry import Registry, default_registry
from nearfar.spec import KINDS

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
FIRST_PARTY = frozenset({"iou", "margin", "pair", "proxy"})
CONTEXT = {"num_classes": 8, "embedding_size": 64, "image_size": 64}


@dataclass(frozen=True)
class Block:
    """A block of code on a page: its language ('' where it is only indented) and what it is said to exit with."""

    page: str
    line: int
    language: str
    text: str
    exits: int = 0

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _blocks(page: Path) -> list[Block]:
    found, exits = [], 0
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block" and (match := re.search(r"exits with (\d+)", token.content)):
            exits = int(match.group(1))
        elif token.type in ("fence", "code_block"):
            assert token.map is not None
            language = token.info.split()[0] if token.info.strip() else ""
            found.append(Block(str(page.relative_to(ROOT)), token.map[0] + 1, language, token.content, exits))
            exits = 0
    return found


BLOCKS = [block for page in PAGES for block in _blocks(page)]


def _of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


# ---- Python


@pytest.fixture
def _first_party_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The plugins of this repository and nothing else, and nothing registered left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEARFAR_PLUGINS", ",".join(FIRST_PARTY))
    default_registry.cache_clear()
    yield
    default_registry.cache_clear()


@pytest.mark.usefixtures("_first_party_only")
@pytest.mark.parametrize("page", sorted({block.page for block in _of("python", "pycon")}))
def test_the_python_on_a_page_runs_and_prints_what_it_shows(page):
    namespace: dict[str, object] = {"__name__": "page"}
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


def test_the_pages_show_the_example_plugin_as_it_is():
    source = ROOT / "examples" / "acme-losses"
    files = [source / "src/acme_losses/parts.py", source / "src/acme_losses/plugin.py", source / "pyproject.toml"]
    for mark, file in zip(("class LogRatio", "log_ratio", "[project.entry-points"), files, strict=True):
        text = file.read_text(encoding="utf-8")
        for page in ("README.md", "docs/write-a-plugin.md"):
            shown = [b for b in BLOCKS if b.page == page and mark in b.text and "register(" not in b.text]
            shown = [b for b in shown if b.language in ("python", "toml") and "gradcheck" not in b.text]
            assert shown, f"{page} shows nothing of {file.name}"
            assert all(block.text.rstrip() in text for block in shown), f"{page} differs from {file.name}"


# ---- the command line


@dataclass(frozen=True)
class Command:
    """A line after a prompt, and what is shown below it."""

    block: Block
    words: tuple[str, ...]
    shown: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block}: {shlex.join(self.words)}"

    @property
    def trains(self) -> bool:
        return len(self.words) > 1 and self.words[1] in ("train", "evaluate")


def _commands() -> Iterator[Command]:
    for block in _of("console"):
        for piece in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            line, *shown = piece.rstrip("\n").split("\n")
            yield Command(block, tuple(shlex.split(line, comments=True)), tuple(text.rstrip() for text in shown))


COMMANDS = list(_commands())
NEARFAR = [command for command in COMMANDS if command.words[0] == "nearfar" and "acme-losses" not in str(command)]
#: Run as they stand: what trains is run only where it is said to fail at once.
SHORT = [command for command in NEARFAR if not command.trains or command.block.exits]
TRAINING = [command for command in NEARFAR if command.trains and not command.block.exits]


def _nearfar(words: tuple[str, ...], folder: Path) -> tuple[int, list[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEARFAR_")}
    done = subprocess.run(
        [sys.executable, "-m", "nearfar", *words[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        cwd=folder,
        env=environment | {"COLUMNS": "100", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
    )
    return done.returncode, [line.rstrip() for line in done.stdout.splitlines()]


def _agrees(shown: tuple[str, ...], printed: list[str]) -> bool:
    """Whether the lines shown are those printed, where a line of dots stands for any number of them."""
    if not shown:
        return True
    pattern = "".join(".*" if line in ("…", "...") else re.escape(f"{line}\n") for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed), flags=re.DOTALL) is not None


@pytest.mark.parametrize("command", SHORT, ids=str)
def test_a_command_prints_what_is_shown_and_exits_as_is_said(command, tmp_path):
    status, printed = _nearfar(command.words, tmp_path)
    assert status == command.block.exits, "\n".join(printed)
    assert _agrees(command.shown, printed), "\n".join(printed)


@pytest.mark.parametrize("command", TRAINING, ids=str)
def test_a_command_that_trains_has_options_and_values_that_exist(command):
    from nearfar.cli import cli
    from nearfar.train import config

    line = cli.get_command(None, command.words[1])
    said = line.make_context("nearfar", list(command.words[2:])).params
    config.Config.of(*map(config.set_layer, said.get("assignments", ())))
    if said.get("criterion"):
        assert Recipe.of(said["criterion"]).plan(**CONTEXT).errors == ()
    if said.get("model"):
        import timm

        assert timm.is_model(said["model"])


@pytest.mark.long
def test_the_training_commands_of_the_readme_run(tmp_path):
    for command in TRAINING:
        if command.block.page == "README.md":
            brief = ("--epochs", "1", "--set", "steps_per_epoch=2") if command.words[1] == "train" else ()
            status, printed = _nearfar((*command.words, *brief), tmp_path)
            assert status == 0, "\n".join(printed)
            assert any(line.startswith("trained network") for line in printed)


def test_scripts_and_files_that_commands_name_exist():
    named = [word for command in COMMANDS for word in command.words if re.match(r"(scripts|plugins|examples)/", word)]
    assert named
    assert [word for word in named if not (ROOT / word).exists()] == []


# ---- recipes and configurations


@pytest.mark.parametrize(
    "recipe", [pytest.param(line, id=line) for block in _of("") for line in block.text.splitlines() if line.strip()]
)
def test_a_recipe_on_a_page_composes(recipe):
    assert [problem.message for problem in Recipe.of(recipe).plan(**CONTEXT).errors] == []


@pytest.mark.parametrize("block", _of("yaml"), ids=str)
def test_yaml_on_a_page_is_a_recipe_or_the_configuration_with_every_default(block):
    if "terms:" in block.text.splitlines()[0]:
        assert Recipe.from_yaml(block.text).plan(**CONTEXT).errors == ()
        return
    from nearfar.train import config

    data = yaml12.load(block.text, source=str(block))
    assert config.Config.of((str(block), data)) == config.Config()
    assert list(_keys(data)) == list(_keys(config.Config().to_dict())), "a key is missing or out of order"


def _keys(data: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in data.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")


def test_the_grammar_and_the_tree_of_errors_are_those_of_the_source():
    for page, module in (("docs/compose.md", grammar), ("docs/errors.md", errors)):
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
    assert len(signatures) == len(hookspecs.HOOKS)


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
    assert len(pages) == len(_described(registry)) + len(KINDS) + 1


def test_a_page_has_what_the_part_says_of_itself(registry):
    for d in _described(registry):
        text = catalogue.page(d).replace("\\", "")
        missing = [p.name for p in d.parameters if f"| `{p.name}` |" not in text]
        missing += [name for name in d.spec.presets if f"| `{name}` |" not in text]
        missing += [said for said in (*d.deviations, *d.defects) if said.replace("\\", "") not in text]
        assert not missing, f"{d.full_name} lacks {missing}"
        assert d.recipe in text
        assert text.count(":::{warning}") == len(d.defects)


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


def test_a_plugins_own_catalogue_has_its_parts_only_and_forgets_those_that_are_gone(registry, tmp_path):
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses" / "margin.gone.md").write_text("# margin.gone\n", encoding="utf-8")
    written = catalogue.write(tmp_path, registry, plugin="margin")
    names = {f"losses/margin.{spec.name}.md" for p in registry.plugins if p.namespace == "margin" for spec in p.specs}
    assert {str(path.relative_to(tmp_path)) for path in written} == names | {"index.md", "losses.md"}
    assert sorted(tmp_path.rglob("*.md")) == written


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
