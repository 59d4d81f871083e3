"""Facts about this machine: Python, packages, processor, memory, disk, data folders, and the conversion's fast paths.

Packages are looked up without being imported; nothing is written, and nothing leaves the machine.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import NotRequired, TypedDict

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.installation import command, find_version, install_command
from spikebridge.pipeline.base.processors import Processor, describe_processor, read_system_file
from spikebridge.pipeline.shards import manifest as manifests

REQUIRED = {
    "aedat": "recordings in .aedat4",
    "click": "the command line",
    "h5py": "static images and HDF5 shards",
    "numba": "compiled frames and neurons",
    "numpy": "everything",
    "pillow": "static images",
    "safetensors": "weights",
    "scikit-learn": "the built-in digits",
    "tonic": "comparison with its frames",
    "torch": "training",
    "tqdm": "progress bars",
    "webdataset": "checks of shards with the stock reader",
}
"""Package -> purpose."""
EXTRAS = {
    "distributed": (("distributed",), "conversion on several machines"),
    "docs": (("sphinx", "myst-parser", "furo"), "make docs"),
    "export": (("nir",), "export --format nir"),
    "formats": (("hdf5plugin",), "HDF5 files with compression of their own"),
    "hub": (("huggingface_hub",), "shard sets and networks on a model hub"),
    "mlflow": (("mlflow",), "track --to mlflow"),
    "report": (("matplotlib", "captum"), "plots, reports"),
    "sharing": (("fsspec", "aiohttp", "s3fs", "sshfs"), "shard sets on other machines"),
    "tensorboard": (("tensorboard",), "train --tensorboard"),
    "trackio": (("trackio",), "track --to trackio"),
    "triton": (("triton",), "neurons on a GPU"),
    "wandb": (("wandb",), "track --to wandb"),
}
"""Extra -> its packages, and their purpose."""

Extra = TypedDict("Extra", {"for": str, "packages": dict[str, str | None]})
"""An extra of the project: what it is for, and the versions of its packages, None where one is missing."""


class Disk(TypedDict):
    """The disk of the data folder."""

    folder: str
    free_bytes: int


class FastPath(TypedDict):
    """A fast path, whether it is active, and why not or how."""

    path: str
    active: bool
    why: str


class DataFolder(TypedDict):
    """A folder of raw data, a shard set (or its problem), or a run (with its state)."""

    name: str
    id: NotRequired[str]
    samples: NotRequired[int]
    simulated: NotRequired[bool]
    problem: NotRequired[str]
    state: NotRequired[str]


class Machine(TypedDict):
    """The sections of `doctor`, JSON-ready; `torch` and `gpus` come from training."""

    python: dict[str, str]
    processor: Processor
    memory: dict[str, int | None]
    disk: Disk
    packages: dict[str, str | None]
    extras: dict[str, Extra]
    fast_paths: list[FastPath]
    data: dict[str, list[DataFolder]]
    torch: NotRequired[str]
    gpus: NotRequired[list[str]]


def examine(data: Path) -> Machine:
    """Examine this machine, and the folder that holds raw/, shards/ and runs/, which need not exist."""
    return {
        "python": {"version": platform.python_version(), "system": platform.system(), "machine": platform.machine()},
        "processor": describe_processor(),
        "memory": describe_memory(),
        "disk": {"folder": str(data), "free_bytes": measure_free_bytes(data)},
        "packages": {name: find_version(name) for name in REQUIRED},
        "extras": {
            extra: {"for": purpose, "packages": {name: find_version(name) for name in names}}
            for extra, (names, purpose) in EXTRAS.items()
        },
        "fast_paths": list_fast_paths(),
        "data": list_data_folders(data),
    }


def describe_memory() -> dict[str, int | None]:
    """Return bytes of memory, total and available; None where the system does not say."""
    sizes = {}
    for line in read_system_file(Path("/proc/meminfo")):
        key, _, value = line.partition(":")
        sizes[key] = int(value.split()[0]) * 1024
    return {"bytes": sizes.get("MemTotal"), "available_bytes": sizes.get("MemAvailable")}


def measure_free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, or of the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def list_fast_paths() -> list[FastPath]:
    """Return the fast paths of the conversion."""
    if find_version("numba") is None:
        active, why = False, "numba is not installed"
    elif os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        active, why = False, "NUMBA_DISABLE_JIT is set"
    else:
        active, why = True, "numba"
    variable = os.environ.get("NUMBA_CACHE_DIR")
    cache = Path(variable) if variable else Path(__file__).parent / "__pycache__"
    writable = os.access(cache if cache.exists() else cache.parent, os.W_OK)
    where = "in NUMBA_CACHE_DIR" if variable else "beside the code"
    if not writable:
        where = f"cannot write {where}; numba then uses the user's cache folder, or compiles in every process"
    return [
        {"path": "events to frames, compiled", "active": active, "why": why},
        {"path": "compiled code kept between processes", "active": writable, "why": where},
    ]


def list_data_folders(data: Path) -> dict[str, list[DataFolder]]:
    """List raw data and shard sets in raw/ and shards/ of a folder; runs/ is left to training."""
    raw, shards = (sorted(path for path in (data / kind).glob("*") if path.is_dir()) for kind in ("raw", "shards"))
    return {"raw": [{"name": folder.name} for folder in raw], "shards": [*map(_describe_shard_set, shards)], "runs": []}


def _describe_shard_set(folder: Path) -> DataFolder:
    try:
        manifest = manifests.read(folder)
    except ShardSetError as error:
        return {"name": folder.name, "problem": str(error)}
    return {
        "name": folder.name,
        "id": manifest["self_sha256"],
        "samples": sum(split["samples"] for split in manifest["splits"].values()),
        "simulated": manifest["simulated"],
    }


def format_machine(machine: Machine) -> str:
    """Format all sections, those of training included, as text of one screen."""
    python, cpu, ram = machine["python"], machine["processor"], machine["memory"]
    features, gpus = " ".join(cpu["features"]), machine["gpus"] or ["none that torch can use"]
    lines = [
        _format_row("python", f"{python['version']}, {python['system']} {python['machine']}, {sys.executable}"),
        _format_row("processor", f"{cpu['name']}, {cpu['usable']} of {cpu['processors']} usable, {features}"),
        _format_row("memory", f"{_gigabytes(ram['available_bytes'])} of {_gigabytes(ram['bytes'])} available"),
        _format_row("disk", f"{_gigabytes(machine['disk']['free_bytes'])} free at {machine['disk']['folder']}"),
        _format_row("torch", machine["torch"]),
        *(_format_row("GPU" if not i else "", gpu) for i, gpu in enumerate(gpus)),
    ]
    absent = [name for name, version in machine["packages"].items() if version is None]
    installed = len(machine["packages"]) - len(absent)
    lines.append(_format_row("packages", f"{installed} of {len(machine['packages'])} required ones"))
    lines += [_format_row("", f"missing: {name} ({REQUIRED[name]})") for name in absent]
    for extra, entry in machine["extras"].items():
        missing = [name for name, version in entry["packages"].items() if version is None]
        state = f"missing {', '.join(missing)}: {install_command(extra)}" if missing else "installed"
        lines.append(_format_row("", f"[{extra}] {entry['for']}: {state}"))
    for i, path in enumerate(machine["fast_paths"]):
        mark = "yes" if path["active"] else "no "
        lines.append(_format_row("fast paths" if not i else "", f"{mark} {path['path']}: {path['why']}"))
    for kind, entries in machine["data"].items():
        folders = ", ".join(_format_folder(entry) for entry in entries[:3]) or "none"
        more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
        lines.append(_format_row(kind, folders + more))
    return "\n".join(lines)


def _format_folder(entry: DataFolder) -> str:
    if "problem" in entry:
        return f"{entry['name']} (FAILED: see `{command('verify')}`)"
    if "id" in entry:
        return f"{entry['name']} ({entry['samples']:,} samples, ID {entry['id'][:12]})"
    return entry["name"] + (f" ({entry['state']})" if "state" in entry else "")


def _format_row(name: str, text: str) -> str:
    return f"{name:11} {text}"


def _gigabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:,.1f} GiB"
