"""``nearfar plot``."""

from __future__ import annotations

import click

from nearfar.cli.contributed import PluginGroup


@click.group("plot", cls=PluginGroup)
def command() -> None:
    """Draw what parts compute; plugins add the drawings."""
