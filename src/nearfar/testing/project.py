"""Find the plugin that somebody means: by its namespace, or by the folder it is written in."""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from nearfar.discovery import GROUP, discover
from nearfar.errors import PluginError
from nearfar.registry import Registry, default_registry

__all__ = ["find_plugin"]


def find_plugin(plugin: str) -> tuple[Registry, str]:
    """The registry and the namespace of a plugin.

    Parameters
    ----------
    plugin
        A namespace, or the path of a folder with a ``pyproject.toml``; that need not be installed.

    Raises
    ------
    PluginError
        The folder holds no plugin; the message says what is missing.
    """
    folder = Path(plugin)
    if not folder.is_dir() and not {"/", "\\"} & set(plugin):
        return default_registry(), plugin
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise PluginError(f"{plugin}: there is no pyproject.toml; give the folder of a plugin, or its namespace")
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PluginError(f"{file}: it cannot be read: {error}") from error
    points = project.get("entry-points", {}).get(GROUP, {})
    if len(points) != 1:
        raise PluginError(
            f"{file}: it has {len(points) or 'no'} entry points in the group {GROUP!r}; write "
            f'[project.entry-points.{GROUP}] and under it namespace = "package.module"'
        )
    ((namespace, value),) = points.items()
    installed = default_registry()
    if any(p.namespace == namespace and p.status == "active" for p in installed.plugins):
        return installed, namespace
    source = folder / "src" if (folder / "src").is_dir() else folder
    sys.path.insert(0, str(source.resolve()))
    own = metadata.EntryPoint(name=namespace, value=value, group=GROUP)
    return Registry(discover([*metadata.entry_points(group=GROUP), own])), namespace
