"""What comes of one check, and how a failure is told: the law, what was found, and a script that shows it again."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys

import pytest
import torch

from kit.sound import SOUND_LOSS, SoundLoss
from nearfar.discovery import Plugin, Selector, discover
from nearfar.errors import UnknownPart
from nearfar.registry import Registry, default_registry
from nearfar.spec import LossSpec
from nearfar.testing import checks_of, parts, seeded
from nearfar.testing.check import Check
from nearfar.testing.law import LAWS, Law, LawBroken, NotApplicable
from nearfar.testing.reproduction import Call
from nearfar.testing.reproduction import script as script_of
from nearfar.testing.scene import Scene, batch
from nearfar.testing.subject import Subject


def subject_of(target=SoundLoss, seed=0, **changed):
    registry = Registry(discover(selector=Selector(allow=frozenset({"core"}))))
    return Subject(registry.register(LossSpec(**{**SOUND_LOSS, **changed}), target), registry, seed)


def run(check, target=SoundLoss, **changed):
    law = Law("of_mine", "mine", ("loss",), "It is as I say.", None, check)
    return Check(subject_of(target, **changed), law).run()


def breaks(subject):
    raise LawBroken("asked for 1, found 2", subject.scene())


# ---- what comes of it


def test_a_law_that_is_kept():
    found = run(lambda subject: None)
    assert (found.id, found.status, found.reason) == ("local.sound::of_mine", "passed", "")
    assert run(lambda subject: "17 ms").reason == "17 ms"


def test_a_law_that_is_broken_is_told_with_what_was_found_and_the_law():
    found = run(breaks)
    assert found.status == "failed"
    assert found.reason.startswith("asked for 1, found 2\n\nThe law: It is as I say.\n\n# To reproduce")


def test_a_law_that_says_nothing():
    def check(subject):
        raise NotApplicable("it takes no reference set")

    found = run(check)
    assert (found.status, found.reason) == ("skipped", "it takes no reference set")


def test_what_is_expected_is_no_failure_and_its_absence_is_one():
    expects = {"expected_failures": {"of_mine": "the paper has it so"}}
    found = run(breaks, **expects)
    assert (found.status, found.reason) == ("expected", "the paper has it so")
    kept = run(lambda subject: None, **expects)
    assert kept.status == "failed"
    assert "the law is kept, but the spec expects that it is not (the paper has it so)" in kept.reason


class Raises(SoundLoss):
    def terms(self, batch):
        if len(batch.embeddings) != 12:
            raise ValueError("twelve are asked for")
        return super().terms(batch)


def test_what_a_part_raises_is_told_with_where_and_on_what():
    found = run(lambda subject: subject.value(subject.scene(classes=2, per_class=2, dim=2)), Raises)
    assert found.status == "failed"
    assert found.reason.startswith("ValueError: twelve are asked for (line ")
    assert "at test_testing_check.py:" in found.reason
    assert "nearfar.testing.batch(classes=2, per_class=2, dim=2, seed=0)" in found.reason


class NeverRuns(SoundLoss):
    def terms(self, batch):
        raise ValueError("not today")


def test_a_part_that_does_not_run_is_not_held_to_the_rest():
    found = run(lambda subject: None, NeverRuns)
    assert found.status == "skipped"
    assert found.reason.startswith('see the law `runs`: nearfar.create_loss("local.sound") does not run: ')
    assert "ValueError: not today (line " in found.reason
    assert found.reason.endswith(" of test_testing_check.py)")


def test_a_part_that_leaves_is_a_failure_and_not_the_end():
    class Leaves(SoundLoss):
        def terms(self, batch):
            sys.exit(3)

    found = run(lambda subject: subject.value(subject.scene()), Leaves)
    assert "does not run: it called sys.exit(3) (line " in found.reason

    def check(subject):
        sys.exit(3)

    found = run(check)
    assert found.status == "failed"
    assert found.reason.startswith("it called sys.exit(3) (line ")


def test_whoever_interrupts_is_heard():
    def check(subject):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(check)


def test_what_a_part_prints_is_kept_for_the_report(capfd):
    class Prints(SoundLoss):
        def terms(self, batch):
            print("margin is", self.margin)
            print("deprecated", file=sys.stderr)
            return super().terms(batch)

    def check(subject):
        subject.value(subject.scene())
        breaks(subject)

    assert run(lambda subject: None, Prints).reason == ""
    assert "It printed:\n    margin is 0.5\n    deprecated\n" in run(check, Prints).reason
    assert capfd.readouterr() == ("", "")


def test_generators_are_where_they_were():
    def check(subject):
        torch.rand(1)

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    run(check)
    assert torch.rand(1) == expected


# ---- as a test


def test_as_a_test_it_passes_skips_fails_and_is_expected_to_fail():
    def says_nothing(subject):
        raise NotApplicable("it takes no reference set")

    def of(check, **changed):
        return Check(subject_of(**changed), Law("of_mine", "mine", ("loss",), "It is so.", None, check))

    of(lambda subject: None)()
    with pytest.raises(pytest.skip.Exception, match="it takes no reference set"):
        of(says_nothing)()
    with pytest.raises(pytest.fail.Exception, match=r"local\.sound::of_mine\nasked for 1, found 2"):
        of(breaks)()
    with pytest.raises(pytest.xfail.Exception, match="the paper"):
        of(breaks, expected_failures={"of_mine": "the paper"})()


def test_parts_parametrises_with_readable_ids():
    mark = parts("proxy", only="center").mark
    assert mark.name == "parametrize"
    ids = mark.kwargs["ids"]
    assert "proxy.center::gradient" in ids
    assert all(name.startswith("proxy.center::") for name in ids)
    assert parts("proxy", only="proxy.center").mark.kwargs["ids"] == ids
    with pytest.raises(UnknownPart, match=r"no part of 'proxy' matches 'centre'"):
        parts("proxy", only="centre")


# ---- which there are


FIRST_PARTY = ("core", "iou", "margin", "pair", "proxy")


def ids_of(*namespaces):
    return [check.id for namespace in namespaces for check in checks_of(default_registry(), namespace)]


def test_every_check_has_a_name_of_its_own():
    ids = ids_of(*FIRST_PARTY, "pml")
    assert len(set(ids)) == len(ids)


def test_another_process_has_the_same_checks_in_the_same_order():
    # As the workers of pytest-xdist must: whatever the order of sets is there.
    code = (
        "from nearfar.registry import default_registry\nfrom nearfar.testing import checks_of\n"
        "for n in ('iou', 'proxy'):\n    for check in checks_of(default_registry(), n): print(check.id)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split("\n")[:-1] == ids_of("iou", "proxy")


def test_a_part_that_cannot_be_imported_says_so_once_and_by_itself(install):
    source = """
        from nearfar import LossSpec, hookimpl

        @hookimpl
        def nearfar_losses():
            return [
                LossSpec(name="gone", target="acme_no_such_module:Gone", summary="Gone."),
                LossSpec(name="here", target="nearfar_pair.losses.sup_con:SupCon", summary="Here."),
            ]
    """
    install("acme-losses", "acme", source, requires="nearfar")
    registry = Registry(discover())
    checks = checks_of(registry, "acme")
    gone = {c.key: c.run() for c in checks if c.subject.name == "acme.gone"}
    told = gone.pop("target_exists")
    assert told.status == "failed"
    assert "acme_no_such_module:Gone cannot be imported: ModuleNotFoundError" in told.reason
    assert {result.status for result in gone.values()} == {"skipped"}, "it is told once"
    assert all(result.reason.startswith("see the law `target_exists`: ") for result in gone.values())
    (here,) = (c for c in checks if c.id == "acme.here::runs")
    assert here.run().status == "passed"


@pytest.mark.parametrize(
    ("namespace", "message"),
    [
        ("parir", "no plugin has the namespace 'parir'; did you mean 'pair'?"),
        ("nearfar-pair", "'nearfar-pair' is the distribution; its namespace is 'pair'"),
        ("xyz", "no plugin has the namespace 'xyz'; there are core, "),
    ],
)
def test_a_plugin_nobody_has(namespace, message):
    with pytest.raises(UnknownPart) as caught:
        checks_of(default_registry(), namespace)
    assert message in str(caught.value)


def test_a_plugin_that_did_not_load_says_why():
    plugin = Plugin(
        namespace="acme", distribution="acme-losses", version="1", module="acme", status="failed", reason="no licence"
    )
    with pytest.raises(UnknownPart, match="the plugin 'acme' is failed: no licence"):
        checks_of(Registry([plugin]), "acme")


# ---- seen again


TRIPLET = Subject(default_registry().resolve("loss", "pair.triplet"), default_registry())


def script(subject, scene, arguments):
    """The part of a script that makes the call, without the check that follows."""
    return script_of("a::b", subject, Call(subject, scene, arguments, "")).rpartition("\n")[0]


def executed(text):
    """The names a script leaves behind, and what it printed."""
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, "<script>", "exec"), names)
    return names, printed.getvalue()


def scene_with(**inputs):
    return TRIPLET.scene().replace(**inputs)


X, Y = batch()
SCENES = {
    "plain": TRIPLET.scene(),
    "other numbers": scene_with(embeddings=torch.randn(12, 3, dtype=torch.float64)),
    "not finite": scene_with(embeddings=torch.full((12, 8), torch.nan).index_fill(0, torch.tensor([1]), -torch.inf)),
    "all the same": scene_with(embeddings=torch.zeros(12, 8, dtype=torch.float64)),
    "no rows": scene_with(embeddings=X[:0], labels=Y[:0]),
    "other labels": scene_with(labels=Y.int() + 2**20),
    "half precision": TRIPLET.scene().to(torch.bfloat16),
    "a reference set": TRIPLET.with_reference(TRIPLET.scene()),
    "a reference set after other numbers": TRIPLET.with_reference(scene_with(embeddings=X * 3)),
    "other numbers in a reference set": TRIPLET.with_reference(TRIPLET.scene()).replace(ref_emb=X * 2, ref_labels=Y),
    "selected": scene_with(indices_tuple=(torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))),
    "nobody knows from where": Scene({"embeddings": X, "labels": Y}),
    "of a function that is gone": Scene({"embeddings": X, "labels": Y}, "acme.gone(3)"),
}


def same(first, second):
    if isinstance(first, tuple):
        return all(map(same, first, second))
    return first.dtype == second.dtype and torch.equal(first.nan_to_num(7.0), second.nan_to_num(7.0))


@pytest.mark.parametrize("name", SCENES)
def test_the_script_makes_the_same_inputs_and_calls_the_part(name):
    scene = SCENES[name]
    names, printed = executed(script(TRIPLET, scene, {"margin": 0.3}))
    for each, value in scene.inputs.items():
        assert same(names[each].detach() if isinstance(value, torch.Tensor) else names[each], value)
    assert names["part"].margin == 0.3
    assert names["value"].item() == pytest.approx(TRIPLET.value(scene, margin=0.3).item(), nan_ok=True)
    assert names["embeddings"].grad.shape == scene["embeddings"].shape
    assert printed.startswith("tensor(")


def test_the_script_is_short_where_something_makes_the_inputs():
    assert "torch.tensor" not in script(TRIPLET, TRIPLET.scene(), {})
    assert "embeddings = embeddings.to(torch.bfloat16)" in script(TRIPLET, SCENES["half precision"], {})


def test_no_script_rather_than_one_of_other_inputs():
    assert "part(" not in script(TRIPLET, scene_with(embeddings=torch.randn(500, 8)), {})
    assert "part(" not in script(TRIPLET, scene_with(indices_tuple=object()), {})


@pytest.mark.parametrize("full_name", ["pair.semihard", "core.mean", "core.euclidean", "iou.giou", "proxy.center"])
def test_every_kind_of_part_has_its_script(full_name):
    registry = default_registry()
    kind = registry.kinds_of(full_name)[0]
    subject = Subject(registry.resolve(kind, full_name), registry, seed=3)
    entry = {"losses": X[:, 0], "indices": torch.arange(12), "reduction_type": "element"}
    of_no_batch = {
        "reducer": Scene({"loss_dict": {"loss": entry}, "embeddings": X, "labels": Y}),
        "distance": Scene({"query": X, "reference": X[:2]}),
    }
    scene = of_no_batch[kind] if kind in of_no_batch else subject.scene()
    names, _ = executed(script(subject, scene, {}))
    expected = subject.call(subject.make(), scene)
    assert same(names["value"], expected) if kind == "miner" else torch.equal(names["value"], expected)


SPOILED = """
import numpy as np
import torch
from nearfar.nn import EmbeddingLoss
from nearfar.nn.terms import element_terms


