"""Workers that run tasks: this process, a pool of processes on this machine, or a Dask cluster; one loop for all.

A worker that dies costs another attempt at the tasks that it had in hand, and nothing that is finished.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_any
from typing import Any, TypeVar

from spikebridge.pipeline.base.errors import PipelineError, SettingsError
from spikebridge.pipeline.base.installation import install_command

POLL_S = 5.0
"""Pause between two checks of workers from which nothing comes."""
TIMEOUT_S = 60.0
"""How long a cluster may be without any worker."""
_KEPT = "What is finished is kept: the same command continues."

Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back from this thread, and from a process that it starts, which calls `ignore_interrupts`.

    Otherwise one that comes while that process still imports ends it with a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process, also one that was held back: it reaches every process, and the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Workers:
    """Run tasks in this process; base of the others.

    Attributes:
        lost: errors of a future that mean that a worker died.
    """

    lost: tuple[type[Exception], ...] = ()

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        requeue: Callable[[list[Task], deque[Task]], None],
        stopping: Callable[[], bool] = lambda: False,
        poll_s: float | None = None,
    ) -> Iterator[tuple[Task, Result]]:
        """Call a function with every task.

        Args:
            function: importable by name in a worker, with all that it needs.
            tasks: in the order in which they begin.
            requeue: called when a worker died, with the tasks that were in hand, the one at work longest first, and
                the tasks that wait; puts back among these what is to be tried again, or raises to give up.
            stopping: called at every poll; once true, no further task begins.
            poll_s: seconds between two polls.

        Yields:
            Tasks and results, in any order.

        Raises:
            PipelineError: nothing will come any more.
            Exception: whatever the function raises.
        """
        waiting = deque(tasks)
        running: dict[Future[Result], Task] = {}
        while True:
            stopped = stopping()
            if not running and (stopped or not waiting):
                return
            intact = stopped or self._submit_waiting(function, waiting, running)
            done, _ = wait(running, timeout=POLL_S if poll_s is None else poll_s, return_when=FIRST_COMPLETED)
            if intact and not done:
                self.check_alive()
            lost: list[Task] = []
            yield from self._collect(running, lost)
            if lost or not intact:
                self.replace_workers()
                yield from self._collect(running, lost)
                requeue(lost, waiting)

    def _submit_waiting(
        self, function: Callable[[Task], Result], waiting: deque[Task], running: dict[Future[Result], Task]
    ) -> bool:
        """Submit tasks up to `max_in_flight`; return False if the workers turn out to be dead."""
        most = self.max_in_flight()
        while waiting and len(running) < most:
            try:
                running[self.submit(function, waiting[0])] = waiting[0]
            except self.lost:
                return False
            waiting.popleft()
        return True

    def _collect(self, running: dict[Future[Result], Task], lost: list[Task]) -> Iterator[tuple[Task, Result]]:
        """Take settled tasks out of `running`: yield those with a result, append those that are lost."""
        for future in [future for future in running if future.done()]:
            task = running.pop(future)
            try:
                result = future.result()
            except self.lost:
                lost.append(task)
            else:
                yield task, result

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        """Have a worker call the function; here and now, so that Ctrl-C passes."""
        future: Future[Result] = Future()
        try:
            future.set_result(function(task))
        except Exception as error:
            future.set_exception(error)
        return future

    def max_in_flight(self) -> int:
        """Return how many tasks the workers should have in hand."""
        return 1

    def check_alive(self) -> None:
        """Raise if nothing will come any more; called when nothing has come for a while."""

    def replace_workers(self) -> None:
        """Settle the tasks of workers that died, and start others; called when one has died."""

    def close(self) -> None:
        """Drop what waits, and let the workers go."""


class ProcessPool(Workers):
    """Processes on this machine, started at the first task. One that dies takes the pool along.

    `initializer` is called first in each of them.
    """

    lost = (BrokenProcessPool, CancelledError)

    def __init__(self, processes: int, *, initializer: Callable[[], None] | None = None) -> None:
        self._processes, self._initializer = processes, initializer
        self._executor: Executor | None = None

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        """Have a process call the function."""
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            numbers = context.SimpleQueue()
            for number in range(self._processes):
                numbers.put(number)
            self._executor = ProcessPoolExecutor(self._processes, context, _begin, (numbers, self._initializer))
        with interrupts_held():  # a process that starts takes the mask along
            return self._executor.submit(function, task)

    def max_in_flight(self) -> int:
        """Return one task for each process, and one that waits for it."""
        return 2 * self._processes

    def replace_workers(self) -> None:
        """Close the pool, which settles all of its tasks; the next task opens another."""
        self.close()

    def close(self) -> None:
        """Drop what waits, and wait for what is at work."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None


_number: int | None = None


def worker_number() -> int | None:
    """Return which of its pool's processes this one is, from 0 on; None if it is none."""
    return _number


