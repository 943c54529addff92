"""Discovery: every plugin becomes a record, and a broken one takes nothing down with it."""

from __future__ import annotations

import sys
import threading

import pytest

from nearfar.discovery import Plugin, Selector, discover
from nearfar.errors import PluginError
from nearfar.registry import Registry, require_active

GOOD = """
    from nearfar import LossSpec, hookimpl

    @hookimpl
    def nearfar_losses():
        return [LossSpec(name="spread", target="torch.nn:Module", summary="A loss.")]
"""


def found(namespace: str, plugins: list[Plugin] | None = None) -> Plugin:
    (plugin,) = [p for p in (discover() if plugins is None else plugins) if p.namespace == namespace]
    return plugin


def test_first_party_plugins_are_active():
    plugins = {plugin.namespace: plugin.status for plugin in discover()}
    assert plugins == dict.fromkeys(("core", "iou", "margin", "pair", "pml", "proxy"), "active")


def test_an_installed_plugin_registers_under_the_name_of_its_entry_point(install):
    install("acme-losses", "acme", GOOD, version="2.1")
    plugin = found("acme")
    assert (plugin.status, plugin.distribution, plugin.version) == ("active", "acme-losses", "2.1")
    assert Registry([plugin]).resolve("loss", "acme.spread").full_name == "acme.spread"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("import no_such_module_anywhere", "ModuleNotFoundError: No module named", id="import error"),
        pytest.param("raise SystemExit(3)", "called sys.exit(3)", id="sys.exit"),
        pytest.param("1 / 0", "ZeroDivisionError: division by zero", id="any exception"),
        pytest.param("def broken(:", "SyntaxError", id="syntax error"),
        pytest.param(
            "from nearfar import hookimpl\n@hookimpl\ndef nearfar_losses(registry): return []",
            "PluginValidationError: Plugin 'broken' for hook 'nearfar_losses'",
            id="wrong hook signature",
        ),
        pytest.param(
            "from nearfar import hookimpl\n@hookimpl\ndef nearfar_optimizers(): return []",
            "unknown hook 'nearfar_optimizers'",
            id="unknown hook",
        ),
        pytest.param(
            "from nearfar import hookimpl\n@hookimpl\ndef nearfar_losses(): raise KeyError('x')",
            "KeyError: 'x'",
            id="hook raises",
        ),
        pytest.param("def nearfar_losses(): return []", "nearfar_losses is not marked as a hook", id="no hookimpl"),
        pytest.param(
            "from nearfar import hookimpl\n@hookimpl\ndef nearfar_losses(): ...",
            "nearfar_losses returned None",
            id="hook returns None",
        ),
        pytest.param(
            "from nearfar import hookimpl\n@hookimpl\ndef nearfar_losses(): return 3",
            "nearfar_losses returned int; it must return an iterable of LossSpec",
            id="hook returns no iterable",
        ),
        pytest.param(
            "from nearfar import hookimpl\n@hookimpl\ndef nearfar_losses(): return ['arcface']",
            "must return an iterable of LossSpec",
            id="hook returns no specs",
        ),
        pytest.param(
            "from nearfar import hookimpl, MinerSpec\n@hookimpl\ndef nearfar_losses():\n"
            "    return [MinerSpec(name='m', target='a:B', summary='s', produces='pairs')]",
            "must return an iterable of LossSpec",
            id="spec of another kind",
        ),
        pytest.param(
            "from nearfar import hookimpl, LossSpec\n@hookimpl\ndef nearfar_losses():\n"
            "    return [LossSpec(name='my-loss', target='a:B', summary='s')]",
            "the name 'my-loss' is not an identifier",
            id="spec with a bad name",
        ),
        pytest.param(
            "from nearfar import hookimpl, LossSpec\n@hookimpl\ndef nearfar_losses():\n"
            "    return [LossSpec(name='x', target='a:B', summary='s'),"
            " LossSpec(name='y', aliases=('x',), target='a:B', summary='s')]",
            "the loss name 'x' is given twice, to x and to y",
            id="name given twice",
        ),
    ],
)
def test_a_broken_plugin_is_reported_and_the_others_work(install, source, reason):
    install("broken-losses", "broken", source)
    install("acme-losses", "acme", GOOD)
    plugins = discover()
    assert found("broken", plugins).status == "failed"
    assert reason in found("broken", plugins).reason
    assert "\n" not in found("broken", plugins).reason
    assert {p.status for p in plugins if p.namespace != "broken"} == {"active"}


def test_threads_that_discover_at_once_leave_the_terminal_where_it_was():
    before = sys.stdout, sys.stderr
    threads = [threading.Thread(target=discover) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sys.stdout, sys.stderr) == before


def test_a_hook_of_the_future_may_be_optional(install):
    install(
        "acme-losses",
        "acme",
        GOOD + "\n    @hookimpl(optionalhook=True)\n    def nearfar_optimizers():\n        return []\n",
    )
    assert found("acme").status == "active"


def test_what_a_plugin_prints_while_it_is_imported_is_kept_out_of_the_way(install, capsys):
    install(
        "acme-losses",
        "acme",
        "import sys; print('hello'); print('trouble', file=sys.stderr)" + GOOD.replace("\n    ", "\n"),
    )
    plugin = found("acme")
    assert plugin.status == "active"
    assert plugin.output == "hello\ntrouble\n"
    assert capsys.readouterr() == ("", "")


