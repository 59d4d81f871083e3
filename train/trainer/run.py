"""One run from recipe to result."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from spikebridge.models import backends
from spikebridge.pipeline.base.files import real_path
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.profile import AUTO
from spikebridge.train.config.recipes import Recipe
from spikebridge.train.data.order import batch_count, training_recordings
from spikebridge.train.errors import NonFiniteError, RunError, RunStoppedError
from spikebridge.train.evaluation.evaluate import open_shards
from spikebridge.train.methods import find_method
from spikebridge.train.networks.allocator import keep_freed_memory
from spikebridge.train.networks.build import choose_device, require_backend
from spikebridge.train.networks.initial_weights import (
    read_start,
    record_start,
    recorded_start,
    require_same_start,
    start_from,
)
from spikebridge.train.runs.checkpoints import CheckpointInterval
from spikebridge.train.runs.folder import RunFolder, contents_id, open_run, require_shards
from spikebridge.train.runs.result import RunResult
from spikebridge.train.runs.tracking import TrackedRun, require_tracker, tell_rest
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer.distributed import Distributed, init_distributed, local_device
from spikebridge.train.trainer.epochs import Trainer
from spikebridge.train.trainer.progress import Board, NullProgress, ProgressDisplay, TensorBoard, require_tensorboard
from spikebridge.train.trainer.result import finish_training

log = logging.getLogger(__name__)

Progress = Callable[..., Any]
"""Called as tqdm is, with total, initial, desc, unit and bar_format; gives what has update, set_postfix and close."""
BAR = "{desc} {percentage:3.0f}%|{bar:8}| {n_fmt}/{total_fmt}{postfix}"
"""A short bar: what it says besides has the time left, and is cut at the end of the terminal's line."""


def train(
    shards: ShardSet | str | Path,
    recipe: Recipe,
    run_dir: str | Path,
    *,
    device: str = "auto",
    expect: str | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    residence: str = "auto",
    graph: bool = True,
    checkpoint_every: str = "10s",
    stop: StopRequest | None = None,
    tensorboard: bool = False,
    track: Sequence[str] = (),
    init: str | Path | None = None,
    backend: str = "auto",
    test: bool = True,
    trust: bool = False,
) -> RunResult:
    """Train, validate after each epoch, score the test split once; continue an unfinished run, return a finished one.

    On the CPU, and with the same number of threads, an interrupted run ends with the same bits as an uninterrupted one,
    whichever step it was interrupted at. Under torchrun the processes train together, see `train.trainer.step`.

    Args:
        shards: shard set, open or as a path; nothing is written to it.
        recipe: what to do.
        run_dir: the run folder, new or of the same run; its layout is described in `train.runs.folder`.
        device: `auto` (CUDA when present), `cpu`, `cuda` or `cuda:N`.
        expect: refuse a shard set with another ID (at least 12 digits of it).
        progress: a tqdm-like callable; silent without.
        overwrite: start again when the folder holds a run.
        residence: where event frames are kept, `auto` (by size), `device` (the static pool too), `host` or `disk`; the
            batches are the same.
        graph: record each step as one CUDA graph where that can be: frames on the device, one process, whole batches, a
            method that allows it. See `train.trainer.cuda_graph`.
        checkpoint_every: `30s` or `10m` (least time between two commits, and at most 5 % of the run), or `500` (steps);
            what is lost when the process is killed.
        stop: end after the step during which a signal arrives, see `train.signals`.
        tensorboard: write the figures of metrics.jsonl to RUN/tensorboard too.
        track: trackers that are told every epoch and the result, of `train.runs.tracking`.
        init: begin with the best weights of this finished run, where they fit; see `train.networks.initial_weights`.
        backend: what computes the neurons, `auto`, `numba`, `triton` or `torch`; see `models.backends`.
        test: score the test split at the end; without, no figure of it is in the result.
        trust: open the torch.export program that the recipe names as `teacher`, which can run any code.

    Returns:
        The content of result.json.

    Raises:
        ShardMismatchError: the shard set is not the recipe's, the run's or the expected one.
        RunError: the folder holds another run or no run, is in use by another process, or cannot be written.
        RunStoppedError: `stop` was asked; the checkpoint is written.
        DeviceMemoryError: a batch does not fit; says what does.
        DistributedError: another process gave up.
        ReportError: TensorBoard or a tracker asked for and absent.
        MethodError: the method cannot work with this shard set.
        DeviceError: no such device.
        NetworkError: `init` holds another architecture, or `backend` cannot compute the neurons here.
        NonFiniteError: a loss became NaN or infinite; the run folder says so from then on.
        KeyboardInterrupt: passed on; the last checkpoint is safe.
    """
    if tensorboard:
        require_tensorboard()
    for name in track:
        require_tracker(name)
    checkpoint_interval = CheckpointInterval.parse(checkpoint_every)
    shards = require_shards(open_shards(shards), recipe.shards, expect=expect)
    if not test and (shards.settings["protocol"] == "legacy" or recipe.train.selection == "test"):
        raise RunError(
            f"{shards.path}: the test split is not to be scored, but it chooses the best epoch (protocol "
            f"{shards.settings['protocol']}); leave --no-test out, or train on a set of protocol strict"
        )
    run = RunFolder(run_dir)
    if real_path(run.path).is_relative_to(real_path(shards.path)):
        raise RunError(f"{run.path} lies inside the shard set {shards.path}, which is read only; choose another folder")
    target = choose_device(local_device(device))
    if target.type == "cpu":
        keep_freed_memory()
    start = None if init is None else read_start(init)
    with init_distributed(target) as distributed, backends.use(backend), backends.record() as ran:
        contents, recipe = contents_id(shards), with_least_steps(recipe, shards)
        if not find_method(recipe.train.method).simulates:
            recipe = replace(recipe, camera="")
        elif recipe.train.simulation == AUTO:
            recipe = _with_camera(recipe, shards, run, distributed, overwrite=overwrite, progress=progress)

        def status() -> str:
            state = run.status(recipe, shards.id, contents=contents, overwrite=overwrite)
            require_same_start(run, start, state)
            return state

        def finished_already() -> RunResult:
            log.info("%s is finished already", run.path)
            for name in track:
                tell_rest(run, name)
            return open_run(run.path)[1]

        if distributed.on_main(status) == "finished":
            return distributed.on_main(finished_already)
        trainer = Trainer(
            shards,
            recipe.train,
            run,
            device=target,
            residence=residence,
            graph=graph,
            distributed=distributed,
            checkpoint_interval=checkpoint_interval,
            stop=stop,
            contents=contents,
            trust=trust,
        )
        require_backend(trainer.network, precision=trainer.train_step.precision.name, device=target)
        began = start_from(start, trainer.network, shards.classes) if start else None  # a checkpoint replaces it
        with contextlib.ExitStack() as cleanup:

            def claim() -> str:
                cleanup.enter_context(run.lock())
                state = status()  # another process may have worked here since
                if state != "finished":
                    run.claim(recipe, overwrite=overwrite)
                if state == "new":
                    record_start(run, began)
                return state

            if distributed.on_main(claim) == "finished":
                return distributed.on_main(finished_already)
            boards: list[Callable[[], Board]] = [lambda: TensorBoard(run.tensorboard, step=trainer.state.step)]
            boards = boards[: int(tensorboard)] + [partial(TrackedRun, run, name) for name in track]
            return _finish_run(
                trainer, recipe, distributed, ran, progress=progress or NullProgress, boards=boards, test=test
            )