def _begin(numbers: Any, initializer: Callable[[], None] | None) -> None:
    """Start a worker process, which takes the next of the numbers in a queue and ends when its parent is gone.

    Whatever kills the parent, an idle process of a pool would wait for ever.
    """
    global _number  # noqa: PLW0603  (one per process, set before its first task)
    ignore_interrupts()
    _number = numbers.get()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    if initializer is not None:
        initializer()


def _end_with(sentinel: int) -> None:
    wait_for_any([sentinel])
    os._exit(1)


class WorkerDiedError(BrokenExecutor):
    """A task has taken along as many workers as Dask lets it."""


class DaskWorkers(Workers):
    """The workers of a Dask cluster, whose processes have this package and see the folders under the same paths.

    Dask itself gives the tasks of a dead worker to others, until a task has taken some of them along.

    Args:
        address: of the scheduler, for example `tcp://host:8786`.

    Raises:
        SettingsError: the package is not installed, or no scheduler answers.
    """

    lost = (WorkerDiedError,)

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client, KilledWorker
        except ImportError as error:
            raise SettingsError(
                f"--scheduler needs the package distributed, which is not installed; {install_command('distributed')}"
            ) from error
        try:
            self._client: Any = Client(address, timeout="10s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"no Dask scheduler answers at {address} ({error}). Start one with `dask scheduler`, and give the "
                "address that it prints, for example tcp://host:8786."
            ) from error
        self._killed = KilledWorker
        self._theirs: set[Any] = set()
        self._threads, self._last_alive, self._next_poll = 0, time.monotonic(), 0.0

    def run(self, *args: Any, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """Call a function with every task, see `Workers.run`.

        Raises:
            PipelineError: the cluster is gone, has had no worker for long, or cannot load this package.
        """
        try:
            yield from super().run(*args, **kwargs)
        except (ImportError, RuntimeError) as error:
            raise PipelineError(
                f"the Dask cluster cannot do the work ({type(error).__name__}: {error}). Its scheduler and workers "
                "need the same packages as this machine, spikebridge among them."
            ) from error

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        """Have a worker of the cluster call the function.

        Differs from `Client.get_executor`: the future always ends. There it never does when the worker that holds the
        result dies before the result is fetched, and the task is given up (distributed 2026.8).

        Returns:
            A future of the function's result or error, of `WorkerDiedError`, or of a `PipelineError` when the scheduler
            is gone.
        """
        ours: Future[Result] = Future()
        theirs = self._client.submit(function, task, pure=False)
        self._theirs.add(theirs)

        def settle(theirs: Any) -> None:
            self._theirs.discard(theirs)
            try:
                ours.set_result(theirs.result())
            except self._killed as error:
                ours.set_exception(WorkerDiedError(str(error)))
            except Exception as error:
                ours.set_exception(error)
            except BaseException:  # asyncio's CancelledError
                ours.set_exception(PipelineError(f"the Dask scheduler is gone. {_KEPT}"))

        theirs.add_done_callback(settle)
        return ours

    def max_in_flight(self) -> int:
        """Return enough that no worker waits, and few enough that the scheduler need not keep the whole plan."""
        return max(16, 2 * self._count_threads())

    def _count_threads(self) -> int:
        """Return the threads of all workers, as they were at most `POLL_S` ago.

        Raises:
            PipelineError: the scheduler does not answer.
        """
        now = time.monotonic()
        if now >= self._next_poll:
            self._next_poll = now + POLL_S
            try:
                self._threads = sum(self._client.nthreads().values())
            except (OSError, TimeoutError) as error:
                raise PipelineError(f"the Dask scheduler does not answer ({error}). {_KEPT}") from error
            if self._threads:
                self._last_alive = now
        return self._threads

    def check_alive(self) -> None:
        """Raise if nothing will come any more.

        Raises:
            PipelineError: no worker has been there for long, or the scheduler does not answer.
        """
        absent_s = time.monotonic() - self._last_alive
        if not self._count_threads() and absent_s > TIMEOUT_S:
            raise PipelineError(f"the Dask cluster has had no worker for {absent_s:.0f} s. Start some. {_KEPT}")

    def close(self) -> None:
        """Cancel what is not done, and leave the cluster."""
        self._client.cancel(list(self._theirs))
        self._client.close()


@contextmanager
def open_workers(
    *, processes: int = 1, scheduler: str | None = None, initializer: Callable[[], None] | None = None
) -> Iterator[Workers]:
    """Open the workers of a Dask scheduler at an address, or processes on this machine.

    `initializer` is called first in each process; without it, 1 process works in this one.

    Raises:
        SettingsError: see `DaskWorkers`.
    """
    if scheduler:
        workers: Workers = DaskWorkers(scheduler)
    elif processes > 1 or initializer:
        workers = ProcessPool(processes, initializer=initializer)
    else:
        workers = Workers()
    try:
        yield workers
    finally:
        workers.close()
