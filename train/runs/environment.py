"""Where a run comes from: the versions and the machine that made it; no hash covers it."""

from __future__ import annotations

import datetime
import platform
from functools import cache
from pathlib import Path

import torch

from spikebridge import __version__
from spikebridge.pipeline.base import installation
from spikebridge.pipeline.base.installation import find_version
from spikebridge.pipeline.base.processors import describe_processor
from spikebridge.pipeline.plugins.loading import load_plugins
from spikebridge.train.runs.result import Environment

PACKAGES = ("torch", "numpy", "h5py", "numba", "triton", "safetensors", "tonic", "webdataset")


@cache
def _versions() -> dict[str, str]:
    """Return those of `PACKAGES` that are installed; a process imports each once."""
    return {name: version for name in PACKAGES if (version := find_version(name))}


@cache
def _commit(clone: Path) -> tuple[str, bool] | None:
    """Return what `find_commit` finds first: the code that a process runs is what it imported then."""
    return installation.find_commit()


def origin_words(made: Environment) -> str:
    """Return version, commit and day of a run as a phrase."""
    commit = f" (commit {made['commit'][:12]}{', changed since' if made['modified'] else ''})" if made["commit"] else ""
    return f"spikebridge {made['spikebridge']}{commit}, Python {made['python']}, {made['finished'][:10]}"


def packages_words(made: Environment) -> str:
    """Return the packages of a run as a phrase."""
    return ", ".join(f"{name} {version}" for name, version in made["packages"].items())


def machine_words(made: Environment) -> str:
    """Return processor or GPU, system and threads of a run as a phrase."""
    threads = f"{made['threads']} thread{'s' if made['threads'] != 1 else ''}" if "threads" in made else ""
    return ", ".join(filter(None, (made["gpu"], made["processor"], threads, made["system"])))


def describe_environment(device: torch.device | None = None) -> Environment:
    """Return what a run is made with, on a device, and when; without a device no GPU is named."""
    commit = _commit(installation.CLONE)
    environment: Environment = {
        "spikebridge": __version__,
        "commit": commit[0] if commit else None,
        "modified": commit[1] if commit else None,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": dict(_versions()),
        "processor": describe_processor()["name"],
        "gpu": torch.cuda.get_device_name(device) if device and device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
    }
    if plugins := load_plugins():
        environment["plugins"] = plugins
    return environment
