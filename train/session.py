"""One process's work on a run: epochs, validation, checkpoints, and the result at the end.

Axes: T time, B batch, K classes.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from models import TransferNetwork
from train import checkpoints
from train.batches import Batch, Frames, TrainingBatches
from train.diagnosis import require_finite, require_finite_weights
from train.evaluation import Scores, evaluation_batch, score, split_frames
from train.methods import Method, find_method
from train.networks import make_network, make_optimizer, network_arguments
from train.recalibration import recalibrate
from train.recipes import Recipe
from train.records import Best, EpochSums, Position
from train.runs import RunFolder
from train.schedules import learning_rate
from train.settings import TrainSettings

log = logging.getLogger(__name__)

SELECTION = {
    "validation": "highest validation accuracy, then lowest validation loss, then earliest epoch",
    "test": "highest TEST accuracy, then lowest test loss, then earliest epoch (legacy protocol: optimistic)",
    None: "last epoch (the validation split is empty)",
}
"""How `best` is chosen, by the split that it is chosen on."""


def selection_split(shards: Any, validation_samples: int) -> str | None:
    """The split that chooses the best epoch; says aloud when it is not the validation split."""
    if shards.settings["protocol"] == "legacy":
        log.warning(
            "protocol legacy: the best epoch is chosen on the TEST split, as published; accuracies are optimistic"
        )
        return "test"
    if not validation_samples:
        log.warning("%s: the validation split is empty; the last epoch is used", shards.path)
        return None
    return "validation"


class Session:
    """One process's work on a run: network, optimiser, data, and the position.

    Args:
        shards: an open shard set.
        settings: the `[train]` table.
        run: the claimed run folder.
        device: where to compute.
        residence: where event frames are kept.
    """

    def __init__(
        self, shards: Any, settings: TrainSettings, run: RunFolder, *, device: torch.device, residence: str = "auto"
    ) -> None:
        method = find_method(settings.method)
        self.shards, self.settings, self.run, self.device = shards, settings, run, device
        self.data = TrainingBatches(
            shards, settings, device=device, needs_static=method.needs_static, residence=residence
        )
        self.steps = settings.epochs * self.data.steps_per_epoch
        self.method: Method = method(settings, steps=self.steps)
        self.network = make_network(network_arguments(settings, shards), seed=settings.seed).to(device)
        self.optimizer = make_optimizer(self.network, settings)
        self.selection = selection_split(shards, len(shards.split("validation")))
        # A split that is scored once or twice, at the end, is not worth the memory.
        self.frames = {
            name: split_frames(shards, name, residence=residence if name == self.selection else "disk")
            for name in ("validation", "test")
        }
        self.at = Position(shard_set=shards.id, threads=torch.get_num_threads())

    def restore(self) -> None:
        """Go to the last checkpoint, or make the one before the first step."""
        state = checkpoints.read_state(self.run.checkpoint)
        if state is None:
            self.run.cut_metrics(0)
            self._commit()
            return
        self.at = Position.from_json(state)
        if self.at.threads != torch.get_num_threads():
            log.warning(
                "this run began with %d CPU threads and continues with %d: the last bits may differ",
                self.at.threads,
                torch.get_num_threads(),
            )
        checkpoints.restore_checkpoint(self.run.checkpoint, state, self.network, self.optimizer)
        self.run.cut_metrics(self.at.metrics_bytes)
        if self.at.best is not None and self.at.best.epoch == self.at.epoch:
            self._write_weights(self.run.best)  # killed between the commit and this file, it would be missing

    def run_epoch(self, bar: Any) -> None:
        """Train one epoch, validate, log, commit."""
        started = time.perf_counter()
        epoch, settings = self.at.epoch, self.settings
        rate = learning_rate(
            epoch,
            settings.epochs,
            lr=settings.lr,
            schedule=settings.schedule,
            warmup_epochs=settings.warmup_epochs,
            warmup_lr=settings.warmup_lr,
            lr_min=settings.lr_min,
            milestones=settings.milestones,
            lr_decay=settings.lr_decay,
        )
        self.method.begin_epoch(self.network, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums = EpochSums(self.shards.sample_shape[0], self.device)
        self.network.train()
        for index in range(self.data.steps_per_epoch):
            step = epoch * self.data.steps_per_epoch + index
            self._step(self.data.batch(epoch, index), step, sums)
            bar.update(1)
        require_finite_weights(self.network, step=step)
        trained_seconds = time.perf_counter() - started
        means = sums.means()
        line = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.data.steps_per_epoch,
            "lr": rate,
            "replacement_probability": self.method.replacement_probability(step),
            **means,
            "coefficients": self.network.coefficients.tolist(),
        }
        scores = self._validate(epoch + 1)
        name = self.selection or "validation"
        line |= {
            "validation_accuracy": None,
            "validation_loss": None,
            f"{name}_accuracy": scores.accuracy if scores else None,
            f"{name}_loss": scores.loss if scores else None,
            "firing_rates": scores.firing_rates if scores else None,
            "samples_per_second": len(self.data) / trained_seconds,
            "seconds": time.perf_counter() - started,
        }
        improved = scores is not None and (self.at.best is None or self.at.best.beaten_by(scores.accuracy, scores.loss))
        self.at.metrics_bytes = self.run.append_metrics(line)
        self.at.epoch, self.at.step = epoch + 1, line["step"]
        self.at.seconds += line["seconds"]
        if improved and scores is not None:
            self.at.best = Best(epoch + 1, scores.accuracy, scores.loss)
        self._commit()
        if improved:
            self._write_weights(self.run.best)
        shown = {"loss": f"{means['loss_total']:.3f}"} | ({name: f"{scores.accuracy:.3f}"} if scores else {})
        bar.set_postfix(shown)

    def _step(self, batch: Batch, step: int, sums: EpochSums) -> None:
        """Forward, loss, backward, update."""
        static, event = self.method.streams(batch, step)
        out = self.network(static, event, dropout_seeds=batch.dropout_seeds)
        loss = self.method.loss(out, batch, self.network.coefficients)
        require_finite(loss, self.network, (static, event), step=step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        self.optimizer.step()
        sums.add(loss, out.event_logits, batch.labels)

    def _validate(self, epoch: int) -> Scores | None:
        """Score the selection split after `epoch` epochs, where it is due."""
        due = epoch % self.settings.validate_every == 0 or epoch == self.settings.epochs
        if due and self.settings.recalibrate:
            batch_size = evaluation_batch(self.settings)
            recalibrate(self.network, self.data.frames, batch_size=batch_size, device=self.device)
        if self.selection is None or not due:
            return None
        return self._score(self.frames[self.selection], self.network)

    def _score(self, frames: Frames, network: TransferNetwork) -> Scores | None:
        return score(network, frames, batch_size=evaluation_batch(self.settings), device=self.device)

    def _commit(self) -> None:
        checkpoints.save_checkpoint(self.run.checkpoint, self.network, self.optimizer, asdict(self.at))

    def _write_weights(self, path: Path) -> None:
        description = {
            "network": json.dumps(self.network.config),
            "epoch": str(self.at.epoch),
            "shard_set": self.at.shard_set,
        }
        checkpoints.write_weights(path, checkpoints.weights_of(self.network), description)

    def result(self, recipe: Recipe) -> dict[str, Any]:
        """Write weights and predictions; score the test split with `best` and with `last`, and put it all together."""
        self._write_weights(self.run.last)
        last = {name: self._score(frames, self.network) for name, frames in self.frames.items()}
        best_epoch = self.at.best.epoch if self.at.best else self.at.epoch
        if best_epoch == self.at.epoch:
            self._write_weights(self.run.best)
            best = last
        else:
            weights, _ = checkpoints.read_weights(self.run.best)
            self.network.load_state_dict(weights)
            best = {name: self._score(frames, self.network) for name, frames in self.frames.items()}
        test, classes = best["test"], self.shards.classes
        if test is None:
            log.warning("%s: the test split is empty; no test accuracy", self.shards.path)
        else:
            self.run.write_predictions(self.shards.split("test").keys, test.labels, test.logits, classes)
        return {
            "schema": 1,
            "method": self.settings.method,
            "recipe_name": recipe.name,
            "recipe": recipe.tables(),
            "shard_set": self.shards.id,
            "dataset": self.shards.settings["dataset"],
            "simulated": bool(self.shards.simulated),
            "protocol": self.shards.settings["protocol"],
            "selection": SELECTION[self.selection],
            "selection_split": self.selection,
            "best_epoch": best_epoch,
            "epochs": self.at.epoch,
            "steps": self.at.step,
            **_figures("", best),
            **_figures("last_", last),
            "classes": list(classes),
            "confusion": test.confusion() if test else None,
            "firing_rates": test.firing_rates if test else None,
            "samples": {"train": len(self.data), **{name: len(frames) for name, frames in self.frames.items()}},
            "static_images": self.data.pool_images,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "seed": self.settings.seed,
            "device": str(self.device),
            "threads": self.at.threads,
            "torch": str(torch.__version__),
            "training_seconds": self.at.seconds,
        }


def _figures(prefix: str, scores: dict[str, Scores | None]) -> dict[str, float | None]:
    """Accuracy and loss of validation and test, None where a split is empty."""
    figures: dict[str, float | None] = {}
    for name, found in scores.items():
        figures[f"{prefix}{name}_accuracy"] = found.accuracy if found else None
        figures[f"{prefix}{name}_loss"] = found.loss if found else None
    return figures
