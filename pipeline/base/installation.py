"""The commands that messages name, as they work for the install at hand."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]


def find_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return distribution(package).version
    except PackageNotFoundError:
        return None


@cache
def is_installed() -> bool:
    """Return whether pip knows this package, as a clone (editable) or as a wheel; else `cli.py` of a clone runs."""
    return find_version("spikebridge") is not None


def command(*words: str | Path) -> str:
    """Return a command of spikebridge as a line for the shell."""
    program = ["spikebridge"] if is_installed() else ["python", _from_here(CLONE / "cli.py")]
    return shlex.join([*program, *map(str, words)])


def install_command(extra: str) -> str:
    """Return the command that adds the packages of an extra; pip takes the name for a clone and for a wheel alike."""
    return f'pip install "spikebridge[{extra}]"' if is_installed() else f'pip install -e "{_from_here(CLONE)}[{extra}]"'


def find_commit() -> tuple[str, bool] | None:
    """Return the commit of the clone that runs and whether files of it were changed since; None outside a clone."""
    git = shutil.which("git")
    if git is None or not (CLONE / ".git").exists():
        return None
    commit, changes = (
        subprocess.run([git, "-C", str(CLONE), *words], capture_output=True, text=True, check=False)
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    )
    return None if commit.returncode or changes.returncode else (commit.stdout.strip(), bool(changes.stdout.strip()))


def _from_here(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
