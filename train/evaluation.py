"""Scores of a network on a split: event frames only, evaluation mode, no augmentation.

Axes: n samples, T time, B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from models import TransferNetwork, backends
from train.errors import RunError, ShardMismatchError
from train.frames import Frames
from train.networks import choose_device, load_network, require_backend
from train.recipes import recipe_from
from train.runs import RunFolder, contents_id, read_result
from train.settings import TrainSettings

if TYPE_CHECKING:
    from train.exported import ExportedNetwork

SMALLEST_BATCH = 64
"""Evaluation needs less memory than training, so small training batches are not kept."""


@dataclass(frozen=True)
class Scores:
    """What a network makes of one split."""

    logits: np.ndarray
    """float32 [n,K], averaged over time."""
    labels: np.ndarray
    """int64 [n]."""
    loss: float
    """Mean cross entropy of the time-averaged logits, natural logarithm."""
    firing_rates: dict[str, float]
    """Spikes per neuron and time step, by layer, mean over the samples."""

    @property
    def predictions(self) -> np.ndarray:
        """Class of the highest score, int64 [n]; the lower class wins a tie."""
        predictions: np.ndarray = self.logits.argmax(axis=1)
        return predictions

    @property
    def accuracy(self) -> float:
        """Share of right predictions, 0 to 1."""
        return float(np.mean(self.predictions == self.labels))

    def confusion(self) -> list[list[int]]:
        """Counts [K][K]: row = label, column = prediction."""
        K = self.logits.shape[1]
        counts = np.bincount(self.labels * K + self.predictions, minlength=K * K)
        return [[int(count) for count in row] for row in counts.reshape(K, K)]


def split_figures(prefix: str, scores: Mapping[str, Scores | None]) -> dict[str, float | None]:
    """Accuracy and loss as result.json names them: `<prefix><split>_accuracy`, `..._loss`; None for an empty split."""
    figures: dict[str, float | None] = {}
    for name, found in scores.items():
        figures[f"{prefix}{name}_accuracy"] = found.accuracy if found else None
        figures[f"{prefix}{name}_loss"] = found.loss if found else None
    return figures


def evaluation_batch(settings: TrainSettings) -> int:
    """Batch size of evaluation; fixed by the recipe, so that a recomputed score has the same bits."""
    return max(settings.batch_size, SMALLEST_BATCH)


@torch.no_grad()
def score(
    network: TransferNetwork | ExportedNetwork,
    frames: Frames,
    *,
    batch_size: int,
    device: torch.device,
    between: Callable[[], None] | None = None,
) -> Scores | None:
    """Score a network on recordings; None when there are none. The network's mode is put back afterwards.

    `between` is called after each batch, and may raise to give up.
    """
    if not len(frames):
        return None
    was_training = network.training
    network.eval()
    network.record_firing_rates = True
    logits, losses = [], 0.0
    rates: dict[str, float] = {}
    try:
        for events, labels in frames.batches(batch_size, device):
            out = network(None, events)
            mean = out.event_logits.float().mean(0)  # [B,K]
            logits.append(mean.cpu())
            losses += float(F.cross_entropy(mean.double(), labels, reduction="sum"))
            for layer, rate in out.firing_rates.items():
                rates[layer] = rates.get(layer, 0.0) + float(rate) * len(labels)
            if between is not None:
                between()
    finally:
        network.record_firing_rates = False
        network.train(was_training)
    return Scores(
        logits=torch.cat(logits).numpy(),
        labels=frames.labels,
        loss=losses / len(frames),
        firing_rates={layer: total / len(frames) for layer, total in rates.items()},
    )


def split_frames(shards: Any, name: str, *, residence: str = "auto", device: torch.device | None = None) -> Frames:
    """All recordings of a split, in the order of the shard set."""
    split = shards.split(name)
    positions = np.arange(len(split), dtype=np.int64)
    return Frames(split, positions, sample_shape=shards.sample_shape, residence=residence, device=device)


@contextmanager
def same_threads(count: int) -> Iterator[None]:
    """Run with as many CPU threads as the training had: the order of sums, and so the last bit, depends on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def evaluate(
    run_dir: str | Path,
    shards: Any,
    *,
    split: str = "test",
    weights: str = "best",
    device: str = "auto",
    trust: bool = False,
    backend: str = "auto",
) -> dict[str, Any]:
    """Score a finished run again; equal to its result.json on the same kind of device and backend. Writes nothing.

    Args:
        run_dir: a run folder, or a file of `train.exporting.export`: see `evaluate_export`.
        shards: the shard set it was trained on, open or as a path.
        split: `test`, `validation` or `train`.
        weights: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        trust: open a torch.export program, which can run any code.
        backend: what computes the neurons, see `models.backends`; an exported program brings its own.

    Returns:
        accuracy (0 to 1), loss, split, samples, confusion [K][K] (row = label), classes, weights, shard_set, simulated,
        and the backend that ran.

    Raises:
        RunError: unfinished or damaged run, unknown weights, an empty split, or a backend for an exported file.
        ShardMismatchError: another shard set.
        DeviceError: no such device.
        NetworkError: `backend` cannot compute the neurons here.
    """
    if Path(run_dir).is_file():
        if backend != "auto":
            raise RunError(f"{run_dir}: an exported network brings its own code; leave --backend out")
        return evaluate_export(run_dir, shards, split=split, device=device, trust=trust)
    run, result, chosen = RunFolder(run_dir), read_result(run_dir), choose_device(device)
    if weights not in ("best", "last"):
        raise RunError(f"weights {weights!r}: expected best or last")
    shards = open_shards(shards)
    if shards.id != result["shard_set"]:
        raise ShardMismatchError(
            f"{run.path} was trained on shard set {result['shard_set']}, {shards.path} is {shards.id}"
        )
    network, _ = load_network(run.best if weights == "best" else run.last, device=chosen)
    settings = recipe_from(result["recipe"], name=str(run.config)).train
    frames = split_frames(shards, split, residence="disk")
    with same_threads(result["threads"]), backends.use(backend), backends.record() as ran:
        require_backend(network, precision="fp32", device=chosen)
        scores = score(network, frames, batch_size=evaluation_batch(settings), device=chosen)
    return _summary(scores, shards, split) | {"weights": weights, "backend": "+".join(sorted(ran))}


