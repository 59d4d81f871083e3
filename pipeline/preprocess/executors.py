"""What runs the tasks of a conversion: this process, a pool of processes on this machine, or a Dask cluster.

All three are a `concurrent.futures.Executor` and run the same tasks to the same bytes. A worker that dies costs another
attempt at the tasks that it had in hand (see `pipeline.preprocess.isolation`), and nothing that is finished.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from spikebridge.pipeline.base.cluster import Cluster, WorkerDiedError
from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.preprocess.isolation import attempt
from spikebridge.pipeline.preprocess.plan import Task
from spikebridge.pipeline.preprocess.tasks import Job, TaskResult

MOST_DEATHS = 5
"""Deaths of workers in a row, without a task finished in between, after which a conversion gives up."""
GLANCE_S = 5.0
"""Pause between two looks at a cluster from which nothing comes."""
_KEPT = "Finished shards are kept: the same command continues."


class Engine:
    """Runs tasks in this process; base of the others.

    Attributes:
        lost: errors of a future that mean that a worker died.
    """

    lost: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        self.executor: Executor = InProcess()

    def run(self, job: Job, tasks: Sequence[Task]) -> Iterator[TaskResult]:
        """Do all tasks; results come in any order.

        Raises:
            PipelineError: workers die without end, or see `pipeline.preprocess.isolation.attempt`.
        """
        waiting = deque(tasks)
        running: dict[Future[TaskResult], Task] = {}
        deaths = 0
        while waiting or running:
            died = self._hand_out(job, waiting, running)
            done, _ = wait(running, timeout=GLANCE_S, return_when=FIRST_COMPLETED)
            if not done:
                self.look()
            for future in done:
                task = running.pop(future)
                try:
                    result = future.result()
                except self.lost:
                    waiting.appendleft(task)
                    died = True
                else:
                    deaths = 0
                    yield result
            if died:
                deaths += 1
                if deaths > MOST_DEATHS:
                    raise PipelineError(
                        f"{deaths} workers died in a row (killed, or out of memory). {_KEPT} Use fewer --workers if "
                        "memory is short."
                    )
                self.mend(waiting, running)

    def _hand_out(self, job: Job, waiting: deque[Task], running: dict[Future[TaskResult], Task]) -> bool:
        """Submit as many tasks as the executor should have in hand; returns whether it turned out to be broken."""
        wanted = self.at_once()
        while waiting and len(running) < wanted:
            try:
                running[self.executor.submit(attempt, job, waiting[0])] = waiting[0]
            except self.lost:
                return True
            waiting.popleft()
        return False

    def at_once(self) -> int:
        """How many tasks the executor should have in hand."""
        return 1

    def look(self) -> None:
        """Called when nothing has come for a while; raises when nothing will."""

    def mend(self, waiting: deque[Task], running: dict[Future[TaskResult], Task]) -> None:
        """Called when a worker has died; tasks that are lost with it move from `running` to `waiting`."""

    def close(self) -> None:
        """Drop what waits, and let the workers go."""
        self.executor.shutdown(wait=True, cancel_futures=True)


class InProcess(Executor):
    """Works where it is called."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function; its future is done. Ctrl-C passes."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Pool(Engine):
    """Processes on this machine. One that dies takes the pool along: the others' tasks are tried again as well.

    Args:
        workers: number of processes.
    """

    lost = (BrokenProcessPool,)

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.executor = self._open()

    def _open(self) -> Executor:
        return ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"), initializer=_ignore_interrupt)

    def at_once(self) -> int:
        """One task for each process, and one that waits for it."""
        return 2 * self._workers

    def mend(self, waiting: deque[Task], running: dict[Future[TaskResult], Task]) -> None:
        """Open a new pool."""
        self.close()
        waiting.extendleft(running.values())
        running.clear()
        self.executor = self._open()


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of the terminal; workers finish their shard and the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Dask(Engine):
    """A cluster, see `pipeline.base.cluster`.

    Args:
        address: of the scheduler, for example `tcp://host:8786`.

    Raises:
        SettingsError: the package is not installed, or no scheduler answers.
    """

    lost = (WorkerDiedError,)
    executor: Cluster

    def __init__(self, address: str) -> None:
        self.executor = Cluster(address)

    def run(self, job: Job, tasks: Sequence[Task]) -> Iterator[TaskResult]:
        """See `Engine.run`; a cluster that goes away, or cannot load this package, is said."""
        try:
            yield from super().run(job, tasks)
        except (ImportError, RuntimeError) as error:
            raise PipelineError(
                f"the Dask cluster cannot do the work ({type(error).__name__}: {error}). Its scheduler and workers "
                "need the same packages as this machine, spikebridge among them."
            ) from error

    def at_once(self) -> int:
        """Enough that no worker waits for the next task, few enough that the scheduler need not keep the whole plan."""
        return max(16, 2 * self.executor.threads())

    def look(self) -> None:
        """Give up when nothing will come."""
        self.executor.look()


@contextmanager
def open_engine(*, workers: int = 1, scheduler: str | None = None) -> Iterator[Engine]:
    """The engine for these settings.

    Args:
        workers: processes on this machine; 1 works in this one.
        scheduler: address of a Dask scheduler, whose workers are used instead.

    Raises:
        SettingsError: see `Dask`.
    """
    engine = Dask(scheduler) if scheduler else Pool(workers) if workers > 1 else Engine()
    try:
        yield engine
    finally:
        engine.close()
