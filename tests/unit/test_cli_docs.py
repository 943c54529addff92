"""``nearfar docs``: the pages of somebody's plugin in somebody's folder, and what a report adds to them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from nearfar.catalogue import pages
from nearfar.cli import cli
from nearfar.conformance import load, read
from nearfar.discovery import Plugin
from nearfar.errors import ConfigError, NearfarError, PluginError
from nearfar.registry import Registry
from nearfar.spec import LossSpec, MinerSpec, PartSpec

PARTS = '''
class Spread:
    """Pushes everything apart.

    .. math:: L = -d
    """

    def __init__(self, margin=0.5): ...
'''


def spec(name: str, cls: type[PartSpec] = LossSpec, **fields: object) -> PartSpec:
    needed = {"produces": "pairs"} if cls is MinerSpec else {}
    return cls(**{"name": name, "target": "acme_pages_parts:Spread", "summary": f"It is {name}."} | needed | fields)


def plugin(*specs: PartSpec, namespace: str = "acme", **fields: str) -> Plugin:
    about = {"distribution": f"{namespace}-losses", "version": "1.2", "module": "m"} | fields
    return Plugin(namespace=namespace, specs=specs, **about)


SPECS = (
    spec("spread", expected_failures={"empty": "A batch of nothing is refused."}),
    spec("gather", family="odd"),
    spec("nearest", MinerSpec),
)


@pytest.fixture(autouse=True)
def have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """Let these plugins be what is installed; ``acme`` with two losses and a miner unless told otherwise."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "acme_pages_parts.py").write_text(PARTS, encoding="utf-8")

    def installing(*plugins: Plugin) -> Registry:
        registry = Registry(plugins)
        monkeypatch.setattr("nearfar.project.default_registry", lambda: registry)
        return registry

    installing(plugin(*SPECS))
    return installing


def docs(folder: Path, *options: str, namespace: str = "acme") -> str:
    arguments = ["docs", "--plugin", namespace, "-o", str(folder), *options]
    return CliRunner().invoke(cli, arguments, catch_exceptions=False).output


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


OWN = {
    "index.md",
    "losses.md",
    "miners.md",
    "conformance.md",
    "losses/acme.spread.md",
    "losses/acme.gather.md",
    "miners/acme.nearest.md",
}


# ---- the folder


def test_a_plugin_gets_a_page_a_part_an_index_and_a_page_on_the_laws(tmp_path):
    folder = tmp_path / "new" / "pages"
    assert docs(folder) == f"7 pages in {folder}; begin with {folder / 'index.md'}\n"
    assert names(folder) == OWN
    page = (folder / "losses/acme.spread.md").read_text(encoding="utf-8")
    assert "```{math}\nL = -d\n```" in page
    assert "$ nearfar check-plugin acme -k acme.spread::" in page
    assert "- `empty`: A batch of nothing is refused." in page


def test_a_folder_need_not_be_installed_nor_torch_be_loaded(tmp_path):
    made = CliRunner().invoke(cli, ["new-plugin", "zeta-losses", "--loss", "near", "-o", str(tmp_path / "zeta")])
    assert made.exit_code == 0, made.output
    code = (
        "import sys; from nearfar.cli import cli\n"
        "cli.main(['docs', '--plugin', './zeta', '-o', 'pages'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "pages" / "losses" / "zeta.near.md").read_text(encoding="utf-8")
    assert "zeta-losses 0.1.0" in page
    assert "[d(a, p) - d(a, n) + m]_+" in page


def test_pages_are_rewritten_and_those_of_parts_that_are_gone_removed(tmp_path, have):
    docs(tmp_path / "pages")
    have(plugin(spec("spread", summary="It is renewed.")))
    docs(tmp_path / "pages")
    assert names(tmp_path / "pages") == {"index.md", "losses.md", "conformance.md", "losses/acme.spread.md"}
    assert "It is renewed." in (tmp_path / "pages/losses/acme.spread.md").read_text(encoding="utf-8")


def test_files_of_others_stay(tmp_path, have):
    own = {
        "README.md": "mine",
        "losses/notes.md": "mine too",
        "deep/down/losses/acme.spread.md": "and this",
        "losses/acme.spread.png": "a picture",
    }
    for name, text in own.items():
        (tmp_path / "pages" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pages" / name).write_text(text, encoding="utf-8")
    docs(tmp_path / "pages")
    have(plugin(spec("gather")))
    docs(tmp_path / "pages")
    assert {name: (tmp_path / "pages" / name).read_text(encoding="utf-8") for name in own} == own
    assert "losses/acme.spread.md" not in names(tmp_path / "pages")


@pytest.mark.parametrize("name", ["index.md", "losses/acme.gather.md"])
def test_a_file_of_somebody_in_the_way_is_refused_and_nothing_is_written(tmp_path, name):
    path = tmp_path / "pages" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{re.escape(str(path))} is in the way: nearfar did not write it; move"):
        docs(tmp_path / "pages")
    assert names(tmp_path / "pages") == {name}
    assert path.read_text(encoding="utf-8") == "mine"


def test_a_page_that_was_edited_is_neither_overwritten_nor_removed(tmp_path, have):
    docs(tmp_path)
    page = tmp_path / "losses/acme.spread.md"
    edited = page.read_text(encoding="utf-8") + "\nMy remark.\n"
    page.write_text(edited, encoding="utf-8")
    with pytest.raises(ConfigError, match="it was edited after nearfar wrote it"):
        docs(tmp_path)
    have(plugin(spec("gather")))
    docs(tmp_path)
    assert page.read_text(encoding="utf-8") == edited


def test_two_plugins_do_not_share_a_folder(tmp_path, have):
    have(plugin(spec("spread")), plugin(spec("far"), namespace="other"))
    docs(tmp_path)
    with pytest.raises(ConfigError, match="nearfar wrote it for the plugin acme"):
        docs(tmp_path, namespace="other")
    docs(tmp_path / "other", namespace="other")
    docs(tmp_path)
    assert "other/losses/other.far.md" in names(tmp_path)


@pytest.mark.parametrize("obstacle", ["directory", "link", "bytes"])
def test_what_is_no_page_in_the_place_of_one_is_refused(tmp_path, obstacle):
    path = tmp_path / "pages" / "index.md"
    path.parent.mkdir()
    if obstacle == "directory":
        path.mkdir()
    elif obstacle == "link":
        path.symlink_to(tmp_path / "elsewhere.md")
    else:
        path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"index\.md is in the way"):
        docs(tmp_path / "pages")
    assert not (tmp_path / "elsewhere.md").exists()


def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "losses").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="losses is in the way: it is no folder"):
        docs(tmp_path)
    assert not (tmp_path / "index.md").exists()


