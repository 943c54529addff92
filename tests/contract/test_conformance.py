"""Nearfar's own parts, and those of the pml bridge, keep the laws that hold for all; the documentation says so."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

import nearfar
from nearfar.conformance import load
from nearfar.registry import default_registry
from nearfar.testing import LAWS, checks_of, parts

FILE = Path(__file__).parents[2] / "docs" / "conformance.json"
NAMESPACES = ("core", "iou", "margin", "pair", "pml", "proxy")


@parts("core")
def test_core(check):
    check()


@parts("iou")
def test_iou(check):
    check()


@parts("margin")
def test_margin(check):
    check()


@parts("pair")
def test_pair(check):
    check()


@parts("proxy")
def test_proxy(check):
    check()


BRIDGE = sorted(
    {f"pml.{spec.name}" for plugin in nearfar.list_plugins() if plugin.namespace == "pml" for spec in plugin.specs}
)


@functools.cache
def checks_of_the_bridge():
    return checks_of(default_registry(), "pml")


@pytest.mark.parametrize("part", ["pml", *BRIDGE])
def test_pml(part):
    # A test a part rather than a check: hundreds of its failures are expected, and would be listed one by one.
    results = [check.run() for check in checks_of_the_bridge() if check.subject.name == part]
    assert results
    assert [f"{result.id}: {result.reason}" for result in results if result.status == "failed"] == []


@pytest.fixture(scope="module")
def reports():
    return {report["plugin"]: report for report in json.loads(FILE.read_text(encoding="utf-8"))["reports"]}


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_documentation_tells_of_exactly_the_checks_that_there_are(namespace, reports):
    written = [check["id"] for check in reports[namespace]["checks"]]
    assert written == [check.id for check in checks_of(default_registry(), namespace)], "run scripts/conformance"


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_documentation_tells_of_no_failure_and_counts_what_it_tells(namespace, reports):
    report = reports[namespace]
    statuses = [check["status"] for check in report["checks"]]
    assert "failed" not in statuses
    for status in ("passed", "failed", "skipped", "expected"):
        assert report[status] == statuses.count(status)
    assert report["laws"] == {name: LAWS[name].says for name in report["laws"]}, "run scripts/conformance"


def test_the_documentation_can_read_it():
    assert [report.plugin for report in load(FILE)] == list(NAMESPACES)
