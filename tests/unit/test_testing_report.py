"""What is written down of the checks of a plugin: counts, JSON, JUnit's XML, a badge."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

import nearfar
from nearfar.discovery import Plugin
from nearfar.registry import default_registry
from nearfar.testing import checks_of, run
from nearfar.testing.check import Result
from nearfar.testing.report import STATUSES, Report

PLUGIN = Plugin(namespace="acme", distribution="acme-losses", version="1.2", module="acme")


def result(status, reason="", *, part="acme.nearest", law="gradient", case=""):
    name = f"{law}[{case}]" if case else law
    return Result(f"{part}::{name}", part, law, case, status, reason, 0.25)


def report_of(*results):
    return Report(PLUGIN, tuple(results))


MIXED = report_of(
    result("passed", part="acme", law="light"),
    result("passed"),
    result("failed", "3 for 4\n\nThe law: …", case="half"),
    result("skipped", "it takes no miner", law="runs"),
    result("expected", "the paper has it so", law="memory"),
)


def test_it_counts_by_status_and_by_part():
    assert MIXED.counts == {"passed": 2, "failed": 1, "skipped": 1, "expected": 1}
    assert MIXED.by_part["acme"] == {"passed": 1}
    assert MIXED.by_part["acme.nearest"] == {"passed": 1, "failed": 1, "skipped": 1, "expected": 1}
    assert set(STATUSES) == {"passed", "failed", "skipped", "expected"}


@pytest.mark.parametrize(
    ("results", "is_good"),
    [
        ([], False),
        ([result("skipped")], False),
        ([result("expected")], False),
        ([result("passed")], True),
        ([result("passed"), result("skipped"), result("expected")], True),
        ([result("passed"), result("failed")], False),
    ],
)
def test_it_is_good_where_something_passed_and_nothing_failed(results, is_good):
    assert report_of(*results).is_good is is_good


def test_as_json_it_has_counts_checks_versions_and_what_the_laws_say():
    data = json.loads(json.dumps(MIXED.to_dict()))
    assert [data[status] for status in ("passed", "failed", "skipped", "expected")] == [2, 1, 1, 1]
    assert (data["plugin"], data["version"], data["nearfar"]) == ("acme", "1.2", nearfar.__version__)
    assert data["checks"][2] == {
        "id": "acme.nearest::gradient[half]",
        "part": "acme.nearest",
        "law": "gradient",
        "case": "half",
        "status": "failed",
        "reason": "3 for 4\n\nThe law: …",
        "seconds": 0.25,
    }
    assert set(data["laws"]) == {"light", "gradient", "runs", "memory"}
    assert data["laws"]["gradient"].startswith("The gradient is that of the value")


def test_as_xml_it_is_what_continuous_integration_reads():
    text = MIXED.to_junit()
    assert text.startswith("<?xml version='1.0' encoding='utf-8'?>\n")
    suite = ElementTree.fromstring(text.encode("utf-8"))
    assert suite.tag == "testsuite"
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "5",
        "failures": "1",
        "errors": "0",
        "skipped": "2",
        "time": "1.250",
    }
    cases = list(suite)
    assert [(case.get("classname"), case.get("name")) for case in cases[:3]] == [
        ("acme", "light"),
        ("acme.nearest", "gradient"),
        ("acme.nearest", "gradient[half]"),
    ]
    assert [[child.tag for child in case] for case in cases] == [[], [], ["failure"], ["skipped"], ["skipped"]]
    assert cases[2][0].get("message") == "3 for 4"
    assert cases[2][0].text == "3 for 4\n\nThe law: …"
    assert cases[4][0].get("message") == "expected: the paper has it so"


@pytest.mark.parametrize(
    ("reason", "read"),
    [
        ("a < b & c > \"d\" 'e'", "a < b & c > \"d\" 'e'"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x00b\x08c\x0bd\x7f", "abcd\x7f"),
        ("half a character: \ud800.", "half a character: ."),
        ("not in XML: \ufffe\uffff.", "not in XML: ."),
        ("beyond: 𝛼 −ln θ", "beyond: 𝛼 −ln θ"),
        ("]]> <![CDATA[", "]]> <![CDATA["),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_xml_is_valid_whatever_a_reason_holds(reason, read):
    suite = ElementTree.fromstring(report_of(result("failed", reason)).to_junit().encode("utf-8"))
    assert suite[0][0].text == read


@pytest.mark.parametrize(
    ("results", "said", "colour"),
    [
        ([result("passed")] * 41, "41 passed", "brightgreen"),
        ([result("passed"), result("failed"), result("failed")], "2 failed", "red"),
        ([], "0 passed", "red"),
        ([result("skipped")], "0 passed", "red"),
    ],
)
def test_the_badge_says_how_many(results, said, colour):
    badge = report_of(*results).badge()
    version = nearfar.__version__
    assert badge.startswith(f"![nearfar {version} laws: {said}](https://img.shields.io/badge/")
    assert badge.endswith(f"-{said.replace(' ', '%20')}-{colour})")


def test_the_badge_of_a_development_version_is_one_address(monkeypatch):
    monkeypatch.setattr(nearfar, "__version__", "0.2.dev1+g12_ab-c")
    address = report_of(result("passed")).badge().partition("](")[2].removesuffix(")")
    assert address == "https://img.shields.io/badge/nearfar%200.2.dev1%2Bg12__ab--c%20laws-1%20passed-brightgreen"


def test_a_run_tells_of_each_check_before_and_after_it():
    checks = [c for c in checks_of(default_registry(), "proxy") if c.subject.kind == "plugin" and c.law.name != "light"]
    told = []
    report = run(checks, PLUGIN, starts=lambda c: told.append(c.id), seen=lambda r: told.append((r.id, r.status)))
    assert told == [item for check in checks for item in (check.id, (check.id, "passed"))]
    assert [found.id for found in report.results] == [check.id for check in checks]


def test_the_same_seed_gives_the_same_report():
    def results(seed):
        chosen = [c for c in checks_of(default_registry(), "proxy", seed=seed) if c.law.name in ("gradient", "memory")]
        return [(r.id, r.status, r.reason) for r in run(chosen, PLUGIN).results]

    assert results(5) == results(5)
    assert len(results(5)) > 4
