"""`hearth completion`: prints the script with which a shell completes commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from gateway.cli.terminal import say

VARIABLE = "_HEARTH_COMPLETE"
"""Variable with which the scripts ask `hearth` for completions. click derives it from the command's name."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which a shell completes what you type.

    Tab then completes commands, options, and names of functions, workflows and jobs. Names come from the gateway,
    and from functions.yaml in the current folder if none answers.

    \b
    Examples:
      eval "$(hearth completion bash)"
      eval "$(hearth completion zsh)"
      hearth completion fish | source

    \b
    For every new shell (bash needs its package bash-completion):
      mkdir -p ~/.local/share/bash-completion/completions
      hearth completion bash > ~/.local/share/bash-completion/completions/hearth
      echo 'eval "$(hearth completion zsh)"' >> ~/.zshrc   # below compinit
      mkdir -p ~/.config/fish/completions
      hearth completion fish > ~/.config/fish/completions/hearth.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(click.get_current_context().find_root().command, {}, "hearth", VARIABLE)
    say(script.source_template % script.source_vars())
