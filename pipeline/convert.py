"""A conversion from the raw folders to a complete shard set: plan, run the tasks, finish.

What is finished stays: an interrupted conversion continues with the tasks that are missing. The manifest is written
last. The result does not depend on the number of workers, on their order, or on where the folders are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.conversion import Conversion, no_static_image
from pipeline.convert_tasks import Job, TaskResult, convert_events, convert_static, reject
from pipeline.errors import PipelineError, SettingsError
from pipeline.files import write_bytes
from pipeline.finish import finish
from pipeline.output import Outcome, claim, find_existing, lock
from pipeline.pairs import Recording
from pipeline.plan import EventShard, StaticChunk, plan_events, plan_static, static_keys
from pipeline.splits import image_roles
from pipeline.static_pool import StaticImages

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Wraps an iterable to show progress: (items, total, what)."""


def default_workers() -> int:
    """One worker per processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def convert(
    conversion: Conversion,
    out: Path,
    *,
    workers: int = 1,
    max_bad: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Convert into `out`, or continue there, or find that it is already done.

    Args:
        conversion: from `prepare`.
        out: folder of the shard set; missing, empty, or holding the same conversion, finished or not.
        workers: processes; 1 works in this one.
        max_bad: recordings and images that may be dropped.
        overwrite: replace another conversion's shard set (never a folder of anything else).
        progress: shows progress.

    Raises:
        SettingsError: `out` holds something else, or another process is writing there.
        PipelineError: more than `max_bad` rejects, a leak in the raw data, or a worker that died.
    """
    if done := find_existing(conversion, out, overwrite=overwrite):
        if len(done.rejects) > max_bad:
            raise PipelineError(_too_many(list(done.rejects), max_bad, out / "rejects.jsonl"))
        return done
    job = Job(out, conversion.settings, conversion.listing.sensor_size, conversion.listing.shown_fraction)
    try:
        job.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{out}: cannot be made ({error.strerror}). Choose another folder with --out.") from error
    show = progress or (lambda items, total, what: items)
    with lock(job.work), _executor(workers) as executor:
        claim(conversion, out)
        rejects = list(conversion.rejects)
        chunks = plan_static(conversion.listing)
        for result in _run(executor, convert_static, job, chunks, lambda i, n: show(i, n, "static images")):
            rejects += result.rejects
        decoded = _load_static(job, chunks)
        split, lost = _without_lost_images(conversion, decoded.names)
        rejects += lost
        _check_rejects(rejects, max_bad, job)

        recordings = [r for r in conversion.used if r.name in split]
        static, keys = _static_images(conversion, decoded, recordings, split)
        shards = plan_events(recordings, split=split, image_keys=keys, settings=conversion.settings)
        job = replace(job, key_bytes=max(len(sample.key) for shard in shards for sample in shard.samples))
        results = _run(executor, convert_events, job, shards, lambda i, n: show(i, n, "event shards"))
        rejects += [line for result in results for line in result.rejects]
        _check_rejects(rejects, max_bad, job)
        manifest = finish(job, conversion, results=results, rejects=rejects, static=static)
        shutil.rmtree(job.work)
    return Outcome(manifest, tuple(rejects))


@contextmanager
def _executor(workers: int) -> Iterator[Executor | None]:
    """A pool of processes, or None to work in this one; waiting tasks are dropped when an exception passes."""
    if workers <= 1:
        yield None
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_ignore_interrupt)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of the terminal; workers finish their shard and the parent decides."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(
    executor: Executor | None,
    work: Callable[[Job, Any], TaskResult],
    job: Job,
    tasks: Sequence[StaticChunk] | Sequence[EventShard],
    progress: Callable[[Iterable[Any], int], Iterable[Any]],
) -> list[TaskResult]:
    """Run the tasks that are not done yet; results in the order of the tasks."""
    results = {task.name: TaskResult.load(job.work, task.name) for task in tasks}
    missing = [task for task in tasks if results[task.name] is None]
    if executor is None:
        for task in progress(missing, len(missing)):
            results[task.name] = work(job, task)
    else:
        futures: list[Future[TaskResult]] = [executor.submit(work, job, task) for task in missing]
        try:
            for future in progress(as_completed(futures), len(futures)):
                results[future.result().name] = future.result()
        except BrokenProcessPool as error:
            raise PipelineError(
                "a worker process died (killed, or out of memory). Finished shards are kept: run the same command "
                "again, with fewer --workers if memory is short."
            ) from error
    return [result for task in tasks if (result := results[task.name]) is not None]


class _Decoded(NamedTuple):
    """Static images that could be decoded, in the order of the listing."""

    names: list[str]
    images: NDArray[np.uint8]
    """[N,C,S,S]."""
    hashes: NDArray[np.uint8]
    """[N,32], of the full-size pixels."""


def _load_static(job: Job, chunks: Sequence[StaticChunk]) -> _Decoded:
    names: list[str] = []
    images, hashes = [], []
    for chunk in chunks:
        with np.load(job.work / f"{chunk.name}.npz", allow_pickle=False) as part:
            if len(part["names"]):
                names += part["names"].tolist()
                images.append(part["images"])
                hashes.append(part["hashes"])
    if not names:
        raise PipelineError("none of the static images could be decoded; expected at least one.")
    return _Decoded(names, np.concatenate(images), np.concatenate(hashes))


def _static_images(
    conversion: Conversion, decoded: _Decoded, recordings: Sequence[Recording], split: Mapping[str, str]
) -> tuple[StaticImages, dict[str, str]]:
    """The decoded images with their roles, and their keys by name."""
    by_name = {image.name: image for image in conversion.listing.images}
    images = [by_name[name] for name in decoded.names]
    keys = static_keys(images)
    roles = image_roles(
        images,
        {
            name: (full.tobytes(), hashlib.sha256(stored.tobytes()).digest())
            for name, full, stored in zip(decoded.names, decoded.hashes, decoded.images, strict=True)
        },
        recordings=recordings,
        split=split,
        protocol=conversion.settings.protocol,
        official=not conversion.settings.splits_sha256,
    )
    static = StaticImages.sort(
        decoded.images,
        labels=[image.label for image in images],
        keys=[keys[image.name] for image in images],
        roles=[roles[image.name] for image in images],
        pixels_sha256=decoded.hashes,
        num_classes=len(conversion.listing.classes),
    )
    return static, keys


def _without_lost_images(conversion: Conversion, names: Sequence[str]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The splits less the recordings whose photograph could not be decoded, and those as rejects."""
    present = set(names)
    lost = {r.name: r.image for r in conversion.used if r.image is not None and r.image not in present}
    rejects = [
        reject("recording", name, no_static_image(name, f"image {image} cannot be decoded"))
        for name, image in lost.items()
    ]
    return {name: split for name, split in conversion.split.items() if name not in lost}, rejects


def _check_rejects(rejects: Sequence[dict[str, str]], max_bad: int, job: Job) -> None:
    if len(rejects) <= max_bad:
        return
    path = job.work / "rejects.jsonl"
    write_bytes(path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in rejects).encode())
    raise PipelineError(_too_many(rejects, max_bad, path))


def _too_many(rejects: Sequence[dict[str, str]], max_bad: int, path: Path) -> str:
    shown = "\n".join(f"  {line['reason']}: {line['message']}" for line in rejects[:5])
    more = f"\n  and {len(rejects) - 5} more, all of them in {path}" if len(rejects) > 5 else ""
    return (
        f"{len(rejects)} recordings or images cannot be used, {max_bad} are allowed:\n{shown}{more}\n"
        f"Mend or remove them, or accept the loss with --max-bad {len(rejects)}."
    )
