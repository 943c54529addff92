"""What is printed with a failure, copied into an empty file and run, fails with the same message.

The parts that fail are those with which each law is shown to find what it is about.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kit import (
    test_laws_boxes,
    test_laws_calls,
    test_laws_cost,
    test_laws_distances,
    test_laws_embeddings,
    test_laws_interoperation,
    test_laws_miners,
    test_laws_numbers,
    test_laws_reducers,
    test_laws_slots,
    test_laws_state,
)
from kit.sound import SOUND_BOX_LOSS, SOUND_DISTANCE, SOUND_LOSS, SOUND_MINER, SOUND_REDUCER, SPECS, SoundLoss
from nearfar.errors import InputError, UnknownPart
from nearfar.nn.reducers import Sum
from nearfar.registry import default_registry
from nearfar.spec import Paper, Preset
from nearfar.testing import LAWS, Result, find_check
from nearfar.testing.check import checks_by
from nearfar.testing.law import NotApplicable
from nearfar.testing.reproduction import Call, script
from nearfar.testing.subject import Subject
from nearfar.told import told as named


def rows(test: Any, **missing: Any) -> Iterator[dict[str, Any]]:
    """What a test is parametrised with, by the names of its arguments."""
    (mark,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    names, values = mark.args
    for row in values:
        row = getattr(row, "values", row)
        yield missing | dict(zip(names, row, strict=True))


def cases() -> Iterator[tuple[str, str, type, dict[str, Any]]]:
    """Law, kind, broken class, spec."""
    found = [
        *rows(test_laws_calls.test_what_a_call_leaves_behind_is_found),
        *rows(test_laws_numbers.test_each_law_catches_what_is_wrong, kind="loss"),
        *rows(test_laws_embeddings.test_each_law_catches_what_is_wrong, kind="loss"),
        *rows(test_laws_state.test_what_a_part_loses_or_shares_is_found, kind="loss", spec=SOUND_LOSS),
        *rows(test_laws_boxes.test_a_broken_box_loss_is_caught_by_the_law_it_breaks, kind="loss", spec=SOUND_BOX_LOSS),
        *rows(
            test_laws_distances.test_a_broken_distance_is_caught_by_the_law_it_breaks,
            kind="distance",
            spec=SOUND_DISTANCE,
        ),
        *rows(test_laws_miners.test_a_broken_miner_is_caught_by_the_law_it_breaks, kind="miner", spec=SOUND_MINER),
        *rows(
            test_laws_reducers.test_a_broken_reducer_is_caught_by_the_law_it_breaks, kind="reducer", spec=SOUND_REDUCER
        ),
    ]
    for row in found:
        yield row["law"], row["kind"], row.get("target") or row["broken"], {**row["spec"], **row.get("changed", {})}
    yield "memory", "loss", test_laws_cost.EveryBoxWithEvery, {**SOUND_BOX_LOSS}
    yield "synchronizations", "loss", test_laws_cost.ReadsTheMean, {**SOUND_BOX_LOSS, "synchronizations": 0}
    yield "emits", "loss", test_laws_slots.Turned, {**SOUND_LOSS}
    yield "emits", "loss", SoundLoss, {**SOUND_LOSS, "emits": ("triplet", "neg_pair")}
    yield "pml_distances", "loss", test_laws_interoperation.AmongFriends, {**SOUND_LOSS}
    yield "pml_miners", "loss", test_laws_interoperation.OneThing, {**SOUND_LOSS}


CASES = list(cases())
IDS = [f"{law}-{kind}-{target.__name__}" for law, kind, target, _ in CASES]


@contextlib.contextmanager
def registered(kind: str, target: Any, spec: dict[str, Any]) -> Iterator[Subject]:
    """A part of this session, which is forgotten afterwards."""
    registry = default_registry()
    try:
        yield Subject(registry.register(SPECS[kind](**spec), target), registry)
    finally:
        with contextlib.suppress(Exception):
            registry.unregister(kind, spec["name"])


def failure(law: str, subject: Subject) -> Result:
    """The first failure of a part by a law."""
    results = (check.run() for check in checks_by([LAWS[law]], [subject]))
    return next(result for result in results if result.status == "failed")


def copied(result: Result) -> str:
    """What is there to be copied."""
    return result.reason[result.reason.index("# To reproduce") :]


def told(result: Result) -> str:
    """What was found, without where that was."""
    return re.split(r"\n      at |\n\nThe law: ", result.reason)[0].rstrip("\n")


def raised_by(text: str) -> Exception:
    """What a script raises."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of known defects, which are errors here alone
        try:
            exec(compile(text, "<copied>", "exec"), {"__name__": "__copied__"})
        except Exception as error:
            return error
    raise AssertionError("it raises nothing")


@pytest.mark.parametrize(("law", "kind", "target", "spec"), CASES, ids=IDS)
def test_what_is_printed_fails_with_the_same_message(law, kind, target, spec):
    with registered(kind, target, spec) as subject:
        found = failure(law, subject)
    torch.manual_seed(1234)  # wherever the generators are in another process
    try:
        error = raised_by(copied(found))
    finally:
        default_registry().unregister(kind, spec["name"])
    assert told(found) in (str(error), named(error))


