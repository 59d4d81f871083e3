"""Starting a run from another run's weights: what fits is taken, what does not is named.

The recipe says nothing of it: where a run began stands in its `init.json` and in its result.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from spikebridge.models import TransferNetwork
from spikebridge.models.normalization import EVENT
from spikebridge.pipeline.base.files import real_path, sha256_once
from spikebridge.pipeline.base.foreign_json import Count, Sha256
from spikebridge.train.errors import NetworkError, RunError
from spikebridge.train.networks.build import read_described
from spikebridge.train.runs.checkpoints import read_json, tensors_sum, write_json
from spikebridge.train.runs.folder import RunFolder, open_run

log = logging.getLogger(__name__)

ARCHITECTURE = ("name", "width", "neuron")
"""Settings of a network that must be the same: others change single tensors at most."""


class StartRecord(TypedDict):
    """The content of init.json."""

    run: str
    sha256: Sha256
    shard_set: str
    epoch: Count
    left_out: NotRequired[list[str]]


@dataclass(frozen=True)
class Start:
    """Another run's best weights."""

    run: Path
    network: dict[str, Any]
    """Arguments of `build_model`."""
    classes: tuple[str, ...]
    """What its heads tell apart."""
    tensors: dict[str, Tensor]
    """Weights and buffers by name."""
    record: dict[str, Any]
    """What the new run remembers: run (name), sha256 (of the tensors alone), shard_set, epoch."""


def read_start(run_dir: str | Path) -> Start:
    """Read the best weights of a finished run, trained or imported.

    Raises:
        RunError: no run there, an unfinished or a damaged one.
    """
    run, result = open_run(run_dir)
    tensors, description = read_described(run.best)
    return Start(
        run=run.path,
        network=description["network"],
        classes=tuple(result["classes"]),
        tensors=tensors,
        record={
            "run": real_path(run.path).name,
            "sha256": tensors_sum(run.best),
            "shard_set": description["shard_set"],
            "epoch": int(description["epoch"]),
        },
    )


@torch.no_grad()
def start_from(start: Start, network: TransferNetwork, classes: Sequence[str]) -> dict[str, Any]:
    """Copy the weights that fit into a fresh network; the others keep their initial values.

    The heads are taken only for the same classes in the same order, the coefficients for the same number of time steps.
    Running statistics that both streams share fill the rows of domain-specific ones; of those, shared ones take the
    event row.

    Args:
        start: where from.
        network: changed in place; any device.
        classes: of the shard set it will be trained on.

    Returns:
        What the run remembers: `start.record` and `left_out`, one sentence each.

    Raises:
        NetworkError: another architecture, or nothing fits; the network is as it was.
    """
    config = network.config
    other = [f"{key}: {start.network.get(key)} there, {config[key]} here" for key in ARCHITECTURE]
    other = [line for line, key in zip(other, ARCHITECTURE, strict=True) if start.network.get(key) != config[key]]
    if other:
        raise NetworkError(
            f"{start.run} holds another architecture ({'; '.join(other)}); choose a run of the same one, or change the "
            "recipe"
        )
    targets, fitting, left_out = network.state_dict(), {}, []
    for name, target in targets.items():
        value = start.tensors.get(name)
        if value is None:
            left_out.append(f"{name}: not there")
            continue
        if name.startswith(network.heads) and start.classes != tuple(classes):
            left_out.append(f"{name}: of other classes")
            continue
        if name.endswith(("running_mean", "running_var")) and value.ndim != target.ndim:
            value = value.expand(target.shape) if target.ndim > value.ndim else value[EVENT]
        if value.shape == target.shape:
            fitting[name] = value
        else:
            left_out.append(f"{name}: found {list(value.shape)}, expected {list(target.shape)}")
    left_out += [f"{name}: no place for it here" for name in start.tensors if name not in targets]
    if not fitting:
        raise NetworkError(f"{start.run}: none of its weights fits")
    for name, value in fitting.items():
        targets[name].copy_(value)
    if left_out:
        log.warning("%s: %d tensors taken, left out: %s", start.run, len(fitting), ", ".join(left_out))
    return {**start.record, "left_out": left_out}


def require_same_start(run: RunFolder, start: Start | None, status: str) -> None:
    """Refuse to continue a run with another beginning than it had; without `start` it continues with its own.

    Raises:
        RunError: an unfinished or finished run that began elsewhere.
    """
    if start is None or status == "new":
        return
    recorded = recorded_start(run)
    # Runs that an earlier version began name the sum of the whole file.
    if recorded is None or recorded["sha256"] not in (start.record["sha256"], sha256_once(RunFolder(start.run).best)):
        where = "fresh weights" if recorded is None else f"other weights ({recorded['run']})"
        raise RunError(f"{run.path} began from {where}, not from {start.run}; choose a new folder, or pass --overwrite")


def record_start(run: RunFolder, record: dict[str, Any] | None) -> None:
    """Write a new run's `init.json`, or remove what an attempt before this one left."""
    if record is None:
        run.init.unlink(missing_ok=True)
    else:
        write_json(run.init, record)


def recorded_start(run: RunFolder) -> dict[str, Any] | None:
    """Return what `record_start` wrote; None for a run from fresh weights.

    Raises:
        RunError: damaged.
    """
    if not run.init.exists():
        return None
    record = read_json(run.init, StartRecord)
    return cast(dict[str, Any], record)
