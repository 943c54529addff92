"""What ``nearfar new-plugin`` writes: it installs, its own tests pass, it keeps every law, it composes and trains."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from nearfar.cli import cli
from nearfar.scaffold import FAMILIES

TWO_STEPS = """
import nearfar, torch

torch.manual_seed(0)
criterion = nearfar.compose({loss!r}, {arguments})
on_boxes, taught = (criterion.inputs == inputs for inputs in (("pred_boxes", "target_boxes"), ("student", "target")))
model = torch.nn.Linear(4, 4) if on_boxes else torch.nn.Linear(16, 64)
optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.1)
before = torch.nn.utils.parameters_to_vector(model.parameters())
for _ in range(2):
    if on_boxes:
        boxes = torch.rand(8, 4).sort(1).values
        loss = criterion(model(boxes), boxes)
    elif taught:
        loss = criterion(model(torch.randn(32, 16)), torch.randn(32, 64))
    else:
        loss = criterion(model(torch.randn(32, 16)), torch.arange(8).repeat_interleave(4))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    assert loss.isfinite() and loss > 0
assert not torch.equal(before, torch.nn.utils.parameters_to_vector(model.parameters()))
assert criterion.recipe.plugins["acme"] == "0.1.0"
"""


@dataclass(frozen=True)
class Installed:
    """A plugin as it was written, and a folder outside of this environment into which pip installed it."""

    folder: Path
    site: Path

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=580,
            cwd=self.folder,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])])},
        )

    def ok(self, *arguments: str) -> str:
        done = self.python(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def generate(folder: Path, *options: str) -> Installed:
    """Write a plugin ``acme-losses`` and install it, without the network and without touching this environment."""
    written = CliRunner().invoke(
        cli, ["new-plugin", "acme-losses", "-o", str(folder / "acme-losses"), *options], catch_exceptions=False
    )
    assert written.exit_code == 0, written.output
    command = (
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--target",
        str(folder / "site"),
    )
    subprocess.run(
        [sys.executable, "-m", "pip", *command, str(folder / "acme-losses")],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return Installed(folder / "acme-losses", folder / "site")


def passes_its_own_tests(plugin: Installed) -> None:
    done = plugin.ok("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    assert re.search(r"\b[1-9]\d* passed", done), done
    assert "failed" not in done


def keeps_every_law(plugin: Installed, parts: set[str]) -> None:
    report = json.loads(plugin.ok("-m", "nearfar", "check-plugin", "acme", "--json"))
    assert report["failed"] == report["expected"] == 0
    assert report["passed"] > 0
    assert {check["part"] for check in report["checks"] if check["status"] == "passed"} >= parts


def shows_what_it_is(plugin: Installed, part: str) -> None:
    shown = plugin.ok("-m", "nearfar", "show", part)
    assert "acme-losses 0.1.0" in shown
    assert "Formula" in shown


def composes_and_trains(plugin: Installed, loss: str, **arguments: object) -> None:
    """Two steps of training; and what the README has for an example."""
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    readme = (plugin.folder / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    plugin.ok("-W", "error", "-c", TWO_STEPS.format(loss=loss, arguments=written) + block)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Installed:
    return generate(
        tmp_path_factory.mktemp("triplet"), "--loss", "my_loss", "--miner", "my_miner", "--family", "triplet"
    )


def test_a_loss_and_a_miner_are_registered_and_shown(plugin):
    (row,) = [row for row in json.loads(plugin.ok("-m", "nearfar", "plugins", "--json")) if row["namespace"] == "acme"]
    assert (row["status"], row["registers"]) == ("active", ["acme.my_loss", "acme.my_miner"])
    shows_what_it_is(plugin, "acme.my_loss")
    assert "margin (units of the distance) = 0.2 in [0, inf]" in plugin.ok("-m", "nearfar", "show", "my_miner")


def test_a_loss_and_a_miner_pass_their_own_tests(plugin):
    passes_its_own_tests(plugin)


def test_a_loss_and_a_miner_keep_every_law(plugin):
    keeps_every_law(plugin, {"acme.my_loss", "acme.my_miner"})


def test_a_loss_and_a_miner_compose_and_train(plugin):
    composes_and_trains(plugin, "my_loss", miner="my_miner")


def test_what_is_installed_has_its_licence_and_its_types(plugin):
    assert list(plugin.site.glob("acme_losses-0.1.0.dist-info/licenses/LICENSE"))
    metadata = (plugin.site / "acme_losses-0.1.0.dist-info" / "METADATA").read_text(encoding="utf-8")
    assert "License-Expression: MIT" in metadata
    assert (plugin.site / "acme_losses" / "py.typed").is_file()


CASES = {
    **{family: (["--loss", "my_part", "--family", family], "my_part") for family in FAMILIES},
    "miner": (["--miner", "my_part"], "pml.margin_loss"),
    "reducer": (["--reducer", "my_part"], "pml.margin_loss"),
    "distance": (["--distance", "my_part"], "pml.margin_loss"),
    "every kind": (["--loss", "a", "--miner", "b", "--reducer", "c", "--distance", "d"], "a"),
    "every family": ([w for family in FAMILIES for w in ("--loss", f"{family}_loss:{family}")], "pair_loss"),
    "one name": (["--loss", "near", "--miner", "near", "--reducer", "near", "--distance", "near"], "near"),
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_every_family_and_kind_installs_keeps_every_law_and_trains(tmp_path, case):
    options, loss = CASES[case]
    plugin = generate(tmp_path, *options)
    said = list(zip((option[2:] for option in options[::2]), options[1::2], strict=True))
    family = dict(said).get("family", "triplet")
    parts = [(kind, name.partition(":")[0]) for kind, name in said if kind != "family"]
    passes_its_own_tests(plugin)
    one_name = len({name for _, name in parts}) < len(parts)
    keeps_every_law(plugin, {f"acme.{name}{f'.{kind}' if one_name else ''}" for kind, name in parts})
    context = {"num_classes": 8, "embedding_size": 64} if family in ("margin", "proxy") else {}
    slots = {kind: f"acme.{name}" for kind, name in parts if kind != "loss"}
    composes_and_trains(plugin, loss, **slots, **context)
