"""The work of one process on a run: epochs, validation and checkpoints; `train.trainer.result` finishes it.

Axes: T time, B batch, K classes.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

import torch
from torch import Tensor

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.settings import TrainSettings, evaluation_batch
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.data.frames import Frames
from spikebridge.train.errors import RunError
from spikebridge.train.evaluation.adaptation import adapt_and_score, prior_of, warn_without_norms
from spikebridge.train.evaluation.recalibration import recalibrate
from spikebridge.train.evaluation.score import Scores, split_frames
from spikebridge.train.methods import Method, find_method
from spikebridge.train.networks.build import (
    encode_network,
    make_network,
    make_optimizer,
    network_arguments,
    set_learning_rate,
)
from spikebridge.train.runs import checkpoints
from spikebridge.train.runs.checkpoints import CheckpointInterval
from spikebridge.train.runs.environment import describe_environment
from spikebridge.train.runs.folder import RunFolder
from spikebridge.train.runs.state import Best, EpochSums, TrainState
from spikebridge.train.schedules import learning_rate
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer.averaging import WeightAverage
from spikebridge.train.trainer.cuda_graph import CudaGraphStep, DeviceStep, why_not_capturable
from spikebridge.train.trainer.distributed import Distributed
from spikebridge.train.trainer.finite import FiniteWatch, FiringWatch, require_finite_weights
from spikebridge.train.trainer.memory import explain_out_of_memory, is_out_of_memory
from spikebridge.train.trainer.progress import Board, ProgressDisplay
from spikebridge.train.trainer.step import TrainStep

log = logging.getLogger(__name__)

SELECTION = {
    "validation": "highest validation accuracy, then lowest validation loss, then earliest epoch",
    "test": "highest TEST accuracy, then lowest test loss, then earliest epoch (optimistic)",
    "last": "last epoch, by no label",
    None: "last epoch (the validation split is empty)",
}
"""How `best` is chosen, by the split that it is chosen on, or setting `last`."""


def selection_split(shards: ShardSet, validation_samples: int, selection: str) -> str | None:
    """Return the split that selects the best epoch, if any; warns when it is not validation."""
    if selection == "last":
        return None
    if shards.settings["protocol"] == "legacy":
        log.warning(
            "protocol legacy: the best epoch is chosen on the TEST split, as published; accuracies are optimistic"
        )
        return "test"
    if shards.settings["protocol"] == "leaky":
        log.warning(
            "protocol LEAKY: static images of held-out recordings are in the pool; no accuracy here is a result"
        )
        if selection == "test":
            return "test"
    if not validation_samples:
        log.warning("%s: the validation split is empty; the last epoch is used", shards.path)
        return None
    return "validation"


class Trainer:
    """Trains a network epoch by epoch, in one process: network, optimiser, data and state.

    Arguments are as in `train.trainer.run.train`, `contents` as in `runs.contents_id`. Rank 0 alone writes to the run
    folder; a stop is looked for after every step.
    """

    def __init__(
        self,
        shards: ShardSet,
        settings: TrainSettings,
        run: RunFolder,
        *,
        device: torch.device,
        residence: str = "auto",
        graph: bool = True,
        distributed: Distributed | None = None,
        checkpoint_interval: CheckpointInterval | None = None,
        stop: StopRequest | None = None,
        contents: str = "",
        trust: bool = False,
    ) -> None:
        method = find_method(settings.method)
        recipe, settings = asdict(settings), method.complete(settings)
        self.changed = {name: value for name, value in asdict(settings).items() if recipe[name] != value}
        """Settings that the method has changed from the recipe's, with the method's value."""
        self.shards, self.settings, self.run, self.device = shards, settings, run, device
        self.distributed, self.stop = distributed or Distributed(), stop or StopRequest()
        self.checkpoint_interval = checkpoint_interval or CheckpointInterval()
        self.data = TrainingBatches(
            shards,
            settings,
            device=device,
            needs_static=method.needs_static,
            draw_from_pool=method.draw_from_pool,
            unlabelled=method.unlabelled,
            residence=residence,
        )
        self.steps = settings.epochs * self.data.steps_per_epoch
        self.method: Method = method(settings, steps=self.steps)
        self.method.trust = trust
        self.network = make_network(network_arguments(settings, shards), seed=settings.seed).to(device)
        self.method.attach(self.network, self.data)
        for module in self.method.modules.values():
            module.to(device)
        self.optimizer = make_optimizer(self.network, settings, self.method.modules.values(), device=device)
        self.train_step = TrainStep(
            self.network, self.optimizer, self.method, self.data, settings, self.distributed, device
        )
        self.selection = selection_split(shards, len(shards.split("validation")), settings.selection)
        # A split that is scored once or twice, at the end, is not worth the memory.
        self.frames = {
            name: split_frames(shards, name, residence=residence if name == self.selection else "disk", device=device)
            for name in ("validation", "test")
        }
        self.state = TrainState(
            shard_set=shards.id,
            threads=torch.get_num_threads(),
            contents=contents,
            processes=self.distributed.world_size,
            precision=self.train_step.precision.name,
        )
        self.sums = EpochSums(shards.sample_shape[0], device, self.method.terms)
        self.finite = FiniteWatch(self.network, device)
        self.average = WeightAverage(self.network, settings.weight_average) if settings.weight_average else None
        self.scored = self.network if self.average is None else self.average.network
        """The network that is validated, tested and kept."""
        self.graph_step: DeviceStep | None = None
        obstacle = why_not_capturable(self.data, method, settings, self.distributed, device)
        if obstacle and graph and device.type == "cuda" and self.distributed.is_main:
            log.info("steps are not recorded as CUDA graphs: %s", obstacle)
        if graph and obstacle is None:
            self.graph_step = CudaGraphStep(
                self.train_step, self.sums, self.finite, batch_size=settings.batch_size, device=device
            )
        self.firing = FiringWatch()
        self.boards: list[Board] = []
        self.best_weights: bytes | None = None
        """Weights file of the best epoch."""
        self._committed = (-1, -1)
        self._clock = 0.0, 0.0
        """Readings of clock and processor at which the epoch would have begun without an interruption."""
        self._commit_ended, self._commit_cost = time.monotonic(), 0.0
        if settings.adapt_normalization and self.distributed.is_main:
            warn_without_norms(self.network, settings.model)
        if self.changed and self.distributed.is_main:
            log.info("%s: %s", settings.method, ", ".join(f"{name} = {value}" for name, value in self.changed.items()))

    def restore(self) -> None:
        """Restore the last checkpoint, or begin before the first step; rank 0 reads and broadcasts."""
        folder = self.run.checkpoint
        saved = self.distributed.on_main(self.run.open_checkpoint)
        self._prepare_method()
        if saved is None:
            if self.distributed.is_main:
                self.run.truncate_metrics(0)
            return
        self.state = TrainState.from_json(saved)
        self._warn_of_changes()
        path = folder / saved["tensors"]
        content = checkpoints.read_file(path) if self.distributed.is_main else None
        tensors = checkpoints.read_tensors(self.distributed.broadcast_bytes(content), source=path)
        checkpoints.restore_checkpoint(tensors, self.network, self.optimizer, self.method.modules, source=path)
        self.train_step.precision.restore(tensors)
        if self.average is not None:
            self.average.restore(tensors)
        rows = tensors.get("sums")
        if rows is None or rows.shape[1:] != self.sums.vector.shape:
            raise RunError(f"{path}: holds no sums of this run's epoch; start again with --overwrite")
        if len(rows) == self.distributed.world_size:
            self.sums.vector.copy_(rows[self.distributed.rank])
        elif self.distributed.is_main:
            self.sums.vector.copy_(rows.sum(0))
        self._committed = (self.state.epoch, self.state.step)
        if self.distributed.is_main:
            self.run.truncate_metrics(self.state.metrics_bytes)
            if self.state.epoch:
                self.run.write_table()
            if saved["best_tensors"] is not None:
                self.best_weights = checkpoints.read_file(folder / saved["best_tensors"])

    def _prepare_method(self) -> None:
        """Give the method its fixed tensors: read them, or let rank 0 make and write them where there are none.

        What was made from another shard set is made again; an interrupted preparation starts again.
        """
        path, contents = self.run.prepared, self.state.contents

        def make() -> None:
            if path.exists() and checkpoints.read_weights(path)[1].get("contents") == contents:
                return
            path.unlink(missing_ok=True)
            if tensors := self.method.prepare(self.data, self.device, self.stop.check):
                made = json.dumps(describe_environment(self.device))
                described = {"method": self.settings.method, "contents": contents, "environment": made}
                checkpoints.write_weights(path, tensors, described)

        self.distributed.on_main(make)
        content = checkpoints.read_file(path) if self.distributed.is_main and path.exists() else b""
        if content := self.distributed.broadcast_bytes(content):
            self.method.restore(checkpoints.read_tensors(content, source=path), self.device)

    def _warn_of_changes(self) -> None:
        began, computes = self.state.precision, self.train_step.precision.name
        if began and began != computes:
            log.warning("this run began in %s and continues in %s: it may differ", began, computes)
        for word, before, now in (
            ("CPU threads", self.state.threads, torch.get_num_threads()),
            ("processes", self.state.processes, self.distributed.world_size),
        ):
            if before != now:
                differs = "the last bits" if word == "CPU threads" or self.settings.synchronize else "it"
                log.warning(
                    "this run began with %d %s and continues with %d: %s may differ", before, word, now, differs
                )

    def run_epoch(self, display: ProgressDisplay) -> None:
        """Train what is left of one epoch, validate, log, and commit where that is due.

        Raises:
            RunStoppedError: asked to stop, after a commit.
        """
        epoch, settings, steps = self.state.epoch, self.settings, self.data.steps_per_epoch
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
        set_learning_rate(self.optimizer, rate)
        self.network.train()
        self._clock = time.perf_counter() - self.state.epoch_seconds, time.process_time() - self.state.epoch_cpu_seconds
        for index in range(self.state.step - epoch * steps, steps):
            self._step(index)
            if self.average is not None:
                self.average.update(self.state.step)
            self.state.step += 1
            self._record_time()
            display.advance()
            if display.is_due:
                display.show(
                    self.sums.means(self.sums.vector[None].cpu()),
                    replacement=self.method.replacement_probability(self.state.step - 1),
                )
            self._commit_or_stop()
        rows = self._gather_sums()
        validated = time.perf_counter(), time.process_time()
        self.distributed.on_main(lambda: self._end_epoch(rate, rows, validated, display))
        if not self.distributed.is_main:
            self.state.epoch, self.state.epoch_seconds, self.state.epoch_cpu_seconds = epoch + 1, 0.0, 0.0
        self.sums.vector.zero_()
        last = self.state.epoch == settings.epochs
        if self.distributed.all_reduce_max(int(last or self._checkpoint_due()))[0]:
            self._commit(self.distributed.gather_rows(self.sums.vector))

    def _record_time(self) -> None:
        """Count the time since the epoch's first step, the sessions before this one included."""
        wall, processor = self._clock
        self.state.epoch_seconds = time.perf_counter() - wall
        self.state.epoch_cpu_seconds = time.process_time() - processor

    def _gather_sums(self) -> Tensor:
        """Gather `EpochSums` of all processes on the CPU; waits for the device, whose time counts."""
        rows = self.distributed.gather_rows(self.sums.vector)
        self._record_time()
        return rows

    def _end_epoch(self, rate: float, rows: Tensor, started: tuple[float, float], display: ProgressDisplay) -> None:
        """Validate and log the epoch, on rank 0; `started` are the times of clock and processor."""
        step = self.state.step - 1
        self._require_finite(step)
        scores, rates = self._validate(self.state.epoch + 1, rows)
        seconds = self.state.epoch_seconds + time.perf_counter() - started[0]
        cpu_seconds = self.state.epoch_cpu_seconds + time.process_time() - started[1]
        means, name = self.sums.means(rows), self.selection or "validation"
        line = {
            "epoch": self.state.epoch + 1,
            "step": self.state.step,
            "lr": rate,
            "replacement_probability": self.method.replacement_probability(step),
            **means,
            "coefficients": self.scored.coefficients.tolist(),
            "validation_accuracy": None,
            "validation_loss": None,
            f"{name}_accuracy": scores.accuracy if scores else None,
            f"{name}_loss": scores.loss if scores else None,
            "firing_rates": rates,
            "samples_per_second": len(self.data) / self.state.epoch_seconds,
            "seconds": seconds,
        }
        self.state.metrics_bytes = self.run.append_metrics(line)
        self.state.epoch += 1
        self.state.seconds += seconds
        if self.state.cpu_seconds is not None:
            self.state.cpu_seconds += cpu_seconds
        self.state.epoch_seconds = self.state.epoch_cpu_seconds = 0.0
        best = self.state.best
        if scores is not None and (best is None or best.is_beaten_by(scores.accuracy, scores.loss)):
            self.state.best = Best(self.state.epoch, scores.accuracy, scores.loss)
            self.best_weights = self.encode_weights()
        if rates:
            where = f"the {self.selection} recordings" if self.selection else "a training batch"
            self.firing.warn(rates, epoch=self.state.epoch, step=self.state.step, where=where)
        display.set_scores(name, scores.accuracy if scores else None, rates)
        display.show(means, replacement=line["replacement_probability"])
        for board in self.boards:
            board.add(line)

    def _step(self, index: int) -> None:
        """Update the network with batch `index` of the epoch.

        Raises:
            NonFiniteError: see `finite.FiniteWatch`.
            DeviceMemoryError: the batch does not fit.
        """
        train_step, epoch, step = self.train_step, self.state.epoch, self.state.step
        try:
            if self.graph_step is not None and self.graph_step.takes(index):
                return self.graph_step.step(epoch, index, step)
            return train_step.step(epoch, index, step, sums=self.sums, finite=self.finite)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # leave this block first: the traceback keeps the step's tensors alive
        self.optimizer.zero_grad(set_to_none=True)

        def attempt(size: int) -> None:
            train_step.try_step(epoch, index, step, samples=size)

        raise explain_out_of_memory(
            attempt if self.distributed.world_size == 1 else None,
            samples=sum(self.data.sizes(index)),
            parts=self.settings.accumulate,
            step=step,
        )

    def _checkpoint_due(self) -> bool:
        elapsed = time.monotonic() - self._commit_ended
        return self.distributed.is_main and self.checkpoint_interval.is_due(
            step=self.state.step, elapsed=elapsed, cost=self._commit_cost
        )

    def _commit_or_stop(self) -> None:
        """Commit where that is due, and stop where that was asked of any process."""
        ended = self.state.step % self.data.steps_per_epoch == 0  # the epoch's own commit comes soon
        stop, due = self.distributed.all_reduce_max(self.stop.signal, int(not ended and self._checkpoint_due()))
        if stop or due:
            self._commit(self._gather_sums())
        if stop:
            raise self.stop.error(stop)

    def _validate(self, epoch: int, rows: Tensor) -> tuple[Scores | None, dict[str, float] | None]:
        """Score the selection split after `epoch` epochs, where that is due; return scores and firing rates."""
        if epoch % self.settings.validate_every and epoch != self.settings.epochs:
            return None, None
        if self.settings.recalibrate:
            batch_size = evaluation_batch(self.settings)
            with self._scoring_memory():
                recalibrate(self.scored, self.data.frames, batch_size=batch_size, device=self.device)

        def on_batch() -> None:
            if self.stop.signal:
                self._commit(rows)
                raise self.stop.error()

        if self.selection is None:
            return None, self._batch_firing_rates()
        scores = self.score(self.frames[self.selection], on_batch)
        return scores, scores.firing_rates if scores else None

    @torch.no_grad()
    def _batch_firing_rates(self) -> dict[str, float]:
        """Return firing rates over the epoch's first training batch, to find dead layers where no split is scored."""
        events = self.data.batch(self.state.epoch, 0).events
        training = self.scored.training
        self.scored.eval()
        self.scored.record_firing_rates = True
        try:
            return {layer: float(rate) for layer, rate in self.scored(None, events).firing_rates.items()}
        finally:
            self.scored.record_firing_rates = False
            self.scored.train(training)

    def score(self, frames: Frames, on_batch: Callable[[], None]) -> Scores | None:
        """Score the network as it is, or adapted where the recipe says so; see `evaluation.adaptation`."""
        with self._scoring_memory():
            return adapt_and_score(
                self.scored,
                frames,
                prior=prior_of(self.settings),
                batch_size=evaluation_batch(self.settings),
                device=self.device,
                on_batch=on_batch,
            )

    def _scoring_memory(self) -> AbstractContextManager[None]:
        """Return what gives a scoring the memory of the recorded steps, where there are any."""
        return nullcontext() if self.graph_step is None else self.graph_step.idle_memory()

    def _require_finite(self, step: int) -> None:
        """Raise for a loss or weight that is not finite: nothing is written of a broken network."""
        self.finite.raise_if_broken(step=step)
        for module in dict.fromkeys((self.network, self.scored, *self.method.modules.values())):
            require_finite_weights(module, step=step)

    def _commit(self, rows: Tensor) -> None:
        """Write a checkpoint with the `EpochSums` of all processes; rank 0 alone writes."""
        if not self.distributed.is_main or self._committed == (self.state.epoch, self.state.step):
            return
        started = time.monotonic()
        self._require_finite(self.state.step - 1)
        self.run.sync_metrics()
        tensors = {**checkpoints.collect_tensors(self.network, self.optimizer, self.method.modules), "sums": rows}
        tensors |= self.train_step.precision.tensors() | (self.average.tensors() if self.average else {})
        best = None
        if self.state.best is not None and self.best_weights is not None:
            best = self.state.best.epoch, self.best_weights
        if self.state.epoch != max(0, self._committed[0]):
            self.run.write_table()
        files = self.run.committed_sums(self.state.metrics_bytes)
        checkpoints.save_checkpoint(self.run.checkpoint, tensors, asdict(self.state), best=best, files=files)
        self._committed = (self.state.epoch, self.state.step)
        self._commit_ended = time.monotonic()
        self._commit_cost = self._commit_ended - started

    def encode_weights(self) -> bytes:
        """Encode the weights that are scored as they are now, as a run keeps them."""
        made = json.dumps(describe_environment(self.device))
        return encode_network(self.scored, epoch=self.state.epoch, shard_set=self.state.shard_set, environment=made)