# ---- the plugin


@pytest.mark.parametrize(
    ("namespace", "message"),
    [
        ("acmee", "no plugin has the namespace 'acmee'; did you mean 'acme'?"),
        ("acme-losses", "no plugin has the namespace 'acme-losses'; did you mean 'acme'?"),
        ("zzz", "no plugin has the namespace 'zzz'; there are acme, broken"),
        ("broken", "the plugin 'broken' is failed: ImportError: no"),
    ],
)
def test_a_plugin_that_is_not_there_is_answered_with_the_closest_or_with_the_reason(tmp_path, have, namespace, message):
    have(plugin(*SPECS), plugin(namespace="broken", status="failed", reason="ImportError: no"))
    with pytest.raises(PluginError) as caught:
        docs(tmp_path / "pages", namespace=namespace)
    assert str(caught.value) == message
    assert not (tmp_path / "pages").exists()


def test_a_part_that_cannot_be_read_is_an_error_that_names_its_target(tmp_path, have):
    have(plugin(spec("lost", target="acme_pages_parts:Nowhere")))
    with pytest.raises(NearfarError, match="acme_pages_parts:Nowhere"):
        docs(tmp_path / "pages")
    assert not (tmp_path / "pages").exists()


# ---- the report


def report(*rows: tuple[str, str, str, str], version: str = "1.2", namespace: str = "acme") -> dict[str, object]:
    """What check-plugin writes, of rows of part, law (with a case), status and reason."""
    checks = []
    for part, law, status, reason in rows:
        bare, _, case = law.partition("[")
        full = f"{namespace}.{part}" if part else namespace
        checks.append(
            {
                "id": f"{full}::{law}",
                "part": full,
                "law": bare,
                "case": case.rstrip("]"),
                "status": status,
                "reason": reason,
                "seconds": 0.1,
            }
        )
    return {
        "plugin": namespace,
        "version": version,
        "nearfar": "0.1.0",
        "checks": checks,
        **Counter(row["status"] for row in checks),
    }


ROWS = (
    ("", "light", "passed", ""),
    ("spread", "gradient", "passed", ""),
    ("spread", "preset[a]", "passed", ""),
    ("spread", "preset[b]", "expected", "b is of another paper"),
    ("spread", "reference", "skipped", "it takes no reference set"),
    ("spread", "state", "failed", "it forgets\n    at line 7"),
    ("gather", "gradient", "passed", ""),
    ("gather", "preset", "skipped", "it has none"),
    ("gather", "reference", "skipped", "it takes no reference set"),
    ("gather", "state", "passed", ""),
    ("nearest", "bounds", "passed", ""),
)


