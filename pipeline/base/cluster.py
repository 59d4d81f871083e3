"""Tasks on the workers of a Dask cluster, whose processes have this package and see the folders under the same paths.

Dask itself gives the tasks of a dead worker to others, until a task has taken some of them along.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

from spikebridge.pipeline.base.errors import PipelineError, SettingsError
from spikebridge.pipeline.base.installation import install_command

TIMEOUT_S = 60.0
"""How long a cluster may be without any worker."""
POLL_S = 5.0
"""Least time between two questions to the scheduler for its workers."""
_KEPT = "What is finished is kept: the same command continues."


class WorkerDiedError(BrokenExecutor):
    """A task has taken along as many workers as Dask lets it."""


class Cluster(Executor):
    """Submits to a Dask cluster.

    Differs from `Client.get_executor`: a future always ends. There it never does when the worker that holds the result
    dies before the result is fetched, and the task is given up (distributed 2026.8).

    Args:
        address: of the scheduler, for example `tcp://host:8786`.

    Raises:
        SettingsError: the package is not installed, or no scheduler answers.
    """

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

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a worker call the function.

        Returns:
            What ends with the function's result or error, with `WorkerDiedError`, or with a `PipelineError` when the
            scheduler is gone.
        """
        ours: Future[Any] = Future()
        theirs = self._client.submit(fn, *args, **kwargs, pure=False)
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

    def threads(self) -> int:
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
        """Raise if nothing will come; to be called while nothing comes.

        Raises:
            PipelineError: no worker has been there for long, or the scheduler does not answer.
        """
        absent_s = time.monotonic() - self._last_alive
        if not self.threads() and absent_s > TIMEOUT_S:
            raise PipelineError(f"the Dask cluster has had no worker for {absent_s:.0f} s. Start some. {_KEPT}")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel what is not done, and leave the cluster."""
        self._client.cancel(list(self._theirs))
        self._client.close()
