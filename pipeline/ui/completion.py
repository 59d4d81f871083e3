"""Completion at the Tab key: installing it where the shell loads it."""

from __future__ import annotations

import os
from pathlib import Path

from spikebridge.pipeline.base.errors import SettingsError


def install_completion(shell: str, script: str) -> list[Path]:
    """Install a completion script for fish, bash or zsh and return the files changed.

    fish loads it from its own folder; for bash and zsh a line in the start file does.

    Raises:
        SettingsError: the user has no home folder.
    """
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():
        raise SettingsError(
            "no home folder is known for this user; set HOME, or load what `completion` prints yourself."
        )
    if shell == "fish":
        target = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "completions"
    else:
        target = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "spikebridge"
    target /= f"spikebridge.{shell}"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(script + "\n")
    if shell == "fish":
        return [target]
    start = home / ".bashrc" if shell == "bash" else Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    line = f'[ -r "{target}" ] && . "{target}"  # completion of spikebridge\n'
    present = start.read_text() if start.exists() else ""
    if line in present:
        return [target]
    with start.open("a") as file:
        file.write(line if present.endswith("\n") or not present else f"\n{line}")
    return [target, start]
