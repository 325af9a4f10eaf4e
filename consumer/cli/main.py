"""The entry point of ``lifecycle``: the group of commands, and how errors end.

A mistake of the user gets one line and exit code 2, without a traceback, unless the mistake is in a module of the user.
"""

import difflib
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

import click
from click.exceptions import Exit

from lifecycle.consumer.cli.options import COMPLETION_VARIABLE, FOUND_WRONG, SUMMARIES
from lifecycle.consumer.cli.streams import OUTPUT_ERRORS, discard_output, prepare_streams
from lifecycle.consumer.import_errors import ImportFailed, users_traceback
from lifecycle.errors import LifecycleError
from lifecycle.escaping import printable, printable_lines

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["commands", "main"]

DISTRIBUTION: Final = "task-lifecycle"
"""Name of the package that is installed."""
BAD_USAGE: Final = 2
INTERRUPTED: Final = 130


class _CommandGroup(click.Group):
    """The commands, each imported when it is used: starting a consumer does not load the demo."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        found = _import_command(cmd_name)
        if found is None:
            near = difflib.get_close_matches(cmd_name, SUMMARIES)
            hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
            raise click.UsageError(f"No such command {cmd_name!r}.{hint}", ctx)
        return found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return the options, or the commands: without an import of their modules."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=text) for name, text in SUMMARIES.items() if name.startswith(incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


def _import_command(name: str) -> click.Command | None:  # noqa: C901, PLR0912 -- a case for each command
    match name:
        case "run":
            from lifecycle.consumer.cli.run import run as found
        case "demo":
            from lifecycle.consumer.cli.demo import demo as found
        case "list":
            from lifecycle.consumer.cli.listing import list_tasks as found
        case "show":
            from lifecycle.consumer.cli.inspect import show as found
        case "history":
            from lifecycle.consumer.cli.inspect import history as found
        case "stats":
            from lifecycle.consumer.cli.inspect import stats as found
        case "cron":
            from lifecycle.consumer.cli.cron import cron as found
        case "workers":
            from lifecycle.consumer.cli.workers import workers as found
        case "call":
            from lifecycle.consumer.cli.call import call as found
        case "retry":
            from lifecycle.consumer.cli.act import retry as found
        case "cancel":
            from lifecycle.consumer.cli.act import cancel as found
        case "revoke":
            from lifecycle.consumer.cli.act import revoke as found
        case "purge":
            from lifecycle.consumer.cli.purge import purge as found
        case "verify":
            from lifecycle.consumer.cli.verify import verify as found
        case "check":
            from lifecycle.consumer.cli.check import check as found
        case "migrate":
            from lifecycle.consumer.cli.migrate import migrate as found
        case "diagram":
            from lifecycle.consumer.cli.diagram import diagram as found
        case "completion":
            from lifecycle.consumer.cli.completion import completion as found
        case _:
            return None
    return found


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    del option
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"lifecycle {version(DISTRIBUTION)}")
        context.exit()


@click.group(
    "lifecycle",
    cls=_CommandGroup,
    help="A task queue whose every task is an explicit finite-state machine.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_context
def commands(context: click.Context) -> None:
    """Print the help if no command is named."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        raise Exit(BAD_USAGE)


def main() -> None:
    """Run the command line; turn an error that the user can mend into one line and an exit code."""
    prepare_streams()
    if (instruction := os.environ.get(COMPLETION_VARIABLE)) is not None:
        _complete(instruction)
    code = 0
    try:
        try:
            with commands.make_context("lifecycle", sys.argv[1:]) as context:
                commands.invoke(context)
        except Exit as end:
            code = end.exit_code
        sys.stdout.flush()
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except LifecycleError as error:
        _fail_for(error)
    except UnicodeEncodeError as error:  # the name of a file, or an import
        _fail(f"{error.object!r} has characters that this locale has not: set LC_ALL=C.UTF-8", BAD_USAGE)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of the output has gone, as in `lifecycle list | head`
        discard_output()
        raise SystemExit(FOUND_WRONG) from None
    except OSError as error:
        if error.errno not in OUTPUT_ERRORS:
            raise
        discard_output()
        _fail(f"the output could not be written: {error.strerror}", BAD_USAGE)
    raise SystemExit(code)


def _complete(instruction: str) -> NoReturn:
    """Answer a shell's request for completions; a command line that is wrong so far has none."""
    from click.shell_completion import shell_complete

    try:
        raise SystemExit(shell_complete(commands, {}, "lifecycle", COMPLETION_VARIABLE, instruction))
    except click.ClickException:
        raise SystemExit(FOUND_WRONG) from None


def _fail_for(error: LifecycleError) -> NoReturn:
    if isinstance(error, ImportFailed) and error.__cause__ is not None:
        click.echo(printable_lines("".join(users_traceback(error.__cause__))), nl=False, err=True)
    _fail(str(error), BAD_USAGE)


def _fail(message: str, code: int) -> NoReturn:
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble(("error:", "bold red"), " ", printable(" ".join(message.split())))
    Console(stderr=True).print(line, soft_wrap=True)
    raise SystemExit(code)