def with_least_steps(recipe: Recipe, shards: ShardSet) -> Recipe:
    """Return the recipe with as many epochs as `least_steps` asks for; all that counts in epochs grows with them."""
    settings = recipe.train
    if not settings.least_steps:
        return recipe
    recordings = len(training_recordings(shards.split("train"), settings))
    epochs = -(-settings.least_steps // max(1, batch_count(recordings, settings.batch_size)))
    if epochs <= settings.epochs:
        return recipe

    def grown(count: int) -> int:
        return round(count * epochs / settings.epochs)

    more = replace(
        settings,
        epochs=epochs,
        validate_every=grown(settings.validate_every),
        warmup_epochs=grown(settings.warmup_epochs),
        milestones=tuple(map(grown, settings.milestones)),
    )
    log.info("%d epochs instead of %d: least_steps = %d", epochs, settings.epochs, settings.least_steps)
    return replace(recipe, train=more)


def _with_camera(
    recipe: Recipe,
    shards: ShardSet,
    run: RunFolder,
    distributed: Distributed,
    *,
    overwrite: bool,
    progress: Progress | None,
) -> Recipe:
    """Return the recipe with the camera of the run that is here, else of the shard set, calibrated where need be."""
    from spikebridge.train.calibration.auto import calibrated_profile

    def camera() -> tuple[str, str]:
        known = recipe if overwrite else run.settled(recipe)
        if known.train.simulation != AUTO:
            return known.train.simulation, ""  # the run keeps its profile already
        return calibrated_profile(shards, run.path.absolute().parent, progress=progress)

    simulation, text = distributed.on_main(camera)
    return replace(recipe, train=replace(recipe.train, simulation=simulation), camera=text)


def _finish_run(
    trainer: Trainer,
    recipe: Recipe,
    distributed: Distributed,
    ran: Mapping[str, int],
    *,
    progress: Progress,
    boards: Sequence[Callable[[], Board]],
    test: bool,
) -> RunResult:
    """Take a claimed run from where it is to its result; `ran` counts layers of neurons by backend."""
    run = trainer.run
    trainer.restore()
    bar = (progress if distributed.is_main else NullProgress)(
        total=trainer.steps,
        initial=trainer.state.step,
        desc=f"{recipe.train.method} seed {recipe.train.seed}",
        unit="step",
        bar_format=BAR,
    )
    per_step = len(trainer.data) / trainer.data.steps_per_epoch
    display = ProgressDisplay(bar, steps=trainer.steps, samples_per_step=per_step, done=trainer.state.step)

    def finish() -> RunResult:
        result = finish_training(trainer, recipe, test=test)
        result["init"], result["backend"] = recorded_start(run), "+".join(sorted(ran))
        return run.finish(result)

    try:
        for make in boards if distributed.is_main else ():
            trainer.boards.append(make())
        while trainer.state.epoch < recipe.train.epochs:
            trainer.run_epoch(display)
        return distributed.on_main(finish)
    except NonFiniteError as error:
        if run.config.exists():  # not so on another machine
            try:
                run.mark_diverged(epoch=trainer.state.epoch, step=trainer.state.step, message=str(error))
            except RunError as unwritten:
                log.warning("%s", unwritten)
        raise
    except (KeyboardInterrupt, RunStoppedError):
        bar.close()
        log.warning("%s stands at step %d of %d", run.path, trainer.state.step, trainer.steps)
        raise
    finally:
        bar.close()
        for board in trainer.boards:
            board.close()