def test_a_page_says_how_many_laws_hold_and_why_the_others_do_not(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(report(*ROWS)), encoding="utf-8")
    docs(tmp_path / "pages", "--report", str(tmp_path / "report.json"))
    page = (tmp_path / "pages/losses/acme.spread.md").read_text(encoding="utf-8")
    _, _, section = page.partition("## Conformance\n\n")
    assert section.startswith(
        "1 law holds, 1 fails, 1 does not apply, 1 expected failure in version 1.2, by the laws of nearfar 0.1.0."
    )
    assert "Laws that fail:\n\n- `state`: it forgets\n\n" in section
    assert "Laws it does not keep:\n\n- `preset[b]`: b is of another paper\n\n" in section
    assert "Laws that do not apply:\n\n- `reference`: it takes no reference set\n\n" in section


def cells(page: str, heading: str) -> dict[str, list[str]]:
    """The first table below a heading: first cell → the others, as they are shown."""
    below = page[page.index(f"{heading}\n") :]
    html = MarkdownIt("commonmark").enable("table").render(below)
    table = html[html.index("<table>") : html.index("</table>")]
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in table.split("</tr>")]
    return {re.sub(r"<.*?>", "", row[0]): [re.sub(r"<.*?>", "", cell) for cell in row[1:]] for row in rows if row}


def test_the_page_of_a_plugin_has_a_mark_for_each_part_and_law(have):
    made = pages(have(plugin(*SPECS)), plugin="acme", reports=[read(report(*ROWS))])
    page = made["conformance/acme.md"]
    assert cells(page, "## Losses") == {
        "Law": ["gather", "spread"],
        "gradient": ["✓", "✓"],
        "preset": ["·", "○"],
        "state": ["✓", "✗"],
    }
    assert "Laws that apply to none of these: `reference`." in page
    assert "`spread`: laws it does not keep\n\n- `preset[b]`: b is of another paper" in page
    assert cells(page, "## Miners") == {"Law": ["nearest"], "bounds": ["✓"]}
    assert cells(page, "# Conformance of acme")["spread"] == ["1", "1", "1", "1"]
    assert cells(made["conformance.md"], "# Conformance")["acme"] == ["1.2", "3", "5", "3", "1", "1"]


def test_many_parts_are_divided_into_tables_by_family_so_that_each_fits_a_screen(have):
    many = [spec(f"a_loss_of_some_length_{n}", family="odd" if n % 2 else "even") for n in range(12)]
    rows = [(part.name, "gradient", "passed", "") for part in many]
    page = pages(have(plugin(*many)), reports=[read(report(*rows))])["conformance/acme.md"]
    heads = [line for line in page.splitlines() if line.startswith("| Law | [")]
    assert sum(line.count("](../losses/") for line in heads) == 12
    assert max(line.count("](../losses/") for line in heads) <= 4
    assert [line for line in page.splitlines() if line.startswith("### ")] == [
        "### Even, 1 of 2",
        "### Even, 2 of 2",
        "### Odd, 1 of 2",
        "### Odd, 2 of 2",
    ]


def test_a_report_of_another_version_says_so(have):
    made = pages(have(plugin(*SPECS)), reports=[read(report(*ROWS, version="1.1"))])
    assert "This page describes version 1.2: check it again." in made["losses/acme.spread.md"]


def test_without_a_report_the_pages_say_how_to_make_one(have):
    made = pages(have(plugin(*SPECS)))
    assert "There is no report of these; run `nearfar check-plugin acme`." in made["conformance.md"]
    assert "conformance/acme.md" not in made


def test_every_link_between_pages_leads_to_one(have):
    made = pages(have(plugin(*SPECS)), reports=[read(report(*ROWS))])
    for name, text in made.items():
        for link in re.findall(r"\]\(([^)<]+\.md)\)", text):
            target = Path("/", Path(name).parent, link)
            assert str(Path(*target.parts[1:])) in made or str(target.resolve()).lstrip("/") in made, (name, link)
    shown = {
        entry
        for text in made.values()
        for block in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)
        for entry in block.split("\n")
        if entry and not entry.startswith(":")
    }
    assert {f"{entry}.md" for entry in shown} == set(made) - {"index.md"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not what `nearfar check-plugin --json` writes"),
        ('{"plugin": "acme"}', "is not what `nearfar check-plugin --json` writes: it has no 'checks'"),
        (json.dumps(report(("spread", "gradient", "maybe", ""))), "has the status 'maybe'"),
        ('{"reports": 3}', "'reports' is not a list"),
    ],
)
def test_what_is_no_report_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{re.escape(str(path))}.*{re.escape(message)}"):
        load(path)


def test_a_report_of_another_plugin_is_refused(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"reports": [report(namespace="other")]}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"report\.json is of other, not of acme"):
        docs(tmp_path / "pages", "--report", str(tmp_path / "report.json"))
    with pytest.raises(ConfigError, match=r"absent\.json cannot be read: No such file"):
        docs(tmp_path / "pages", "--report", str(tmp_path / "absent.json"))
