"""Commands that plugins add below one of nearfar's own."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import click

from nearfar.contributions import CommandSpec
from nearfar.discovery import Plugin
from nearfar.errors import PluginError
from nearfar.registry import default_registry

__all__ = ["PluginGroup"]


class PluginGroup(click.Group):
    """A group whose commands are those that plugins name for it; each is imported when it is called."""

    def found(self) -> dict[str, tuple[CommandSpec, Plugin]]:
        """Every command, with whose it is."""
        return default_registry().commands(self.name or "")

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.found())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.found():
            return None
        spec, plugin = self.found()[cmd_name]
        module, _, name = spec.target.partition(":")
        try:
            command = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"{self.name} {cmd_name} of {plugin.provider} cannot be imported from {spec.target}: {error}"
            ) from error
        if not isinstance(command, click.Command):
            raise PluginError(f"{self.name} {cmd_name} of {plugin.provider}: {spec.target} is no click command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self.found():
            close = difflib.get_close_matches(name, self.found(), n=1)
            known = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self.found()) or 'none'}"
            ctx.fail(f"no plugin adds {self.name} {name!r}; {known}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self.found():
            formatter.write_paragraph()
            formatter.write("No plugin that is installed adds any.\n")
            return
        with formatter.section("Commands"):
            formatter.write_dl([(name, f"{spec.summary} ({p.provider})") for name, (spec, p) in self.found().items()])
