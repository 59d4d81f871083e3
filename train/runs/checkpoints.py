"""Checkpoints: weights and optimiser state as safetensors, the rest as plain JSON, each file written whole or not.

A checkpoint is two files, and a third with the weights of the best epoch. The tensors go first, under names with epoch
and step; `state.json`, which names them with their sums, is the commit. Killed in between, the older files are still
whole. The checkpoint before the last one stays, under `before.json`: what a run continues from where the last one is
damaged. Nothing is pickled. A commit can be taken after any step; how often is the caller's `CheckpointInterval`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikebridge.pipeline.base import foreign_json
from spikebridge.pipeline.base.files import write_bytes
from spikebridge.train.errors import RunError
from spikebridge.train.runs.state import StoredState
from spikebridge.train.runs.sums import SEAL, encode_json, require_digest, require_seal, seal

STATE_FILE, BEFORE_FILE = "state.json", "before.json"
SCHEMA, WITHOUT_SUMS = 3, 2
"""Versions of the checkpoint's layout that are read."""
AGAIN = "Start again with --overwrite."
Form = TypeVar("Form")
LARGEST_SHARE = 20
"""Commits by the clock lie at least so many times their own duration apart: 5 % of the run at most."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, into a folder that is made where it is missing.

    Raises:
        RunError: the disk is full or the folder cannot be written; what was there before is unharmed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data, sole_writer=True)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; make room or choose another folder, "
            "then give the same command again: what is finished stays"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON with one key per line, atomically; NaN is refused."""
    write_atomic(path, encode_json(value))


def read_json(path: Path, form: type[Form], *, remedy: str = AGAIN) -> Form:
    """Read JSON of a form, see `pipeline.base.foreign_json`.

    Raises:
        RunError: missing, damaged or of another form.
    """
    return foreign_json.read_json(path, form, error=RunError, remedy=remedy)


def check_form(value: Any, form: type[Form], path: Path, *, remedy: str = AGAIN) -> Form:
    """Hold what a file holds against a form.

    Raises:
        RunError: it is of another form.
    """
    return foreign_json.check_json(value, form, source=str(path), error=RunError, remedy=remedy)


def copy_weights(network: nn.Module) -> dict[str, Tensor]:
    """Copy all parameters and buffers to the CPU, by name."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}


def write_weights(path: Path, tensors: dict[str, Tensor], description: dict[str, str]) -> None:
    """Write a weights file; `description` (text to text) goes into its header."""
    write_atomic(path, encode_weights(tensors, description))


def encode_weights(tensors: dict[str, Tensor], description: dict[str, str]) -> bytes:
    """Encode the content of a weights file, its header sorted: safetensors writes metadata in a random order."""
    content: bytes = safetensors.torch.save(tensors, metadata=description)
    start = 8 + int.from_bytes(content[:8], "little")
    text = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8, as the format asks
    return len(text).to_bytes(8, "little") + text + content[start:]


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors (on the CPU) and description of a weights file, and compare the sum of one that carries it.

    Raises:
        RunError: missing, damaged, or another format.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            description = dict(file.metadata() or {})
        if (digest := description.pop(SEAL, None)) is not None:
            require_digest(path, path.read_bytes(), digest)
        return tensors, description
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: cannot be read as safetensors ({error}); train the run again") from error


def tensors_sum(path: Path) -> str:
    """Return the SHA-256 of names, types, shapes and values in a weights file, whatever its description says.

    It is that of the file that `write_weights` makes of the tensors with an empty description.

    Raises:
        RunError: missing, damaged, or another format.
    """
    return hashlib.sha256(encode_weights(read_weights(path)[0], {})).hexdigest()


def read_file(path: Path) -> bytes:
    """Read a file of a checkpoint.

    Raises:
        RunError: missing.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); start again with --overwrite") from error


def read_tensors(content: bytes, *, source: Path) -> dict[str, Tensor]:
    """Decode the tensors of a safetensors file.

    Raises:
        RunError: damaged, or another format.
    """
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise RunError(f"{source}: cannot be read as safetensors ({error}); train the run again") from error
    return tensors


