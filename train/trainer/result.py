"""Finishes a run: writes weights and predictions, and builds the content of result.json."""

from __future__ import annotations

import logging

import torch

from spikebridge.train.config.recipes import Recipe
from spikebridge.train.config.settings import evaluation_batch
from spikebridge.train.evaluation.energy import held_out_energy_nj
from spikebridge.train.evaluation.score import Scores, split_scores
from spikebridge.train.networks.precision import tf32
from spikebridge.train.runs import checkpoints
from spikebridge.train.runs.result import RunResult
from spikebridge.train.trainer.epochs import SELECTION, Trainer

log = logging.getLogger(__name__)


def build_result(trainer: Trainer, recipe: Recipe) -> RunResult:
    """Write weights and predictions; score the test split with `best` and with `last`, and put it all together.

    Args:
        trainer: trained to its last epoch, which is committed; its network holds the best weights afterwards.
        recipe: of the run.

    Returns:
        result.json, but for what the caller knows: the weights it began from and the backend.

    Raises:
        RunStoppedError: asked to stop; the run can be finished later.
        RunError: a file cannot be written.
    """
    run, state, shards = trainer.run, trainer.state, trainer.shards
    checkpoints.write_atomic(run.last, trainer.encode_weights())
    last = _final_scores(trainer)
    best_epoch = state.best.epoch if state.best else state.epoch
    if best_epoch == state.epoch:
        checkpoints.write_atomic(run.best, trainer.encode_weights())
        best = last
    else:
        assert trainer.best_weights is not None
        checkpoints.write_atomic(run.best, trainer.best_weights)
        weights, _ = checkpoints.read_weights(run.best)
        trainer.network.load_state_dict(weights)
        best = _final_scores(trainer)
    test, classes = best["test"], shards.classes
    if test is None:
        log.warning("%s: the test split is empty; no test accuracy", shards.path)
    else:
        run.write_predictions(shards.split("test").keys, test.labels, test.logits, classes)
    return {
        "schema": 1,
        "method": trainer.settings.method,
        "recipe_name": recipe.name,
        "recipe": recipe.tables(),
        "changed_by_method": trainer.changed,
        "shard_set": state.shard_set,
        "contents": state.contents,
        "dataset": shards.settings["dataset"],
        "simulated": bool(shards.simulated),
        "protocol": shards.settings["protocol"],
        "selection": SELECTION[trainer.selection],
        "selection_split": trainer.selection,
        "best_epoch": best_epoch,
        "epochs": state.epoch,
        "steps": state.step,
        **split_scores(best, last),
        "classes": list(classes),
        "confusion": test.confusion() if test else None,
        "firing_rates": test.firing_rates if test else None,
        "samples": {"train": len(trainer.data), **{name: len(frames) for name, frames in trainer.frames.items()}},
        "static_images": trainer.data.pool_images,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "seed": trainer.settings.seed,
        "device": str(trainer.device),
        "precision": trainer.train_step.precision.name,
        "tf32": tf32(trainer.device),
        "threads": state.threads,
        "processes": state.processes,
        "torch": str(torch.__version__),
        "training_seconds": state.seconds,
        "training_cpu_seconds": state.cpu_seconds
        if trainer.device.type == "cpu" and trainer.distributed.world_size == 1
        else None,
        "energy_nj": held_out_energy_nj(
            trainer.network,
            (trainer.frames["test"], trainer.frames["validation"]),
            batch_size=evaluation_batch(trainer.settings),
            device=trainer.device,
        ),
    }


def _final_scores(trainer: Trainer) -> dict[str, Scores | None]:
    def on_batch() -> None:
        if trainer.stop.signal:
            raise trainer.stop.error()  # the last epoch is committed

    return {name: trainer.score(frames, on_batch) for name, frames in trainer.frames.items()}
