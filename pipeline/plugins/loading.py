"""Code of users that adds methods, networks, neurons or data sets by registering them, without a clone.

A plugin is a Python file, named with `--plugin FILE.py` or in SPIKEBRIDGE_PLUGINS (several with the sign between paths
in between), or what an installed package names as an entry point of the group `spikebridge.plugins`. It is imported
when a name is looked up that is none of ours, once in every process: the variable is how the processes that a verb
starts find it. A plugin is code, and can do anything.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from spikebridge.pipeline.base.errors import SettingsError

VARIABLE = "SPIKEBRIDGE_PLUGINS"
GROUP = "spikebridge.plugins"
_PACKAGE = "spikebridge_plugins"
"""Before the name of the module of a file."""
_loaded: dict[str, str] = {}
"""What this process has imported: file or entry point, and the beginning of its SHA-256, or its version."""


def add_plugin(path: str) -> None:
    """Name the file of a plugin for this process and those that it starts; it is imported when a name is looked up.

    Raises:
        SettingsError: no Python file.
    """
    file = Path(path).absolute()
    if not file.is_file() or file.suffix != ".py" or not file.stem.isidentifier():
        raise SettingsError(f"{path}: expected a plugin, a Python file named like a module, for example my_network.py.")
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(one for one in [*named, str(file)] if one))


def load_plugins() -> dict[str, str]:
    """Import the plugins that this process has not imported yet.

    Returns:
        All that are there, by file name or entry point: the beginning of the file's SHA-256, or the version.

    Raises:
        SettingsError: a plugin that cannot be imported; says why.
    """
    for path in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        if path not in _loaded:
            _load_file(path)
    for entry in _find_entries(tuple(sys.path)):
        if entry.value not in _loaded:
            _loaded[entry.value] = entry.dist.version if entry.dist else "unknown"
            try:
                entry.load()
            except Exception as error:  # code of others may raise anything
                del _loaded[entry.value]
                raise _unusable(f"entry point {entry.name} ({entry.value})", error) from error
    return {Path(name).name if name.endswith(".py") else name: version for name, version in _loaded.items()}


@cache
def _find_entries(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of plugins of what is installed on a path; once, as it opens a file of every package."""
    return tuple(entry_points(group=GROUP))


def _load_file(path: str) -> None:
    name = f"{_PACKAGE}.{Path(path).stem}"
    try:
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise _unusable(path, error) from error
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{path}: expected a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name], _loaded[path] = module, digest  # before it runs: it may look names up itself
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # code of users may raise anything
        del sys.modules[name], _loaded[path]
        raise _unusable(path, error) from error


def _unusable(name: str, error: Exception) -> SettingsError:
    return SettingsError(
        f"{name}: cannot be used as a plugin ({type(error).__name__}: {error}). Mend it, or leave it out."
    )


class Names(Sequence[str]):
    """Names of ours, and those that plugins add to a registry; plugins are imported when ours do not answer.

    Args:
        ours: known without importing anything.
        registry: `module:dictionary`, looked into where the module has been imported, as by a plugin that registers.
    """

    def __init__(self, ours: Sequence[str], registry: str) -> None:
        self.ours, self._registry = tuple(ours), registry

    def all(self) -> tuple[str, ...]:
        """Return all names, ours first.

        Raises:
            SettingsError: see `load_plugins`.
        """
        load_plugins()
        module, _, table = self._registry.partition(":")
        registered = getattr(sys.modules.get(module), table, {})
        return (*self.ours, *(name for name in registered if name not in self.ours))

    def __contains__(self, name: object) -> bool:
        return name in self.ours or name in self.all()

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """Return a name, or a tuple of names."""
        return self.all()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.all())

    def __len__(self) -> int:
        return len(self.all())
