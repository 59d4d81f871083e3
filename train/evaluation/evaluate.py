"""Scores of finished runs and exported networks, computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spikebridge.models import backends
from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.config.settings import evaluation_batch
from spikebridge.train.errors import RunError, ShardMismatchError
from spikebridge.train.evaluation.corruption import CorruptedFrames
from spikebridge.train.evaluation.score import Scores, score, split_frames
from spikebridge.train.networks.build import choose_device, load_network, require_backend
from spikebridge.train.networks.threads import same_threads
from spikebridge.train.runs.folder import RunFolder, contents_id, framed_as, open_run
from spikebridge.train.runs.result import RunResult

FOREIGN = "evaluate --foreign scores on another set with the same classes"


def evaluate(
    run_dir: str | Path,
    shards: ShardSet | str | Path,
    *,
    split: str = "test",
    weights: str = "best",
    device: str = "auto",
    trust: bool = False,
    backend: str = "auto",
    foreign: bool = False,
    corrupt: Sequence[tuple[str, float]] = (),
    corrupt_seed: int = 0,
) -> dict[str, Any]:
    """Score a finished run again; equal to its result.json on the same kind of device and backend. Writes nothing.

    Args:
        run_dir: a run folder, or a file of `train.export.write.export`: see `evaluate_export`.
        shards: the shard set it was trained on, open or as a path; with `foreign` any with the same classes and frames
            of the same shape.
        split: `test`, `validation` or `train`.
        weights: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        trust: open a torch.export program, which can run any code.
        backend: what computes the neurons, see `models.backends`; an exported program brings its own.
        foreign: the shard set may be another one; the result says whether it is.
        corrupt: failures of the camera and their levels, see `train.evaluation.corruption`.
        corrupt_seed: of the failures.

    Returns:
        accuracy (0 to 1), loss, split, samples, confusion [K][K] (row = label), classes, weights, shard_set, simulated,
        foreign (whether the network was trained on another set) and the backend that ran; with `corrupt` also
        corrupted, a list of name, level, accuracy and loss, and corrupt_seed.

    Raises:
        RunError: unfinished or damaged run, unknown weights, an empty split, or a backend for an exported file.
        ShardMismatchError: another shard set; with `foreign`, other classes or frames of another shape.
        DeviceError: no such device.
        NetworkError: `backend` cannot compute the neurons here.
    """
    if Path(run_dir).is_file():
        if backend != "auto":
            raise RunError(f"{run_dir}: an exported network brings its own code; leave --backend out")
        return evaluate_export(
            run_dir, shards, split=split, device=device, trust=trust, foreign=foreign, corrupt=corrupt,
            corrupt_seed=corrupt_seed,
        )  # fmt: skip
    (run, result), torch_device = open_run(run_dir), choose_device(device)
    if weights not in ("best", "last"):
        raise RunError(f"weights {weights!r}: expected best or last")
    if foreign:
        shards = framed_as(open_shards(shards), result["recipe"]["shards"])
    else:
        shards = open_shards_of(run, result, shards)
    network, described = load_network(run.best if weights == "best" else run.last, device=torch_device)
    if foreign:
        _require_fitting(shards, result["classes"], described["network"], source=run.path)
    settings = recipe_from(result["recipe"], name=str(run.config)).train
    frames = split_frames(shards, split, residence="disk")
    frames.labels = _labels_of(shards, result["classes"])[frames.labels]
    with same_threads(result["threads"]), backends.use(backend), backends.record() as ran:
        require_backend(network, precision="fp32", device=torch_device)
        batch_size = evaluation_batch(settings)
        scores = score(network, frames, batch_size=batch_size, device=torch_device)
        rescore = partial(score, network, batch_size=batch_size, device=torch_device)
        corrupted = _score_corrupted(rescore, shards, split, frames.labels, corrupt, corrupt_seed)
    scored = {"weights": weights, "backend": "+".join(sorted(ran)), "foreign": shards.id != result["shard_set"]}
    return _summary(scores, shards, split, result["classes"]) | scored | corrupted


def evaluate_export(
    file: str | Path,
    shards: ShardSet | str | Path,
    *,
    split: str = "test",
    device: str = "auto",
    trust: bool = False,
    foreign: bool = False,
    corrupt: Sequence[tuple[str, float]] = (),
    corrupt_seed: int = 0,
) -> dict[str, Any]:
    """Score an exported network; its accuracy is that of the run. Writes nothing.

    safetensors gives the same bits; a torch.export program computes the same operations; NIR runs step by step in
    float32 with folded BatchNorm, whose roundings can move a spike that is within 1e-7 of the threshold.

    The file is one of `train.export.write.export`, the other arguments are those of `evaluate`; the shard set may hold
    the same samples in another container.

    Returns:
        As `evaluate`, and `format` and `recorded`: the accuracy that the file states (None for `train`).

    Raises:
        ExportError: the file cannot be opened, or is a torch.export program without `trust`.
        RunError: an empty split.
        ShardMismatchError: a shard set of other samples.
        DeviceError: no such device.
    """
    from spikebridge.train.export.read import open_export

    torch_device, shards = choose_device(device), open_shards(shards)
    network, described, format = open_export(file, device=torch_device, trust=trust)
    shards = framed_as(shards, described["preprocessing"])
    other = shards.id != described["shard_set"] and contents_id(shards) != described["contents"]
    if other and not foreign:
        raise ShardMismatchError(
            f"{file} belongs to shard set {described['shard_set']}, {shards.path} is {shards.id} with other samples"
            f"; {FOREIGN}"
        )
    classes = described.get("classes", list(shards.classes))
    if other:
        _require_fitting(shards, classes, described["network"], source=Path(file))
    frames = split_frames(shards, split, residence="disk")
    frames.labels = _labels_of(shards, classes)[frames.labels]
    with same_threads(described["threads"]):
        scores = score(network, frames, batch_size=described["batch_size"], device=torch_device)
        rescore = partial(score, network, batch_size=described["batch_size"], device=torch_device)
        corrupted = _score_corrupted(rescore, shards, split, frames.labels, corrupt, corrupt_seed)
    recorded = None if other else described.get(f"{split}_accuracy")
    scored = {"weights": described["weights"], "format": format, "recorded": recorded, "foreign": other}
    return _summary(scores, shards, split, classes) | scored | corrupted


def _score_corrupted(
    rescore: Callable[[CorruptedFrames], Scores | None],
    shards: ShardSet,
    split: str,
    labels: np.ndarray,
    corrupt: Sequence[tuple[str, float]],
    seed: int,
) -> dict[str, Any]:
    """Return accuracy and loss under each failure at its level, and the seed; nothing where none is asked for.

    Raises:
        RunError: stored frames that cannot show a failure.
    """
    rows = []
    failing = [CorruptedFrames(shards, split, name=name, level=level, seed=seed) for name, level in corrupt]
    for (name, level), frames in zip(corrupt, failing, strict=True):
        frames.labels = labels
        if (scores := rescore(frames)) is not None:
            rows.append({"name": name, "level": level, "accuracy": scores.accuracy, "loss": scores.loss})
    return {"corrupted": rows, "corrupt_seed": seed} if corrupt else {}


def _require_fitting(shards: ShardSet, classes: Sequence[str], arguments: Mapping[str, Any], *, source: Path) -> None:
    """Refuse a shard set that a network cannot be scored on.

    Raises:
        ShardMismatchError: other classes, or frames of another shape.
    """
    if set(shards.classes) != set(classes) or len(shards.classes) != len(classes):
        only = sorted(set(shards.classes) ^ set(classes))
        raise ShardMismatchError(
            f"{shards.path} has {len(shards.classes)} classes, {source} {len(classes)}; these are in one of them only: "
            f"{', '.join(show(name) for name in only[:5])}; expected the same classes"
        )
    side = arguments["input_size"]
    wanted = (arguments["time_steps"], arguments["in_channels"], *(side if isinstance(side, list) else (side, side)))
    if tuple(shards.sample_shape) != wanted:
        raise ShardMismatchError(
            f"{shards.path} has frames [T,P,H,W] of {list(shards.sample_shape)}, {source} takes {list(wanted)}; "
            "preprocess the set with the same time bins and size"
        )


def _labels_of(shards: ShardSet, classes: Sequence[str]) -> np.ndarray:
    """Return the network's class index of every class of a shard set, int64 [K]."""
    return np.array([list(classes).index(name) for name in shards.classes], np.int64)


def _summary(scores: Scores | None, shards: ShardSet, split: str, classes: Sequence[str]) -> dict[str, Any]:
    """Return the result of `evaluate`.

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
        "classes": list(classes),
        "shard_set": shards.id,
        "simulated": shards.simulated,
        "protocol": shards.settings["protocol"],
    }


def open_shards(shards: ShardSet | str | Path) -> ShardSet:
    """Return an open shard set, from one, from its path, or from the address where it is published.

    Raises:
        ShardSetError: missing, incomplete, damaged or unreachable.
    """
    if isinstance(shards, str | Path):
        from spikebridge.pipeline.sharing.open import open_set

        return open_set(shards)
    return shards


def open_shards_of(run: RunFolder, result: RunResult, shards: ShardSet | str | Path) -> ShardSet:
    """Open the shard set of a finished run.

    Raises:
        ShardMismatchError: it is another one.
        ShardSetError: as `open_shards`.
    """
    opened = open_shards(shards)
    if opened.id != result["shard_set"]:
        raise ShardMismatchError(
            f"{run.path} was trained on shard set {result['shard_set']}, {opened.path} is {opened.id}; {FOREIGN}"
        )
    return framed_as(opened, result["recipe"]["shards"])
