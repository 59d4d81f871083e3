"""The verb `completion`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import json_option, print_result


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), required=False)
@click.option("--install", is_flag=True, help="Have the shell load it from now on, instead of printing it.")
@json_option
def completion(shell: str | None, install: bool, as_json: bool) -> None:
    """Complete verbs and options at the Tab key.

    Prints the script for SHELL ($SHELL by default), or installs it.

    \b
    Examples:
      spikebridge completion --install
      spikebridge completion zsh
    """
    from click.shell_completion import get_completion_class

    from spikebridge.pipeline.ui.completion import install_completion

    shell = shell or Path(os.environ.get("SHELL", "")).name
    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"$SHELL is {shell!r}; say which shell it is: bash, zsh or fish.")
    script = completer(
        click.get_current_context().find_root().command, {}, "spikebridge", "_SPIKEBRIDGE_COMPLETE"
    ).source()
    if not install:
        return print_result({"shell": shell, "script": script}, script, as_json=as_json, verbatim=True)
    changed = install_completion(shell, script)
    text = "\n".join([*(f"wrote {path}" for path in changed), f"Open a new {shell}, and Tab completes spikebridge."])
    print_result({"shell": shell, "changed": [str(path) for path in changed]}, text, as_json=as_json)
