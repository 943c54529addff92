"""What commands say of plugins that are not there, or not active."""

from __future__ import annotations

import difflib

import click

from nearfar.errors import PluginError
from nearfar.project import not_installed
from nearfar.registry import Registry

__all__ = ["require_active", "tell_inactive"]


def require_active(registry: Registry, namespace: str, *, takes_folder: bool = False) -> None:
    """Raise :class:`PluginError` unless a plugin of this namespace is active.

    ``takes_folder``: whether a folder may be given where the namespace was.
    """
    found = [plugin for plugin in registry.plugins if plugin.namespace == namespace]
    if any(plugin.status == "active" for plugin in found):
        return
    if found:
        raise PluginError(f"the plugin {namespace!r} is {found[0].status}: {found[0].reason}")
    # By the name of its distribution it is found too, which is what was installed.
    names = {name: plugin.namespace for plugin in registry.plugins for name in (plugin.distribution, plugin.namespace)}
    close = difflib.get_close_matches(namespace, names, n=1)
    known = ", ".join(sorted({plugin.namespace for plugin in registry.plugins}))
    hint = f"did you mean {names[close[0]]!r}?" if close else f"there are {known}"
    hint = not_installed(namespace, takes_folder=takes_folder) or hint
    raise PluginError(f"no plugin has the namespace {namespace!r}; {hint}")


def tell_inactive(registry: Registry) -> None:
    """A line on the standard error stream where a plugin is missing that nobody asked to leave out."""
    broken = [f"{p.namespace} ({p.status})" for p in registry.plugins if p.status not in ("active", "blocked")]
    if broken:
        are = "a plugin is" if len(broken) == 1 else "plugins are"
        click.echo(f"nearfar: {are} not active: {', '.join(broken)}; `nearfar plugins` says why", err=True)
