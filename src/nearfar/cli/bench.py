"""``nearfar bench``."""

from __future__ import annotations

import click

from nearfar.cli.contributed import PluginGroup


@click.group("bench", cls=PluginGroup)
def command() -> None:
    """Rerun an experiment of a paper; plugins add them."""
