"""The command line: ``nearfar``.

Each command lives in a module of its own and is imported when it is called, so that ``nearfar list`` never
pays for what ``nearfar train`` needs. A :class:`~nearfar.errors.NearfarError` is printed as the sentence it
is, with exit code 2.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import click

from nearfar import __version__
from nearfar.errors import NearfarError, NearfarWarning

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: In seconds.
_GRACE = 30.0

#: Command → module and one line of help. The help stands here so that ``nearfar --help`` imports none.
COMMANDS = {
    "list": ("nearfar.cli.listing", "List losses, miners, reducers and distances by name."),
    "show": ("nearfar.cli.show", "Show what a part is, or recipes that are worth knowing."),
    "plugins": ("nearfar.cli.plugins", "List every plugin, its status and what it registers."),
    "recipe": ("nearfar.cli.recipe", "Check a recipe, or write it in another form."),
    "explain": ("nearfar.cli.explain", "Show how a loss weighs pairs, and what its weights answer to."),
    "init": ("nearfar.cli.init", "Look at images and write a configuration to train on them."),
    "train": ("nearfar.cli.train", "Train an embedding and write a run folder."),
    "evaluate": ("nearfar.cli.evaluate", "Recompute the table of a run on the unseen test classes."),
    "report": ("nearfar.cli.report", "Write one page about runs: curves, figures, neighbours, a map, recipes."),
    "embed": ("nearfar.cli.embed", "Embed images into a file."),
    "search": ("nearfar.cli.search", "Find the images nearest to others in a file of embeddings."),
    "calibrate": ("nearfar.cli.calibrate", "Find the threshold for a false-accept rate."),
    "verify": ("nearfar.cli.verify", "Say whether two images are of one identity."),
    "export": ("nearfar.cli.export", "Write a model as safetensors, torch.export or ONNX."),
    "bench": ("nearfar.cli.bench", "Rerun an experiment of a paper; plugins add them."),
    "plot": ("nearfar.cli.plot", "Draw what parts compute; plugins add the drawings."),
    "new-plugin": ("nearfar.cli.new_plugin", "Write a plugin that installs, registers, documents and tests itself."),
    "check-plugin": ("nearfar.cli.check_plugin", "Hold every part of a plugin to the laws of its kind."),
    "docs": ("nearfar.cli.docs", "Write the catalogue pages of a plugin."),
    "doctor": ("nearfar.cli.doctor", "Say what is installed, what is wrong, and what mends it."),
    "completion": ("nearfar.cli.completion", "Print what makes a shell complete commands and part names."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            import difflib

            close = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"there is no command {name!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])


def _plugins(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from nearfar.cli.complete import plugins

    return plugins(ctx, param, incomplete)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nearfar")
@click.option(
    "--no-plugin",
    "no_plugin",
    multiple=True,
    metavar="NAME",
    shell_complete=_plugins,
    help="Do not load this plugin; may be repeated.",
)
@click.option("--traceback", is_flag=True, help="Show where an error was raised.")
@click.pass_context
def cli(ctx: click.Context, no_plugin: tuple[str, ...], traceback: bool) -> None:
    """Losses, miners, reducers and distances for metric learning, by name."""
    ctx.obj = {"traceback": traceback}
    if no_plugin:
        # In the environment, so that worker processes leave it out too.
        os.environ["NEARFAR_BLOCK"] = ",".join([*os.environ.get("NEARFAR_BLOCK", "").split(), *no_plugin])
        if ctx.invoked_subcommand != "doctor":  # which tells it itself
            _warn_of_unknown(no_plugin)


def _warn_of_unknown(plugins: tuple[str, ...]) -> None:
    """Tell which of the names that are to be left out no plugin has."""
    from nearfar.discovery import Selector, discover
    from nearfar.doctor import selection

    everything = discover(selector=Selector(allow=frozenset({""})))  # but for the built-in ones nothing is imported
    for finding in selection(everything, {}, plugins):
        warnings.warn(f"{finding.area}: {finding.says}; {finding.mend}", NearfarWarning, stacklevel=2)


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit."""
    warnings.showwarning = _show_warning
    arguments = sys.argv[1:] if args is None else args
    try:
        sys.exit(cli.main(args=arguments, prog_name="nearfar", standalone_mode=False) or 0)
    except NearfarError as error:
        if "--traceback" in arguments:
            raise
        _wait_for_the_first()
        _say(str(error))
        sys.exit(2)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.UsageError as error:
        _wait_for_the_first()
        _say(error.format_message())
        if error.ctx is not None:
            click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
        sys.exit(2)
    except click.ClickException as error:
        _say(error.format_message())
        sys.exit(2)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        sys.exit(130)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _say(f"{error.filename or 'standard output'}: {error.strerror or error}")
            sys.exit(2)
        # The reader left (`nearfar list | head`); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _wait_for_the_first() -> None:
    """Where torchrun started several processes, let the first say what is wrong: its end is that of this one.

    One that still runs half a minute later has something to say that the first has not.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK") != "0":
        time.sleep(_GRACE)


def _say(message: str) -> None:
    click.echo(f"nearfar: {message}", err=True)


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning as a line for people, without the file and line it came from; under torchrun that of one process."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK") != "0":
        return
    click.echo(f"nearfar: warning: {message}", err=True)
