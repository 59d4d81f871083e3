"""What survives a killed run: weights and optimiser state as safetensors, the rest as plain JSON, all written aside.

A checkpoint is two files. The tensors go first, under a name with the epoch; `state.json`, which names them, is the
commit. Killed between the two, the older pair is still whole. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn
from torch.optim import Optimizer

from train.errors import RunError

STATE_FILE = "state.json"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: aside, flushed to the disk, then renamed over the old one.

    Raises:
        RunError: the disk is full or the folder cannot be written; what was there before is unharmed.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # makes the new name durable too
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another folder, "
            "then give the same command again: it continues from the last checkpoint"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON with one key per line, atomically; NaN is refused."""
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        RunError: missing or damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); expected JSON written by train") from error


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers on the CPU, by name."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}


def write_weights(path: Path, tensors: dict[str, Tensor], description: dict[str, str]) -> None:
    """Write a weights file; `description` (text to text) goes into its header."""
    write_atomic(path, safetensors.torch.save(tensors, metadata=description))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors on the CPU and description of a weights file.

    Raises:
        RunError: missing, damaged, or another format.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: cannot be read as safetensors ({error}); train the run again") from error


def save_checkpoint(folder: Path, network: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Commit a checkpoint and remove the one before.

    Args:
        folder: `checkpoint/` of a run.
        network: its parameters and buffers are kept.
        optimizer: its per-parameter tensors are kept; settings come from the recipe.
        state: plain JSON with `epoch`, the number of finished epochs.

    Raises:
        RunError: the disk is full; the checkpoint before is unharmed.
    """
    tensors = {f"network.{name}": value for name, value in weights_of(network).items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimizer.{index}.{name}"] = value.detach().cpu().clone().contiguous()
    name = f"epoch-{state['epoch']:06d}.safetensors"
    write_weights(folder / name, tensors, {})
    write_json(folder / STATE_FILE, {**state, "tensors": name})
    for other in folder.glob("*epoch-*"):
        if other.name != name:
            other.unlink()


def read_state(folder: Path) -> dict[str, Any] | None:
    """State of the last checkpoint, or None when nothing was committed yet.

    Raises:
        RunError: damaged.
    """
    path = folder / STATE_FILE
    return read_json(path) if path.exists() else None


def restore_checkpoint(folder: Path, state: dict[str, Any], network: nn.Module, optimizer: Optimizer) -> None:
    """Put network and optimiser back to where the checkpoint was taken.

    Raises:
        RunError: tensors missing, damaged, or of another network.
    """
    path = folder / state["tensors"]
    tensors, _ = read_weights(path)
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "network":
            weights[rest] = value
        else:
            index, _, field = rest.partition(".")
            moments.setdefault(int(index), {})[field] = value
    try:
        network.load_state_dict(weights)
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: does not fit this network: {error}; start again with --overwrite") from error
