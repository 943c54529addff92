"""Find the plugin that somebody means: by its namespace, or by the folder it is written in."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from nearfar.discovery import GROUP, canonical
from nearfar.errors import PluginError
from nearfar.registry import Registry, default_registry

__all__ = ["find_plugin", "not_installed"]


def find_plugin(plugin: str) -> tuple[Registry, str]:
    """The registry and the namespace of a plugin.

    Parameters
    ----------
    plugin
        A namespace, or the path of a folder with a ``pyproject.toml``. That need not be installed: in this process
        it is from now on as if it were, in place of what is installed under its name.

    Raises
    ------
    PluginError
        The folder holds no plugin; the message says what is missing.
    """
    folder = Path(plugin)
    is_folder = {os.sep, "/", "\\"} & set(plugin) or plugin in (".", "..") or (folder / "pyproject.toml").is_file()
    if not is_folder:
        return default_registry(), plugin
    source = _read(folder)
    namespace, module = source.plugin
    sys.path.insert(0, str(source.root))
    importlib.invalidate_caches()
    _refuse_another(source, module)
    sys.meta_path.insert(0, _Finder(source))
    default_registry.cache_clear()
    return default_registry(), namespace


def not_installed(namespace: str, *, takes_folder: bool) -> str:
    """What to say of a namespace that no installed plugin has and the one in the working folder does; else empty.

    ``takes_folder``: whether a folder may be given where the namespace was.
    """
    try:
        found, _ = _read(Path()).plugin
    except PluginError:
        return ""
    if found != namespace:
        return ""
    instead = ", or give . in its place" if takes_folder else ""
    return f"that of this folder is not installed: `python -m pip install -e .`{instead}"


class _Source(metadata.Distribution):
    """A folder of source as the distribution that would be installed from it."""

    def __init__(self, folder: Path, project: dict[str, Any]) -> None:
        self.folder = folder
        self.root = (folder / "src" if (folder / "src").is_dir() else folder).resolve()
        self._project = project

    @property
    def plugin(self) -> tuple[str, str]:
        """Its namespace, and the entry module or what stands for it."""
        points: dict[str, str] = self._project.get("entry-points", {}).get(GROUP, {})
        if len(points) == 1:
            return next(iter(points.items()))
        file = self.folder / "pyproject.toml"
        if points:
            raise PluginError(
                f"{file}: it has {len(points)} plugins, {', '.join(points)}; install it and give one of these"
            )
        raise PluginError(
            f"{file}: it has no entry point in the group {GROUP!r}; write [project.entry-points.{GROUP}] and under it "
            'namespace = "package.module"'
        )

    def read_text(self, filename: str) -> str | None:
        project = self._project
        if filename == "METADATA":
            fields = [("Metadata-Version", "2.1"), ("Name", project["name"]), ("Version", project.get("version", ""))]
            fields += [("Requires-Dist", requirement) for requirement in project.get("dependencies", ())]
            return "".join(f"{name}: {value}\n" for name, value in fields)
        if filename == "entry_points.txt":
            namespace, module = self.plugin
            return f"[{GROUP}]\n{namespace} = {module}\n"
        return None

    def locate_file(self, path: Any) -> Any:
        return self.root / path


class _Finder(metadata.DistributionFinder):
    """Lets importlib.metadata find a distribution that is not installed."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    def find_spec(self, *_: Any) -> None:
        return None

    def find_distributions(
        self, context: metadata.DistributionFinder.Context | None = None
    ) -> Iterable[metadata.Distribution]:
        if context is None or context.name is None or canonical(context.name) == canonical(self._source.name):
            yield self._source


def _refuse_another(source: _Source, module: str) -> None:
    """A module is loaded once: what was loaded from elsewhere would be checked in place of the folder."""
    package = module.partition(":")[0].partition(".")[0]
    loaded = getattr(sys.modules.get(package), "__file__", None)
    if loaded is not None and not Path(loaded).resolve().is_relative_to(source.root):
        raise PluginError(f"{package} was already loaded from {loaded}; check {source.folder} in a process of its own")


def _read(folder: Path) -> _Source:
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise PluginError(f"{folder}: there is no pyproject.toml; give the folder of a plugin, or its namespace")
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise PluginError(f"{file}: it cannot be read: {error}") from error
    if not isinstance(project, dict) or not isinstance(project.get("name"), str):
        raise PluginError(f"{file}: it has no [project] with a name")
    return _Source(folder, project)
