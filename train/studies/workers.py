"""One run of an ablation in a worker, see `pipeline.base.executors`; importable without torch.

What a worker needs it gets by name (paths, a recipe), and what it makes lies in the run folder, so that runs may be
trained in a pool of this machine or on other machines that see the same folders.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.base.executors import worker_number
from spikebridge.pipeline.base.processors import usable_processors
from spikebridge.train.config.recipes import Recipe
from spikebridge.train.errors import NonFiniteError, RunStoppedError, TrainError
from spikebridge.train.signals import StopRequest

if TYPE_CHECKING:
    from spikebridge.pipeline.shards.reader import ShardSet

POLL_S = 0.2
"""Between two looks for a stop file."""


@dataclass(frozen=True)
class RunSpec:
    """One run, by names that mean the same in every process; options are as in `train`."""

    shards: str = field(repr=False)  # an address may hold a password
    """Path or address."""
    shard_set: str
    """The ID that it must have; something else may lie there by the time a worker opens it."""
    recipe: Recipe
    run: str
    stop_file: str
    """Its appearance asks for an end; it holds the signal's number."""
    device: str
    backend: str
    checkpoint_every: str
    test: bool = True
    trust: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended; an exception would have to survive pickling, this does."""

    kind: str
    """`done`, `stopped`, `diverged` (a loss became NaN or infinite) or `failed`."""
    message: str = ""
    """Of the error."""


def usable_gpus(device: str) -> int:
    """Return how many GPUs of this machine the runs of a study may use; 0 where they train on the CPU."""
    import torch

    if device.startswith("cuda:"):
        return 1
    return torch.cuda.device_count() if device in ("auto", "cuda") and torch.cuda.is_available() else 0


def usual_workers(device: str) -> int:
    """Return how many workers a machine is given: one per processor, on CUDA one per GPU that the runs may use."""
    return usable_gpus(device) or usable_processors()


def device_of_worker(device: str) -> str:
    """Return the device of a run in this process: worker i of this machine takes GPU i, beginning again at the last."""
    import torch

    number = worker_number()
    if number is None or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    return f"cuda:{number % torch.cuda.device_count()}"


def begin_worker() -> None:
    """Prepare a process on this machine: it computes in one thread, and what matters is in the run folders."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = "1"
    logging.getLogger("spikebridge.train").setLevel(logging.ERROR)


@cache
def _open_once(address: str, shard_set: str) -> ShardSet:
    """Open a shard set, once per process."""
    from spikebridge.pipeline.sharing.open import open_set

    return open_set(address, expect=shard_set)


def train_run(spec: RunSpec) -> RunOutcome:
    """Train one run to its end, or as far as the stop file allows."""
    if Path(spec.stop_file).exists():
        return RunOutcome("stopped")
    stop, over = StopRequest(), threading.Event()
    watch = threading.Thread(target=_watch, args=(Path(spec.stop_file), stop, over), daemon=True)
    watch.start()
    try:
        import torch

        from spikebridge.train.trainer.run import train

        torch.set_num_threads(1)
        train(
            _open_once(spec.shards, spec.shard_set),
            spec.recipe,
            spec.run,
            device=device_of_worker(spec.device),
            backend=spec.backend,
            checkpoint_every=spec.checkpoint_every,
            stop=stop,
            test=spec.test,
            trust=spec.trust,
            overwrite=spec.overwrite,
        )
        return RunOutcome("done")
    except RunStoppedError as stopped:
        return RunOutcome("stopped", str(stopped))
    except NonFiniteError as error:
        return RunOutcome("diverged", str(error))
    except (TrainError, PipelineError) as error:
        return RunOutcome("failed", str(error))
    except Exception as error:  # one broken run must not take the others along
        return RunOutcome("failed", f"{type(error).__name__}: {error}")
    finally:
        over.set()
        watch.join()


def _watch(file: Path, stop: StopRequest, over: threading.Event) -> None:
    """Turn the appearance of a file into a request; a file reaches every machine, a signal only this one."""
    while not over.wait(POLL_S):
        try:
            return stop.ask(int(file.read_text()))
        except (OSError, ValueError):  # not there yet, or not written yet
            continue
