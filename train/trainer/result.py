"""Finishes a run: writes weights and predictions, and builds the content of result.json."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch

from spikebridge.models import TransferNetwork
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import Recipe
from spikebridge.train.config.settings import evaluation_batch
from spikebridge.train.data.frames import Frames
from spikebridge.train.evaluation.held_out import held_out_cost
from spikebridge.train.evaluation.score import Scores, split_scores
from spikebridge.train.networks.precision import tf32
from spikebridge.train.networks.threads import same_threads
from spikebridge.train.runs import checkpoints
from spikebridge.train.runs.environment import describe_environment
from spikebridge.train.runs.folder import RunFolder
from spikebridge.train.runs.result import SCHEMA, RunResult, frames_of
from spikebridge.train.runs.state import TrainState
from spikebridge.train.trainer.epochs import SELECTION, Trainer

log = logging.getLogger(__name__)


def finish_training(trainer: Trainer, recipe: Recipe, *, test: bool = True) -> RunResult:
    """Write weights and predictions; score the test split with `best` and with `last`, and build the result.

    Args:
        trainer: trained to its last epoch, which is committed; its scored network holds the best weights afterwards.
        recipe: of the run.
        test: score the test split; without, no figure of it is computed.

    Returns:
        result.json, but for what the caller knows: the weights it began from and the backend.

    Raises:
        RunStoppedError: asked to stop; the run can be finished later.
        RunError: a file cannot be written.
    """
    run, state, device = trainer.run, trainer.state, trainer.device
    trainer.graph_step = None  # no step follows: its memory is free for what does
    weights_now = trainer.encode_weights()
    checkpoints.write_atomic(run.last, weights_now)
    last = _final_scores(trainer, test=test)
    best_epoch = state.best.epoch if state.best else state.epoch
    if best_epoch == state.epoch:
        checkpoints.write_atomic(run.best, weights_now)
        best = last
    else:
        assert trainer.best_weights is not None
        checkpoints.write_atomic(run.best, trainer.best_weights)
        weights, _ = checkpoints.read_weights(run.best)
        trainer.scored.load_state_dict(weights)
        best = _final_scores(trainer, test=test)
    if best["test"] is None and test:
        log.warning("%s: the test split is empty; no test accuracy", trainer.shards.path)
    cpu_seconds = state.cpu_seconds if device.type == "cpu" and trainer.distributed.world_size == 1 else None
    result = build_result(
        recipe,
        trainer.shards,
        trainer.scored,
        trainer.frames,
        run=run,
        best=best,
        last=last,
        state=dataclasses.replace(state, cpu_seconds=cpu_seconds),
        best_epoch=best_epoch,
        selection=SELECTION["last" if trainer.settings.selection == "last" else trainer.selection],
        selection_split=trainer.selection,
        changed=trainer.changed,
        train_samples=len(trainer.data),
        static_images=trainer.data.pool_images,
        device=device,
        tested=test,
    )
    result["precision"], result["tf32"] = trainer.train_step.precision.name, tf32(device)
    return result


def build_result(
    recipe: Recipe,
    shards: ShardSet,
    network: TransferNetwork,
    frames: Mapping[str, Frames],
    *,
    run: RunFolder,
    best: Mapping[str, Scores | None],
    last: Mapping[str, Scores | None],
    state: TrainState,
    best_epoch: int,
    selection: str,
    selection_split: str | None,
    changed: Mapping[str, Any],
    train_samples: int,
    static_images: int,
    device: torch.device,
    tested: bool = True,
) -> RunResult:
    """Write predictions.csv and build what every result.json holds, of a trained or an imported run.

    The network has the best weights; `best` and `last` are its scores, and those of the last weights, on the splits of
    `frames`. In `state` `cpu_seconds` is None where it was not measured. `tested` says whether the test split may be
    looked at.

    Raises:
        RunError: the predictions cannot be written.
    """
    test = best["test"]
    energy_nj, neurobench = held_out_cost(
        network,
        shards,
        frames,
        [name for name in ("test", "validation") if tested or name != "test"],
        batch_size=evaluation_batch(recipe.train),
        device=device,
    )
    if test is not None:
        run.write_predictions(shards.split("test").keys, test.labels, test.logits, shards.classes)
    return {
        "schema": SCHEMA,
        "method": recipe.train.method,
        "recipe_name": recipe.name,
        "recipe": recipe.tables(),
        "changed_by_method": dict(changed),
        "shard_set": state.shard_set,
        "contents": state.contents,
        "dataset": shards.settings["dataset"],
        "frames": frames_of(shards.settings, shards.manifest),
        "simulated": bool(shards.simulated),
        "protocol": shards.settings["protocol"],
        "selection": selection,
        "selection_split": selection_split,
        "tested": tested,
        "best_epoch": best_epoch,
        "epochs": state.epoch,
        "steps": state.step,
        **split_scores(best, last),
        "classes": list(shards.classes),
        "confusion": test.confusion() if test else None,
        "firing_rates": test.firing_rates if test else None,
        "samples": {"train": train_samples, **{name: len(split) for name, split in frames.items()}},
        "static_images": static_images,
        "parameters": sum(p.numel() for p in network.parameters()),
        "seed": recipe.train.seed,
        "device": str(device),
        "threads": state.threads,
        "processes": state.processes,
        "torch": str(torch.__version__),
        "environment": describe_environment(device),
        "weights_sha256": {path.stem: checkpoints.tensors_sum(path) for path in (run.best, run.last)},
        "training_seconds": state.seconds,
        "training_cpu_seconds": state.cpu_seconds,
        "energy_nj": energy_nj,
        "neurobench": neurobench,
    }


def _final_scores(trainer: Trainer, *, test: bool) -> dict[str, Scores | None]:
    # A stop needs no commit here: the last epoch is committed. `evaluate` scores with as many threads.
    with same_threads(trainer.state.threads):
        return {
            name: trainer.score(frames, trainer.stop.check) if test or name != "test" else None
            for name, frames in trainer.frames.items()
        }
