"""The laws of a plugin as a whole catch what is wrong with its entry module, its metadata and its specs."""

from __future__ import annotations

import pytest

from nearfar.registry import default_registry
from nearfar.testing import checks_of

SOUND = """
from nearfar import LossSpec, hookimpl

@hookimpl
def nearfar_losses():
    return [LossSpec(name="nearest", target="somewhere:Else", summary="The nearest of all.")]
"""


@pytest.fixture
def lay(install):
    """Lay a plugin ``acme`` on the path, and hold it as a whole to the laws: status and reason of each."""
    default_registry.cache_clear()
    yield lambda source, requires="nearfar>=0.1", distribution="acme-losses", namespace="acme", **more: _outcome(
        install(distribution, namespace, source, requires=requires, **more), namespace
    )
    default_registry.cache_clear()


def _outcome(module, namespace):
    default_registry.cache_clear()
    checks = [check for check in checks_of(default_registry(), namespace) if check.subject.kind == "plugin"]
    return {result.law: (result.status, result.reason) for result in (check.run() for check in checks)}


def broken(outcome):
    return {law: reason for law, (status, reason) in outcome.items() if status == "failed"}


def test_a_sound_plugin_keeps_them_all(lay):
    outcome = lay(SOUND)
    assert {status for status, _ in outcome.values()} == {"passed"}
    assert outcome["light"][1].endswith(" ms")


def test_a_plugin_without_parts(lay):
    found = broken(lay("from nearfar import hookimpl\n\n@hookimpl\ndef nearfar_losses():\n    return []\n"))
    assert set(found) == {"not_empty"}
    assert "there are nearfar_losses, nearfar_miners" in found["not_empty"]


@pytest.mark.parametrize(
    "addition",
    [
        pytest.param("import numpy as np", id="at the top"),
        pytest.param("try:\n    import numpy\nexcept ImportError:\n    pass", id="guarded"),
        pytest.param("import helper_of_acme", id="by another module"),
    ],
)
def test_a_heavy_import_and_who_makes_it(lay, tmp_path, addition):
    (tmp_path / "site" / "helper_of_acme.py").write_text("\nimport numpy\n", encoding="utf-8")
    found = broken(lay(SOUND + addition))
    assert set(found) == {"light"}
    importer = "helper_of_acme, line 2, imported by plugin_" if "helper" in addition else "imported by plugin_"
    assert "imports numpy" in found["light"]
    assert importer in found["light"]


def test_a_heavy_import_inside_a_hook(lay):
    found = broken(lay(SOUND.replace("    return", "    import numpy\n    return")))
    assert set(found) == {"light"}


def test_to_ask_whether_something_heavy_is_there_is_light(lay):
    assert not broken(lay(SOUND + "import importlib.util\nHAS_NUMPY = importlib.util.find_spec('numpy') is not None"))


def test_an_entry_module_that_computes(lay):
    found = broken(lay(SOUND + "import time\nwhile time.process_time() < 0.8: pass"))
    assert set(found) == {"light"}
    assert "of the processor, more than 0.3 s" in found["light"]


def test_an_entry_module_that_prints_is_light_nevertheless(lay):
    assert not broken(lay(SOUND + "print('welcome')"))


@pytest.mark.parametrize("mark", ["", "@hookimpl(optionalhook=True)\n"])
def test_a_function_that_is_almost_a_hook(lay, mark):
    found = broken(lay(f"{SOUND}\n{mark}def nearfar_minors():\n    return []\n"))
    # With the mark it is a hook of a newer nearfar.
    assert set(found) == (set() if mark else {"hooks"})
    assert "did you mean nearfar_miners?" in found.get("hooks", "did you mean nearfar_miners?")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("ALL = iter([{spec}])\n@hookimpl\ndef nearfar_losses():\n    return ALL", "and 0 when", id="gone"),
        pytest.param(
            "asked = []\n@hookimpl\ndef nearfar_losses():\n    asked.append(0)\n    return [{spec}]",
            "differ in nearest",
            id="another",
        ),
    ],
)
def test_a_hook_that_returns_something_else_when_it_is_asked_again(lay, source, reason):
    spec = 'LossSpec(name="nearest", target="somewhere:Else", summary="The nearest.", memory=globals().get("n"))'
    source = source.replace("asked.append(0)", "global n; n = globals().get('n', 0) + 1").replace("{spec}", spec)
    found = broken(lay(f"from nearfar import LossSpec, hookimpl\n{source}\n"))
    assert set(found) == {"repeatable"}
    assert reason in found["repeatable"]


@pytest.mark.parametrize(
    ("summary", "problem"),
    [
        ("The nearest of all", "does not end with a stop"),
        (f"The {'very ' * 30}nearest.", "has 162 characters"),
        ("The nearest.\\nAnd the farthest.", "is more than a line"),
        (" The nearest.", "begins or ends with a space"),
    ],
)
def test_a_summary_that_no_list_can_show(lay, summary, problem):
    found = broken(lay(SOUND.replace("The nearest of all.", summary)))
    assert set(found) == {"summaries"}
    assert f"that of the loss nearest {problem}" in found["summaries"]


def test_a_third_party_may_take_a_name_but_is_told_what_it_costs(lay):
    outcome = lay(SOUND.replace('"nearest"', '"triplet"'))
    assert not broken(outcome)
    status, reason = outcome["bare_names"]
    assert status == "skipped"
    assert "triplet may be acme.triplet or pair.triplet" in reason


def test_a_part_of_nearfar_may_not_take_the_name_of_another(lay, monkeypatch):
    monkeypatch.setattr("nearfar.testing.laws.entry.RESERVED", {"acme": "acme-losses", "pair": "nearfar-pair"})
    found = broken(lay(SOUND.replace('"nearest"', '"triplet"')))
    assert set(found) == {"bare_names"}


@pytest.mark.parametrize("requires", [None, "torch>=2", "nearfar>=0.1; extra == 'all'", "nearfar-pair>=0.1"])
def test_a_distribution_that_does_not_require_nearfar(lay, requires):
    found = broken(lay(SOUND, requires=requires))
    assert set(found) == {"requirement"}
    assert 'write dependencies = ["nearfar>=…"]' in found["requirement"]


@pytest.mark.parametrize("requires", ["nearfar", "NearFar[train]>=0.1", "nearfar>=0.1; python_version >= '3.8'"])
def test_a_requirement_in_any_form(lay, requires):
    assert not broken(lay(SOUND, requires=requires))


@pytest.mark.parametrize("value", ["len", "{1: 2}", "{'a', 'b'}"])
def test_a_spec_that_is_not_plain_data(lay, value):
    source = SOUND.replace("hookimpl\n", "Preset, hookimpl\n", 1).replace(
        '.")]', f'.", presets={{"a": Preset(arguments={{"b": {value}}}, source="c")}})]'
    )
    found = broken(lay(source))
    assert set(found) == {"serialisable"}
    assert "the loss nearest" in found["serialisable"]


def test_parts_of_the_session_have_no_entry_module():
    from nearfar.discovery import discover
    from nearfar.registry import Registry
    from nearfar.spec import LossSpec

    registry = Registry(discover())
    registry.register(LossSpec(name="mine", target="a:B", summary="Mine."), object)
    checks = [check for check in checks_of(registry, "local") if check.subject.kind == "plugin"]
    skipped = {check.law.name for check in checks if check.run().status == "skipped"}
    assert skipped == {"light", "hooks", "repeatable", "requirement"}
