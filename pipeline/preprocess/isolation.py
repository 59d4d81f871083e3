"""One task of a conversion, done so that a recording that kills its process costs the set that recording alone.

A process that dies takes its task along and leaves a mark. Whoever does the task next - another worker, another
machine, the same command again - finds the mark and works in a process of its own, which may die without harm. If it
does, halves of the task are tried in further processes until the recordings are known that kill on their own; they
become rejects with the reason `kills_worker`, and the rest is converted. The next command gives them another chance.

    <work>/<task>.began    there while the task is at work, and for good when its process died
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.base.executors import ignore_interrupts, interrupts_held
from spikebridge.pipeline.preprocess.plan import Task
from spikebridge.pipeline.preprocess.tasks import KILLS_WORKER, Job, TaskResult, convert_task, rehearse_task


class ProcessDiedError(Exception):
    """A process ended without an answer."""


def attempt(job: Job, task: Task) -> TaskResult:
    """Do a task, in a process of its own if another process died of it before.

    Raises:
        PipelineError: the process that does the task dies, whichever recordings are left out.
    """
    if done := TaskResult.load(job, task):
        return done  # Dask does a task again when the worker that kept its result dies
    mark = job.work / f"{task.name}.began"
    if mark.exists():
        result = retry_isolated(job, task)
        mark.unlink(missing_ok=True)
        return result
    mark.touch()
    try:
        return convert_task(job, task)
    finally:
        mark.unlink(missing_ok=True)


def is_final(job: Job, task: Task, result: TaskResult) -> bool:
    """Return whether the result of an earlier command stands: not where something killed the process of its task.

    Memory may have been short then. The task is done again, in a process of its own.
    """
    if all(line["reason"] != KILLS_WORKER for line in result.rejects):
        return True
    (job.work / f"{task.name}.began").touch()
    (job.work / f"{task.name}.json").unlink(missing_ok=True)
    return False


def expect_death(job: Job, tasks: Sequence[Task], found: Sequence[TaskResult]) -> None:
    """Have tasks run in processes of their own that hold what killed the process of an earlier task."""
    deadly = {line["name"] for result in found for line in result.rejects if line["reason"] == KILLS_WORKER}
    for task in tasks if deadly else ():
        if not deadly.isdisjoint(task.names):
            (job.work / f"{task.name}.began").touch()


def retry_isolated(job: Job, task: Task) -> TaskResult:
    """Do a task of which a process died in a process of its own, without the recordings that crash it.

    Raises:
        PipelineError: the process dies, though its recordings can be read one by one.
    """
    try:
        return run_in_subprocess(convert_task, job, task)
    except ProcessDiedError:
        crashing = _find_crashing(job, task)
    try:
        return run_in_subprocess(convert_task, job, task, frozenset(crashing))
    except ProcessDiedError as error:
        raise PipelineError(
            f"{task.name}: the process that converts it dies, though its recordings can be read one by one. Is memory "
            "short? Finished shards are kept: run the same command again with fewer --workers."
        ) from error


def _find_crashing(job: Job, task: Task) -> list[str]:
    """Return the names of the recordings or images that crash a process on their own, of a task that does."""
    count = len(task.names)
    if count <= 1:
        return list(task.names)
    crashing = []
    for half in (task.part(0, count // 2), task.part(count // 2, count)):
        try:
            run_in_subprocess(rehearse_task, job, half)
        except ProcessDiedError:
            crashing += _find_crashing(job, half)
    return crashing


def run_in_subprocess(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, and raise here what it raises.

    Differs: not by multiprocessing, which refuses to start a process in a worker of Dask.

    Raises:
        ProcessDiedError: the process ended without an answer.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve_call; serve_call()"
    with interrupts_held():
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        try:
            reply, _ = process.communicate(pickle.dumps((function, arguments)))
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0 or not reply:
        raise ProcessDiedError(f"exit status {process.returncode}")
    good, value = pickle.loads(reply)
    if not good:
        raise value
    return value


def serve_call() -> None:
    """Serve a call of `run_in_subprocess`: read function and arguments from stdin, write the result to stdout."""
    ignore_interrupts()
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # whatever a library prints must not get between
        function, arguments = pickle.load(sys.stdin.buffer)
        try:
            reply = (True, function(*arguments))
        except Exception as error:
            reply = (False, error)
        out.write(pickle.dumps(reply))