def test_a_namespace_claimed_twice_is_a_conflict_that_names_both(install):
    install("acme-losses", "acme", GOOD, version="1.0")
    install("acme-pro", "acme", GOOD, version="2.0")
    plugins = [plugin for plugin in discover() if plugin.namespace == "acme"]
    assert [plugin.status for plugin in plugins] == ["conflict", "conflict"]
    for plugin in plugins:
        assert "acme-losses 1.0 and acme-pro 2.0" in plugin.reason


def test_blocking_one_of_two_claimants_ends_the_conflict(install):
    install("acme-losses", "acme", GOOD)
    install("acme-pro", "acme", GOOD)
    plugins = discover(selector=Selector(block=frozenset({"acme-pro"})))
    assert {p.distribution: p.status for p in plugins if p.namespace == "acme"} == {
        "acme-losses": "active",
        "acme-pro": "blocked",
    }


@pytest.mark.parametrize("namespace", ["margin", "core", "pml", "local"])
def test_first_party_namespaces_belong_to_their_distributions(install, namespace):
    install("squatter", namespace, GOOD)
    plugins = [plugin for plugin in discover() if plugin.namespace == namespace]
    squatter = next(plugin for plugin in plugins if plugin.distribution == "squatter")
    assert squatter.status == "conflict"
    assert "belongs to nearfar" in squatter.reason
    assert all(plugin.status == "active" for plugin in plugins if plugin is not squatter)


def test_a_namespace_must_be_an_identifier(install):
    install("acme-losses", "acme-losses", GOOD)
    assert found("acme-losses").status == "failed"
    assert "not an identifier" in found("acme-losses").reason


@pytest.mark.parametrize(
    ("requires", "status"),
    [
        ("nearfar>=0.1", "active"),
        ("nearfar", "active"),
        ("nearfar[train]>=0.0.1", "active"),
        ("nearfar>=99", "incompatible"),
        ("nearfar<0.0.1", "incompatible"),
        ('nearfar>=99; extra == "future"', "active"),
        ('nearfar>=99; python_version >= "3"', "incompatible"),
        ("nearfar-margin>=99", "active"),
    ],
)
def test_the_required_version_is_judged_before_the_import(install, requires, status):
    # A module that would fail were it imported.
    install("acme-losses", "acme", GOOD if status == "active" else "raise RuntimeError", requires=requires)
    plugin = found("acme")
    assert plugin.status == status, plugin.reason
    assert ("requires nearfar" in plugin.reason) == (status == "incompatible")


def test_a_development_version_counts_as_the_version_it_leads_to(install, monkeypatch):
    from nearfar import discovery

    monkeypatch.setattr(discovery, "__version__", "3.0.dev4")
    install("acme-losses", "acme", GOOD, requires="nearfar>=3.0")
    assert found("acme").status == "active"


def test_a_distribution_that_is_on_the_path_twice_is_one_plugin(install, tmp_path, monkeypatch):
    import shutil

    install("acme-losses", "acme", GOOD)
    shutil.copytree(tmp_path / "site", tmp_path / "again")
    monkeypatch.syspath_prepend(str(tmp_path / "again"))
    assert found("acme").status == "active"


@pytest.mark.parametrize(
    ("environment", "blocked"),
    [
        ({}, set()),
        ({"NEARFAR_BLOCK": "acme"}, {"acme"}),
        ({"NEARFAR_BLOCK": "Acme_Losses"}, {"acme"}),
        ({"NEARFAR_BLOCK": "margin, pair"}, {"margin", "pair"}),
        ({"NEARFAR_PLUGINS": "acme"}, {"iou", "margin", "pair", "proxy"}),
        ({"NEARFAR_PLUGINS": "acme-losses nearfar-iou"}, {"margin", "pair", "proxy"}),
        ({"NEARFAR_PLUGINS": ""}, set()),
        ({"NEARFAR_PLUGINS": "acme", "NEARFAR_BLOCK": "acme,core"}, {"acme", "core", "iou", "margin", "pair", "proxy"}),
    ],
)
def test_the_environment_says_what_is_loaded(install, environment, blocked):
    install("acme-losses", "acme", GOOD)
    plugins = discover(selector=Selector.from_environment(environment))
    assert {plugin.namespace for plugin in plugins if plugin.status == "blocked"} == blocked


def test_a_blocked_plugin_is_not_imported(install):
    install("acme-losses", "acme", "raise RuntimeError")
    plugins = discover(selector=Selector(block=frozenset({"acme"})))
    assert found("acme", plugins).status == "blocked"


def test_strict_mode_makes_every_inactive_plugin_an_error(install):
    install("broken-losses", "broken", "raise RuntimeError('no')")
    plugins = discover()
    require_active(plugins, {})
    require_active(plugins, {"NEARFAR_STRICT": "0"})
    with pytest.raises(PluginError, match=r"broken \(broken-losses 1\.0\) is failed: RuntimeError: no"):
        require_active(plugins, {"NEARFAR_STRICT": "1"})