def collect_tensors(
    network: nn.Module, optimizer: Optimizer, modules: Mapping[str, nn.Module] | None = None
) -> dict[str, Tensor]:
    """Copy everything that training changes to the CPU.

    They are called `network.NAME`, `optimizer.NUMBER.NAME`, and `method.MODULE.NAME` for a method's own modules.
    """
    tensors = {f"network.{name}": value for name, value in copy_weights(network).items()}
    for module, values in (modules or {}).items():
        tensors |= {f"method.{module}.{name}": value for name, value in copy_weights(values).items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimizer.{index}.{name}"] = value.detach().cpu().clone().contiguous()
    return tensors


def save_checkpoint(
    folder: Path,
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    *,
    best: tuple[int, bytes] | None = None,
    files: Mapping[str, str] | None = None,
) -> None:
    """Commit a checkpoint; keep the one before and remove those before it.

    Args:
        folder: `checkpoint/` of a run.
        tensors: from `collect_tensors`, and whatever else is to come back; optimiser settings come from the recipe.
        state: plain JSON with `epoch` and `step`, the number of finished ones.
        best: the best epoch so far and its weights file; written unless it is there.
        files: SHA-256 of what the run holds besides, by name below its folder.

    Raises:
        RunError: the disk is full; the checkpoint before is unharmed.
    """
    # Both numbers: after the last step of an epoch, before and after it counts as finished, the content differs.
    name = f"epoch-{state['epoch']:06d}-step-{state['step']:09d}.safetensors"
    best_name = None if best is None else f"best-{best[0]:06d}.safetensors"
    before = read_state(folder)
    sums = dict(files or {})
    if best is not None and best_name is not None:
        place = f"{folder.name}/{best_name}"
        known = before is not None and before["best_tensors"] == best_name
        kept_sum = before.get("files", {}).get(place) if before and known else None
        sums[place] = kept_sum or hashlib.sha256(best[1]).hexdigest()
        if not known:
            write_atomic(folder / best_name, best[1])  # unknown to the commit before: a leftover, or not there
    content = encode_weights(tensors, {})
    sums[f"{folder.name}/{name}"] = hashlib.sha256(content).hexdigest()
    write_atomic(folder / name, content)
    if before:
        write_atomic(folder / BEFORE_FILE, (folder / STATE_FILE).read_bytes())
    written = {"schema": SCHEMA, **state, "tensors": name, "best_tensors": best_name, "files": sums}
    write_json(folder / STATE_FILE, seal(written))
    kept = {STATE_FILE, name, best_name} | (
        {BEFORE_FILE, before["tensors"], before["best_tensors"]} if before else set()
    )
    for other in folder.iterdir():
        if other.name not in kept:
            other.unlink()


def read_state(folder: Path, name: str = STATE_FILE) -> StoredState | None:
    """Read the state of the last checkpoint, or of the one before; None when nothing was committed yet.

    Raises:
        RunError: damaged, or of another version.
    """
    path = folder / name
    if not path.exists():
        return None
    state = read_json(path, dict[str, Any])
    require_seal(path, read_file(path), state, schema=SCHEMA)
    if state.get("schema") not in (SCHEMA, WITHOUT_SUMS):
        raise RunError(
            f"{path}: a checkpoint of schema {state.get('schema', 1)}, this version reads {WITHOUT_SUMS} and {SCHEMA}; "
            "finish the run with the version that began it, or start again with --overwrite"
        )
    return check_form(state, StoredState, path)


def restore_checkpoint(
    tensors: dict[str, Tensor],
    network: nn.Module,
    optimizer: Optimizer,
    modules: Mapping[str, nn.Module] | None = None,
    *,
    source: Path,
) -> None:
    """Put network, optimiser and a method's modules back to where the checkpoint was taken; other names are ignored.

    Raises:
        RunError: tensors of another network.
    """
    weights: dict[str, Tensor] = {}
    own: dict[str, dict[str, Tensor]] = {name: {} for name in modules or {}}
    moments: dict[int, dict[str, Tensor]] = {}
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "network":
                weights[rest] = value
            elif kind == "method":
                module, _, field = rest.partition(".")
                own.setdefault(module, {})[field] = value
            elif kind == "optimizer":
                index, _, field = rest.partition(".")
                if value.ndim and value.shape != parameters[int(index)].shape:
                    raise ValueError(f"{name} is {list(value.shape)}")
                moments.setdefault(int(index), {})[field] = value
        network.load_state_dict(weights)
        for name, values in own.items():
            (modules or {})[name].load_state_dict(values)
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (LookupError, ValueError, RuntimeError) as error:
        raise RunError(f"{source}: does not fit this network: {error}; start again with --overwrite") from error


@dataclass(frozen=True)
class CheckpointInterval:
    """How often to commit: after so many seconds or steps, whichever is set."""

    seconds: float | None = 10.0
    """Least time between two commits; stretched so that they take at most a twentieth of the run."""
    steps: int | None = None
    """Commit whenever the number of finished steps is a multiple of this."""

    @classmethod
    def parse(cls, text: str) -> CheckpointInterval:
        """Read `30s`, `10m` or `1h` (time) or `500` (steps).

        Raises:
            RunError: neither.
        """
        number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "")
        try:
            value = float(number) if unit else int(number)
            if not (0 if unit else 1) <= value < float("inf"):
                raise ValueError(number)
        except ValueError:
            raise RunError(
                f"checkpoint every {text!r}: expected a time such as 30s or 10m, or steps such as 500"
            ) from None
        return cls(value * _UNITS[unit], None) if unit else cls(None, int(value))

    def is_due(self, *, step: int, elapsed: float, cost: float) -> bool:
        """Return whether to commit after `step` steps, `elapsed` seconds after a commit that took `cost` seconds."""
        if self.steps is not None:
            return step % self.steps == 0
        assert self.seconds is not None
        return elapsed >= max(self.seconds, LARGEST_SHARE * cost)
