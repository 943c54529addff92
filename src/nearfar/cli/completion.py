"""``nearfar completion``."""

from __future__ import annotations

import click

#: Shell → the line that installs its script.
INSTALL = {
    "bash": """echo 'eval "$(nearfar completion bash)"' >> ~/.bashrc""",
    "zsh": """echo 'eval "$(nearfar completion zsh)"' >> ~/.zshrc""",
    "fish": "nearfar completion fish > ~/.config/fish/completions/nearfar.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(INSTALL)))
def command(shell: str) -> None:
    """Print what makes SHELL complete commands, options and the names of parts.

    \b
    echo 'eval "$(nearfar completion bash)"' >> ~/.bashrc
    echo 'eval "$(nearfar completion zsh)"' >> ~/.zshrc
    nearfar completion fish > ~/.config/fish/completions/nearfar.fish
    """
    from click.shell_completion import get_completion_class

    from nearfar.cli import cli

    found = get_completion_class(shell)
    assert found is not None, shell
    click.echo(f"# To install it: {INSTALL[shell]}")
    click.echo(found(cli, {}, "nearfar", "_NEARFAR_COMPLETE").source())
