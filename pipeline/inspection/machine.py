"""What this machine offers: Python, packages, processor, memory, disk, data folders, and the conversion's fast paths.

Nothing is imported that is looked for, nothing is written, and nothing leaves the machine.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.processors import usable_processors
from spikebridge.pipeline.shards import manifest as manifests

REQUIRED = {
    "aedat": "recordings in .aedat4",
    "click": "the command line",
    "h5py": "photographs and HDF5 shards",
    "numba": "compiled frames and neurons",
    "numpy": "everything",
    "pillow": "photographs",
    "safetensors": "weights",
    "scikit-learn": "the built-in digits",
    "tonic": "comparison with its frames",
    "torch": "training",
    "tqdm": "progress bars",
    "webdataset": "checks of shards with the stock reader",
}
"""Package -> what for."""
EXTRAS = {
    "distributed": (("distributed",), "conversion on several machines"),
    "docs": (("sphinx", "myst-parser", "furo"), "make docs"),
    "export": (("nir",), "export --format nir"),
    "report": (("matplotlib", "captum"), "pictures, reports"),
    "sharing": (("fsspec", "aiohttp", "s3fs", "sshfs"), "shard sets on other machines"),
    "tensorboard": (("tensorboard",), "train --tensorboard"),
    "triton": (("triton",), "neurons on a GPU"),
}
"""Extra -> its packages, and what for."""
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
"""Instructions that numeric libraries make use of, as Linux names them."""


def examine(data: Path) -> dict[str, Any]:
    """All sections, as plain JSON.

    Args:
        data: folder that holds raw/, shards/ and runs/; need not exist.
    """
    return {
        "python": {"version": platform.python_version(), "system": platform.system(), "machine": platform.machine()},
        "processor": processor(),
        "memory": memory(),
        "disk": {"folder": str(data), "free_bytes": free_bytes(data)},
        "packages": {name: version(name) for name in REQUIRED},
        "extras": {
            extra: {"for": purpose, "packages": {name: version(name) for name in names}}
            for extra, (names, purpose) in EXTRAS.items()
        },
        "fast_paths": fast_paths(),
        "data": data_folders(data),
    }


def version(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> dict[str, Any]:
    """Name, processors, those this process may use, and instructions; what cannot be learned is None or empty."""
    name, flags = None, set()
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip().lower() in ("flags", "features"):
            flags = set(value.split())
    usable = usable_processors()
    features = [feature for feature in CPU_FEATURES if feature in flags]
    return {
        "name": name or platform.processor() or None,
        "processors": os.cpu_count(),
        "usable": usable,
        "features": features,
    }


def memory() -> dict[str, int | None]:
    """Bytes of memory in all and to be had, None where the system does not say."""
    found = {}
    for line in _lines(Path("/proc/meminfo")):
        key, _, value = line.partition(":")
        found[key] = int(value.split()[0]) * 1024
    return {"bytes": found.get("MemTotal"), "available_bytes": found.get("MemAvailable")}


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, or of the nearest one above it that exists."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def fast_paths() -> list[dict[str, Any]]:
    """What makes the conversion fast: name, whether it is active, and why not or how."""
    if version("numba") is None:
        frames = {"active": False, "why": "numba is not installed"}
    elif os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        frames = {"active": False, "why": "NUMBA_DISABLE_JIT is set"}
    else:
        frames = {"active": True, "why": "numba"}
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    place = Path(chosen) if chosen else Path(__file__).parent / "__pycache__"
    kept = os.access(place if place.exists() else place.parent, os.W_OK)
    why = "beside the code" if not chosen else "in NUMBA_CACHE_DIR"
    if not kept:
        why = f"cannot write {why}; numba then uses the user's cache folder, or compiles in every process"
    return [
        {"path": "events to frames, compiled", **frames},
        {"path": "compiled code kept between processes", "active": kept, "why": why},
    ]


def data_folders(data: Path) -> dict[str, list[dict[str, Any]]]:
    """What lies in raw/, shards/ and runs/ of a folder; empty lists where there is nothing."""
    found: dict[str, list[dict[str, Any]]] = {"raw": [], "shards": [], "runs": []}
    for kind, entries in found.items():
        root = data / kind
        for folder in sorted(entry for entry in _entries(root) if entry.is_dir()):
            entries.append({"name": folder.name, **(_shard_set(folder) if kind == "shards" else {})})
    return found


def _shard_set(folder: Path) -> dict[str, Any]:
    try:
        manifest = manifests.read(folder)
    except ShardSetError as error:
        return {"problem": str(error)}
    return {
        "id": manifest["self_sha256"],
        "samples": sum(split["samples"] for split in manifest["splits"].values()),
        "simulated": manifest["simulated"],
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not Linux
        return []


def _entries(folder: Path) -> Iterable[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def screen(found: dict[str, Any]) -> str:
    """The sections as text of one screen, those of `train.doctor` included."""
    python, cpu, ram = found["python"], found["processor"], found["memory"]
    lines = [
        _row("python", f"{python['version']}, {python['system']} {python['machine']}, {sys.executable}"),
        _row("processor", f"{cpu['name']}, {cpu['usable']} of {cpu['processors']} usable, {' '.join(cpu['features'])}"),
        _row("memory", f"{_gigabytes(ram['available_bytes'])} of {_gigabytes(ram['bytes'])} available"),
        _row("disk", f"{_gigabytes(found['disk']['free_bytes'])} free at {found['disk']['folder']}"),
        _row("torch", found["torch"]),
        *(_row("GPU" if not i else "", gpu) for i, gpu in enumerate(found["gpus"] or ["none that torch can use"])),
    ]
    lacking = [name for name, there in found["packages"].items() if there is None]
    there = len(found["packages"]) - len(lacking)
    lines.append(_row("packages", f"{there} of {len(found['packages'])} required ones"))
    lines += [_row("", f"missing: {name} ({REQUIRED[name]})") for name in lacking]
    for extra, entry in found["extras"].items():
        missing = [name for name, there in entry["packages"].items() if there is None]
        state = f"missing {', '.join(missing)}: pip install 'spikebridge[{extra}]'" if missing else "installed"
        lines.append(_row("", f"[{extra}] {entry['for']}: {state}"))
    for i, path in enumerate(found["fast_paths"]):
        mark = "yes" if path["active"] else "no "
        lines.append(_row("fast paths" if not i else "", f"{mark} {path['path']}: {path['why']}"))
    for kind, entries in found["data"].items():
        shown = ", ".join(_told(entry) for entry in entries[:3]) or "none"
        more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
        lines.append(_row(kind, shown + more))
    return "\n".join(lines)


def _told(entry: dict[str, Any]) -> str:
    if "problem" in entry:
        return f"{entry['name']} (NOT GOOD: see `spikebridge verify`)"
    if "id" in entry:
        return f"{entry['name']} ({entry['samples']:,} samples, ID {entry['id'][:12]})"
    return entry["name"] + (f" ({entry['state']})" if "state" in entry else "")


def _row(name: str, text: str) -> str:
    return f"{name:11} {text}"


def _gigabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:,.1f} GiB"
