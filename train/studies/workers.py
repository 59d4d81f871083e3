"""Runs in worker processes of one thread each, behind `concurrent.futures.Executor`; importable without torch.

A run is one task. What a worker needs it gets by name (paths, a recipe), and what it found lies in the run folder, so
that the tasks may run in a pool of this machine or on other machines that see the same folders.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.cluster import Cluster
from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.base.processors import usable_processors
from spikebridge.train.config.recipes import Recipe
from spikebridge.train.errors import NonFiniteError, RunStoppedError, TrainError
from spikebridge.train.signals import StopRequest

Engine = Callable[[], AbstractContextManager[Executor]]
"""Gives an executor; called again after one broke."""
LOOK_SECONDS = 0.2
"""Between two looks for a stop file."""


@dataclass(frozen=True)
class Task:
    """One run, by names that mean the same in every process."""

    shards: str
    """Path or address."""
    recipe: Recipe
    """What to do."""
    run: str
    """Run folder."""
    stop_file: str
    """Its appearance asks for an end; it holds the signal's number."""
    device: str
    """As in `train`."""
    backend: str
    """As in `train`."""
    checkpoint_every: str
    """As in `train`."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task; an exception would have to survive pickling, this does."""

    kind: str
    """`done`, `stopped`, `diverged` (a loss became NaN or infinite) or `failed`."""
    message: str = ""
    """Of the error."""


def usual_workers(device: str) -> int:
    """Return how many workers a machine is given: one per processor, on CUDA one per GPU that the runs may use.

    Args:
        device: as in `train`.
    """
    import torch

    if device.startswith("cuda:"):
        return 1
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.device_count()
    return usable_processors()


def device_of_worker(device: str) -> str:
    """Return the device of a run in this process: worker i of this machine takes GPU i, beginning again at the last."""
    import torch

    number = worker_number()
    if number is None or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    return f"cuda:{number % torch.cuda.device_count()}"


def worker_number() -> int | None:
    """Return which of its engine's workers on this machine this process is, from 0 on; None if it is none."""
    return _number


_number: int | None = None


def local_engine(workers: int) -> Engine:
    """An engine of so many processes on this machine.

    A worker ends at once when its parent is gone, whatever killed that; a run is safe at its last checkpoint.
    """

    @contextmanager
    def start() -> Iterator[Executor]:
        context = multiprocessing.get_context("spawn")
        numbers = context.SimpleQueue()
        for number in range(workers):
            numbers.put(number)
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(numbers,))
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    return start


def scheduler_engine(address: str) -> Engine:
    """An engine of the workers of a Dask scheduler, which must see shards and run folders under the same paths.

    Raises:
        TrainError: the package is absent, or nothing answers there.
    """

    @contextmanager
    def start() -> Iterator[Executor]:
        try:
            cluster = Cluster(address)
        except PipelineError as error:
            raise TrainError(str(error)) from error
        with cluster:
            yield cluster

    return start


def look(executor: Executor | None) -> None:
    """To be called while nothing comes from an engine's executor.

    Raises:
        TrainError: nothing will, see `Cluster.look`.
    """
    try:
        if isinstance(executor, Cluster):
            executor.look()
    except PipelineError as error:
        raise TrainError(str(error)) from error


def _begin(numbers: Any) -> None:
    """Start a worker process of this machine; it takes the next of the numbers in a queue."""
    global _number  # noqa: PLW0603  (one per process, set before its first task)
    _number = numbers.get()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = "1"
    logging.getLogger("spikebridge.train").setLevel(logging.ERROR)  # what matters is in the run folders
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal: the parent decides
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)  # an idle worker would wait for ever, a busy one would hold its run's lock


@cache
def _opened(address: str) -> Any:
    """A shard set, opened once per process."""
    from spikebridge.pipeline.sharing.open import open_set

    return open_set(address)


def work(task: Task) -> Outcome:
    """Train one run to its end, or as far as the stop file allows."""
    if Path(task.stop_file).exists():
        return Outcome("stopped")
    stop, over = StopRequest(), threading.Event()
    watch = threading.Thread(target=_watch, args=(Path(task.stop_file), stop, over), daemon=True)
    watch.start()
    try:
        import torch

        from spikebridge.train.trainer.run import train

        torch.set_num_threads(1)
        train(
            _opened(task.shards),
            task.recipe,
            task.run,
            device=device_of_worker(task.device),
            backend=task.backend,
            checkpoint_every=task.checkpoint_every,
            stop=stop,
        )
        return Outcome("done")
    except RunStoppedError as stopped:
        return Outcome("stopped", str(stopped))
    except NonFiniteError as error:
        return Outcome("diverged", str(error))
    except TrainError as error:
        return Outcome("failed", str(error))
    except Exception as error:  # one broken run must not take the others along
        return Outcome("failed", f"{type(error).__name__}: {error}")
    finally:
        over.set()
        watch.join()


def _watch(file: Path, stop: StopRequest, over: threading.Event) -> None:
    """Turn the appearance of a file into a request; a file reaches every machine, a signal only this one."""
    while not over.wait(LOOK_SECONDS):
        try:
            return stop.ask(int(file.read_text()))
        except (OSError, ValueError):  # not there yet, or not written yet
            continue