class Spoiled(EmbeddingLoss):
    def __init__(self, spoil: bool = False, noise: float = 0.0, *, distance=None, reducer=None):
        super().__init__(distance=distance, reducer=reducer)
        self.spoil, self.noise = spoil, noise

    def terms(self, batch):
        values = batch.embeddings.sum(1) + self.noise * torch.rand(()) + self.noise * np.random.rand()
        if self.spoil and len(values) > 3:
            raise RuntimeError(f"spoiled by {values.sum().item():.12f}")
        return element_terms(values)
"""

SPOILED_PLUGIN = """
from nearfar import LossSpec, hookimpl

@hookimpl
def nearfar_losses():
    return [LossSpec(name="spoiled", target="acme_spoiled:Spoiled", summary="Spoiled.", random=True)]
"""


def test_the_script_of_a_failure_runs_as_it_was_printed_and_shows_the_failure(install, tmp_path):
    install("acme-losses", "acme", SPOILED_PLUGIN, requires="nearfar")
    (tmp_path / "site" / "acme_spoiled.py").write_text(SPOILED, encoding="utf-8")
    registry = Registry(discover())
    subject = Subject(registry.resolve("loss", "acme.spoiled"), registry, seed=11)

    def check(subject):
        arguments = {"spoil": True, "noise": 0.5}
        scene = subject.scene().replace(embeddings=subject.scene()["embeddings"][:, :3])
        try:
            subject.value(scene, **arguments)
        except RuntimeError as error:
            raise LawBroken(str(error), scene, **arguments) from error

    found = Check(subject, Law("kept", "mine", ("loss",), "It is so.", None, check)).run()
    assert found.status == "failed"
    message = found.reason.partition("\n")[0]
    assert message.startswith("spoiled by ")
    printed = found.reason[found.reason.index("# To reproduce") :]
    assert printed.endswith("# nearfar check-plugin acme -k acme.spoiled::kept --seed 11")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", printed],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith(f"RuntimeError: {message}")


def test_seeded_starts_every_generator_and_puts_it_back():
    import random

    import numpy as np

    def drawn():
        return torch.rand(1).item(), np.random.rand(), random.random()

    torch.manual_seed(1)
    with seeded(3):
        first = drawn()
    with seeded(3):
        assert drawn() == first
    with seeded(4):
        assert drawn() != first
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    with seeded(3):
        torch.rand(5)
    assert torch.rand(1) == expected


def test_every_law_says_itself_in_a_sentence():
    for law in LAWS.values():
        assert law.says.endswith("."), law.name
        assert len(law.says) < 300, law.name
        assert law.name.isidentifier()