def evaluate_export(
    file: str | Path, shards: Any, *, split: str = "test", device: str = "auto", trust: bool = False
) -> dict[str, Any]:
    """Score an exported network; its accuracy is that of the run. Writes nothing.

    safetensors gives the same bits; a torch.export program computes the same operations; NIR runs step by step in
    float32 with folded BatchNorm, whose roundings can move a spike that is within 1e-7 of the threshold.

    Args:
        file: written by `train.exporting.export`.
        shards: the shard set it was trained on, or the same samples in another container, open or as a path.
        split: `test`, `validation` or `train`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        trust: open a torch.export program, which can run any code.

    Returns:
        As `evaluate`, and `format` and `recorded`: the accuracy that the file states (None for `train`).

    Raises:
        ExportError: the file cannot be opened, or is a torch.export program without `trust`.
        RunError: an empty split.
        ShardMismatchError: a shard set of other samples.
        DeviceError: no such device.
    """
    from train.exported import open_export

    chosen, shards = choose_device(device), open_shards(shards)
    network, described, format = open_export(file, device=chosen, trust=trust)
    if shards.id != described["shard_set"] and contents_id(shards) != described["contents"]:
        raise ShardMismatchError(
            f"{file} belongs to shard set {described['shard_set']}, {shards.path} is {shards.id} with other samples"
        )
    frames = split_frames(shards, split, residence="disk")
    with same_threads(described["threads"]):
        scores = score(network, frames, batch_size=described["batch_size"], device=chosen)
    recorded = described.get(f"{split}_accuracy")
    return _summary(scores, shards, split) | {"weights": described["weights"], "format": format, "recorded": recorded}


def _summary(scores: Scores | None, shards: Any, split: str) -> dict[str, Any]:
    """What `evaluate` returns.

    Raises:
        RunError: there is nothing to score.
    """
    if scores is None:
        raise RunError(f"{shards.path}: the {split} split is empty; nothing to evaluate")
    return {
        "accuracy": scores.accuracy,
        "loss": scores.loss,
        "split": split,
        "samples": len(scores.labels),
        "confusion": scores.confusion(),
        "classes": list(shards.classes),
        "shard_set": shards.id,
        "simulated": shards.simulated,
        "protocol": shards.settings["protocol"],
    }


def open_shards(shards: Any) -> Any:
    """An open shard set, from one, from its path, or from the address where it is published.

    Raises:
        ShardSetError: missing, incomplete, damaged or unreachable.
    """
    if isinstance(shards, str | Path):
        from pipeline.opening import open_set

        return open_set(shards)
    return shards
