"""Published checkpoints as runs: what others trained, scored on our shard sets."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import torch

from spikebridge.models import ModelError, TransferNetwork, backends
from spikebridge.models.published import neuron_constants, read_published_checkpoint
from spikebridge.pipeline.base.files import real_path
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import Recipe
from spikebridge.train.config.settings import evaluation_batch
from spikebridge.train.errors import RunError
from spikebridge.train.evaluation.adaptation import adapt_and_score, prior_of
from spikebridge.train.evaluation.evaluate import open_shards
from spikebridge.train.evaluation.recalibration import recalibrate
from spikebridge.train.evaluation.score import split_frames
from spikebridge.train.networks.build import choose_device, encode_network, make_network, network_arguments
from spikebridge.train.runs import checkpoints
from spikebridge.train.runs.environment import describe_environment
from spikebridge.train.runs.folder import RunFolder, contents_id, open_run, require_shards
from spikebridge.train.runs.result import Imported, RunResult
from spikebridge.train.runs.state import TrainState
from spikebridge.train.trainer.result import build_result

log = logging.getLogger(__name__)

SELECTION = "imported checkpoint: target by whoever trained it, by their rule"


def import_checkpoint(
    file: str | Path,
    shards: ShardSet | str | Path,
    recipe: Recipe,
    run_dir: str | Path,
    *,
    partial: bool = False,
    expect: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> RunResult:
    """Make a finished run of a published checkpoint file; the same import again returns it.

    The weights are taken and nothing else: no optimiser, no training arguments. Whether the recordings of the shard
    set's test split were among those it was trained on, no file says. With `recalibrate` in the recipe the running
    statistics are taken anew from all event training recordings.

    Args:
        file: `.pth.tar` as timm's saver writes it; see `models.published` for what of it is unpickled.
        shards: shard set, open or as a path; its classes, time steps and size make the network.
        recipe: the rest of the network, and the `[train]` table that the run records.
        run_dir: the run folder, new or of the same import.
        partial: accept a file of which something does not fit; what is missing keeps its fresh weights.
        expect: refuse a shard set with another ID (at least 12 digits of it).
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        overwrite: replace a run that is in the folder.

    Returns:
        The content of result.json: that of a trained run (epochs trained here: 0), and `imported` with file (name),
        sha256, epoch, arch, tensors, fitted, missing, unexpected, misfits.

    Raises:
        RunError: the file cannot be read or does not fit (all of it is named), or the folder holds another run.
        ShardMismatchError: the shard set is not the recipe's.
        NetworkError: the recipe's network cannot be built for it.
        DeviceError: no such device.
    """
    file, run, target = Path(file), RunFolder(run_dir), choose_device(device)
    shards = require_shards(open_shards(shards), recipe.shards, expect=expect)
    if real_path(run.path).is_relative_to(real_path(shards.path)):
        raise RunError(f"{run.path} lies inside the shard set {shards.path}, which is read only; choose another folder")
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    status = run.status(recipe, shards.id, overwrite=overwrite)
    if status == "unfinished":
        raise RunError(f"{run.path} holds a run that is being trained; choose another folder, or pass --overwrite")
    if status == "finished":
        _, there = open_run(run.path)
        if "imported" not in there or there["imported"]["sha256"] != digest:
            raise RunError(f"{run.path} holds another run; choose another folder, or pass --overwrite")
        log.info("%s is imported already", run.path)
        return there

    network, taken = _load_published(file, digest, recipe, shards, partial=partial)
    network.to(target).eval()
    batch_size, prior = evaluation_batch(recipe.train), prior_of(recipe.train)
    if recipe.train.recalibrate:
        recalibrate(network, split_frames(shards, "train", residence="disk"), batch_size=batch_size, device=target)
    with run.lock():
        if run.status(recipe, shards.id, overwrite=overwrite) != status:
            raise RunError(f"{run.path}: another process has worked on this run meanwhile; give the command again")
        run.claim(recipe, overwrite=overwrite)
        epoch = taken["epoch"] or 0
        made = json.dumps(describe_environment(target))
        encoded = encode_network(network, epoch=epoch, shard_set=shards.id, environment=made)
        for path in (run.best, run.last):
            checkpoints.write_atomic(path, encoded)
        frames = {name: split_frames(shards, name, residence="disk") for name in ("validation", "test")}
        with backends.record() as ran:
            scores = {
                name: adapt_and_score(network, split, prior=prior, batch_size=batch_size, device=target)
                for name, split in frames.items()
            }
        result = build_result(
            recipe,
            shards,
            network,
            frames,
            run=run,
            best=scores,
            last=scores,
            state=TrainState(shards.id, torch.get_num_threads(), contents_id(shards), cpu_seconds=None),
            best_epoch=epoch,
            selection=SELECTION,
            selection_split=None,
            changed={},
            train_samples=0,
            static_images=0,
            device=target,
        )
        result["init"], result["imported"], result["backend"] = None, taken, "+".join(sorted(ran))
        return run.finish(result)


def _load_published(
    file: Path, digest: str, recipe: Recipe, shards: ShardSet, *, partial: bool
) -> tuple[TransferNetwork, Imported]:
    """Build the recipe's network with the file's weights; return it with what was taken of the file.

    Raises:
        RunError: unreadable, not all of it fits (unless `partial`), or nothing does.
    """
    network = make_network(network_arguments(recipe.train, shards), seed=recipe.train.seed)
    try:
        published = read_published_checkpoint(file)
        report = network.load_published(published.state, strict=False)
    except ModelError as error:
        raise RunError(str(error)) from error
    model, state = recipe.train.model, published.state
    if not report and not partial:
        raise RunError(
            f"{file}: does not fit {model} for {len(shards.classes)} classes and {shards.sample_shape[0]} time steps: "
            f"{report}. Choose the recipe and shard set that it was trained for, or take what fits with --partial"
        )
    fitted = len(state) - len(report.unexpected) - len(report.misfits)
    if not fitted or all(name in neuron_constants(network) for name in state):
        raise RunError(f"{file}: nothing in it fits {model}: {report}")
    if not report:
        log.warning("%s: %s; what is missing keeps fresh weights", file, report)
    return network, {
        "file": file.name,
        "sha256": digest,
        "epoch": published.epoch,
        "arch": published.arch,
        "tensors": len(state),
        "fitted": fitted,
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
        "misfits": list(report.misfits),
    }