def test_a_process_of_its_own_fails_with_the_same_message(tmp_path):
    with registered("loss", test_laws_calls.CountsAlways, {**SOUND_LOSS}) as subject:
        found = failure("evaluation", subject)
    (tmp_path / "again.py").write_text(copied(found), encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "again.py"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == f"nearfar.testing.law.LawBroken: {told(found)}"
    assert done.stdout.startswith("tensor("), "the call to begin with"


def test_a_part_of_a_notebook_says_where_it_can_be_run_and_does_so_there():
    class Written(test_laws_calls.CountsAlways):  # in a function, where no import reaches
        pass

    with registered("loss", Written, {**SOUND_LOSS}) as subject:
        found = failure("evaluation", subject)
        assert "# local.sound is registered in its session alone: run this there." in copied(found)
        assert "nearfar check-plugin" not in copied(found)
        assert str(raised_by(copied(found))) == told(found)


class Noted(SoundLoss):
    """Whose spec has everything that is hard to write down."""


def test_a_part_is_registered_again_as_it_was():
    spec = {
        **SOUND_LOSS,
        "name": "noted",
        "paper": Paper(authors='O\'Neil & "X"', title="On hinges", year=2001),
        "presets": {"wide": Preset(arguments={"margin": 0.75}, source="the paper, table 1")},
        "thresholds": {"margin": "negative"},
    }
    registry = default_registry()
    with registered("loss", Noted, spec) as subject:
        text = script("local.noted::evaluation", subject)
        before = registry.resolve("loss", "local.noted").spec
    with registered("loss", SoundLoss, {**SOUND_LOSS}):  # a session is never without parts here
        exec(compile(text, "<copied>", "exec"), {})
        again = registry.resolve("loss", "local.noted")
        registry.unregister("loss", "noted")
    assert again.spec == before
    assert again.target is Noted


# ---- the call to begin with


def subject_of(name: str) -> Subject:
    return Subject(default_registry().resolve("loss", name), default_registry())


def test_a_part_given_as_an_object_is_made_again():
    subject = subject_of("pair.triplet")
    text = script("pair.triplet::asked", subject, Call(subject, subject.scene(), {"reducer": Sum()}, "0, not 1"))
    assert ", reducer=nearfar.nn.reducers.Sum()).double()" in text
    assert "This raises" not in text
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(UnknownPart):
        exec(compile(text, "<copied>", "exec"), names)
    assert names["value"].item() == subject.value(subject.scene(), reducer=Sum()).item()


class Told(Sum):
    """Cannot be made of nothing."""

    def __init__(self, what: str) -> None:
        super().__init__()


def test_no_call_rather_than_another_one():
    subject = subject_of("pair.triplet")
    alone = script("pair.triplet::runs", subject)
    assert alone.splitlines() == [
        "import nearfar.testing",
        "",
        "nearfar.testing.find_check('pair.triplet::runs').hold()",
    ]
    scene = subject.scene()
    for call in (
        Call(subject, scene.replace(embeddings=torch.randn(500, 8)), {}, ""),  # too many numbers
        Call(subject, scene, {"reducer": Told("")}, ""),
        Call(subject, scene.replace(labels=None), {}, "it is 0"),  # raises what nobody was told
    ):
        assert script("pair.triplet::runs", subject, call) == alone


def test_a_call_that_raises_is_shown_and_leaves_the_last_word_to_the_check():
    subject = subject_of("pair.triplet")
    scene = subject.scene().replace(labels=torch.arange(5))
    with pytest.raises(InputError) as caught:
        subject.value(scene)
    wrapped = script("pair.triplet::runs", subject, Call(subject, scene, {}, f"of 5 labels: {caught.value}"))
    assert (
        f"# This raises InputError: {caught.value}\n# with nearfar.testing.seeded(0):\n#     value = part(" in wrapped
    )
    itself = script("pair.triplet::runs", subject, Call(subject, scene, {}, f"InputError: {caught.value}"))
    assert str(raised_by(itself)) == str(caught.value)


# ---- one check by its id


def test_a_check_is_found_by_its_id():
    check = find_check("pair.triplet::half[bfloat16]", seed=3)
    assert (check.id, check.law.name, check.case, check.subject.seed) == (
        "pair.triplet::half[bfloat16]",
        "half",
        "bfloat16",
        3,
    )
    assert isinstance(check.hold(), str)
    assert find_check("pair::light").id == "pair::light"


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("piar.triplet::runs", "no plugin has the namespace 'piar'; did you mean 'pair'?"),
        ("pair.tripletx::runs", "no check is of 'pair.tripletx'; did you mean 'pair.triplet'?"),
        ("pair.triplet::gradients", "there is no law 'gradients'; did you mean 'gradient'?"),
        ("pair.triplet::half[float8]", "there are pair.triplet::half[float16], pair.triplet::half[bfloat16]"),
        ("pair.triplet::invariance", "the law says nothing of it"),
    ],
)
def test_a_check_that_is_none_says_what_of_its_id_nothing_has(id, message):
    with pytest.raises(UnknownPart, match=re.escape(message)):
        find_check(id)


def test_a_law_that_says_nothing_raises_so():
    with pytest.raises(NotApplicable):
        find_check("pair.triplet::detached").hold()
