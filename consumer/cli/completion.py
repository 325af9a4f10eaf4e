"""``lifecycle completion``: a script with which a shell completes the command line, as `click` makes it."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from lifecycle.consumer.cli.options import COMPLETION_VARIABLE, Argument, command
from lifecycle.consumer.cli.output import write

__all__ = ["completion"]

SHELLS: Final = ("bash", "zsh", "fish")
DETAILS: Final = """
Bash: eval "$(lifecycle completion bash)" in ~/.bashrc. Zsh: the same with zsh, in ~/.zshrc. Fish: lifecycle completion
fish > ~/.config/fish/completions/lifecycle.fish.
"""


def _complete_shell(context: click.Context, argument: click.Parameter, incomplete: str) -> list[str]:
    del context, argument
    return [shell for shell in SHELLS if shell.startswith(incomplete)]


@command("completion", DETAILS)
@click.argument("shell", cls=Argument, metavar="SHELL", about=f"{', '.join(SHELLS)}.", shell_complete=_complete_shell)
def completion(shell: str) -> None:
    """Print the script for a shell."""
    found = get_completion_class(shell) if shell in SHELLS else None
    if found is None:
        raise click.UsageError(f"no completion for {shell!r}: there are {', '.join(SHELLS)}")
    write(found(click.Command("lifecycle"), {}, "lifecycle", COMPLETION_VARIABLE).source() + "\n")
