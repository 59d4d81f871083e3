"""A conversion from the raw folders to a complete shard set: plan, run the tasks, finish.

What is finished stays: an interrupted conversion continues with the tasks that are missing. The manifest is written
last. The result does not depend on what runs the tasks, on their order, or on where the folders are.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.base.executors import Workers, open_workers
from spikebridge.pipeline.base.files import write_bytes
from spikebridge.pipeline.base.progress import Progress, no_progress
from spikebridge.pipeline.datasets.splits import assign_image_roles
from spikebridge.pipeline.images.colour import ENCODING_CHANNELS
from spikebridge.pipeline.preprocess.complete import finish, refuse_warnings
from spikebridge.pipeline.preprocess.isolation import attempt, expect_death, is_final
from spikebridge.pipeline.preprocess.output import (
    ConversionResult,
    claim,
    find_existing,
    lock,
    make_work_folder,
    record_plan,
    remove_partial_files,
)
from spikebridge.pipeline.preprocess.plan import EventShard, Survey, Task, plan_events, plan_static, static_keys
from spikebridge.pipeline.preprocess.prepare import Conversion, no_static_image
from spikebridge.pipeline.preprocess.survey import RunSurvey, choose_dtype, measure_depth, measure_sensor
from spikebridge.pipeline.preprocess.tasks import Job, Reject, TaskResult, name_first, reject
from spikebridge.pipeline.shards.static_parts import read_parts
from spikebridge.pipeline.shards.static_pool import StaticImages

IMAGES, SURVEY, SHARDS = "static images", "recordings looked at", "event shards"
"""What progress is shown of."""
MOST_DEATHS = 5
"""Deaths of workers in a row, without a task finished in between, after which a conversion gives up."""


def convert(
    conversion: Conversion,
    out: Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    max_bad: int = 0,
    overwrite: bool = False,
    strict: bool = False,
    progress: Progress = no_progress,
) -> ConversionResult:
    """Convert into `out`, or continue there, or find that it is already done.

    `out` is missing, empty, or holds the same conversion, finished or not; `overwrite` replaces another conversion's
    shard set, never a folder of anything else. The workers of a Dask scheduler at an address, or `workers` processes,
    do the tasks. At most `max_bad` recordings and images may be dropped; with `strict` there may be no warnings.

    Raises:
        SettingsError: `out` holds something else, or another process is writing there; no Dask, or no scheduler.
        PipelineError: more than `max_bad` rejects, warnings and `strict`, a leak in the raw data, or workers that die
            without end.
    """
    if done := find_existing(conversion, out, overwrite=overwrite):
        return check_dropped(done, max_bad, out, strict=strict)
    job = make_job(conversion, out)
    with lock(job.work), open_workers(processes=workers, scheduler=scheduler) as pool:
        if done := find_existing(conversion, out, overwrite=False):  # another process was faster
            return check_dropped(done, max_bad, out, strict=strict)
        conversion = conversion.settled(claim(conversion, out)["settings"])
        look = lambda job, tasks: run_tasks(pool, job, tasks, progress, SURVEY)  # noqa: E731
        chunks = plan_static(conversion.listing)
        conversion, job = look_at_images(conversion, out, chunks, look)
        results = run_tasks(pool, job, chunks, progress, IMAGES)
        rejects = [*conversion.rejects, *(line for result in results for line in result.rejects)]
        lost = conversion.lost(undecodable_images(results))
        rejects += [
            reject("recording", name, no_static_image(name, f"image {image} cannot be decoded"))
            for name, image in lost.items()
        ]
        _check_rejects(rejects, max_bad, job, conversion)
        conversion, job, shards = plan_surveyed(conversion, out, lost, look)
        record_plan(conversion, out)
        results = run_tasks(pool, job, shards, progress, SHARDS)
        rejects += [line for result in results for line in result.rejects]
        _check_rejects(rejects, max_bad, job, conversion)
        static = _static_images(conversion, job, [chunk.name for chunk in chunks], lost)
        remove_partial_files(out)  # of workers that died since
        manifest, remarks = finish(job, conversion, results=results, rejects=rejects, static=static, strict=strict)
        shutil.rmtree(job.work, ignore_errors=True)  # a worker that was thought dead may still be at work in it
    return ConversionResult(manifest, tuple(rejects), lines=remarks.lines())


def check_dropped(done: ConversionResult, max_bad: int, out: Path, *, strict: bool) -> ConversionResult:
    """Return a finished conversion if it dropped no more than it may, and with `strict` has no warnings."""
    if strict:
        refuse_warnings(done.manifest)
    if len(done.rejects) > max_bad:
        raise PipelineError(_describe_rejects(done.rejects, max_bad, out / "rejects.jsonl"))
    return done


def make_job(conversion: Conversion, out: Path) -> Job:
    """Return the job of a conversion; its work folder is made if it is missing.

    Raises:
        SettingsError: the folder cannot be made.
    """
    make_work_folder(out)
    listing = conversion.listing
    sensor, bits = conversion.sensor_size, conversion.image_bits
    listed = conversion.fingerprint["listing_sha256"]
    return Job(out.absolute(), conversion.settings, sensor, listing.shown_fraction, bits, listing_sha256=listed)


def undecodable_images(results: Iterable[TaskResult]) -> set[str]:
    """Return the names of the images that tasks rejected."""
    return {line["name"] for result in results for line in result.rejects}


def plan_shards(conversion: Conversion, job: Job, lost: Mapping[str, str]) -> tuple[Job, list[EventShard]]:
    """Return the job that knows the longest key, and the event shards without recordings that lost their image."""
    keys = static_keys(conversion.listing.images)
    shards = plan_events(conversion.used, split=conversion.split, image_keys=keys, settings=conversion.settings)
    samples = [sample for shard in shards for sample in shard.samples]
    key_bytes, group_bytes = (max(map(len, texts)) for texts in zip(*((s.key, s.group) for s in samples), strict=True))
    return replace(job, key_bytes=key_bytes, group_bytes=group_bytes), [shard.without(lost) for shard in shards]


Look = Callable[[Job, Sequence[Survey]], Sequence[TaskResult]]
"""Does tasks that look at recordings or images, or finds that they are done."""


def look_at_images(conversion: Conversion, out: Path, chunks: Sequence[Task], look: Look) -> tuple[Conversion, Job]:
    """Look at the static images as far as must be before `chunks`, the tasks that store them."""
    found: list[TaskResult] = []
    job = make_job(conversion, out)
    conversion = measure_depth(conversion, _watched(look, job, found))
    expect_death(job, chunks, found)
    return conversion, make_job(conversion, out)


def plan_surveyed(
    conversion: Conversion, out: Path, lost: Mapping[str, str], look: Look
) -> tuple[Conversion, Job, list[EventShard]]:
    """Look at the recordings as far as must be, and plan the event shards.

    `lost` are recordings that lost their image.

    Raises:
        LayoutError: recordings of several sensors.
    """
    found: list[TaskResult] = []
    conversion = measure_sensor(conversion, _watched(look, make_job(conversion, out), found))
    job, shards = plan_shards(conversion, make_job(conversion, out), lost)
    conversion = choose_dtype(conversion, shards, _watched(look, job, found))
    expect_death(job, shards, found)
    return conversion, replace(job, settings=conversion.settings), shards


def _watched(look: Look, job: Job, found: list[TaskResult]) -> RunSurvey:
    """Return what does surveys, and adds their results to `found`: what killed a process there is expected to again."""

    def run(tasks: Sequence[Survey]) -> Sequence[TaskResult]:
        expect_death(job, tasks, found)
        results = look(job, tasks)
        found.extend(results)
        return results

    return run


def run_tasks(workers: Workers, job: Job, tasks: Sequence[Task], progress: Progress, what: str) -> list[TaskResult]:
    """Do the tasks that are not done yet, and return the results of all in the order of the tasks.

    Raises:
        PipelineError: workers die without end, or see `pipeline.preprocess.isolation.attempt`.
    """
    results: dict[str, TaskResult] = {}
    for task in tasks:
        if (result := TaskResult.load(job, task)) and is_final(job, task, result):
            results[task.name] = result.slim(task)
    missing = [task for task in tasks if task.name not in results]
    deaths = 0

    def requeue(lost: list[Task], waiting: deque[Task]) -> None:
        nonlocal deaths
        deaths += 1
        if deaths > MOST_DEATHS:
            raise PipelineError(
                f"{deaths} workers died in a row (killed, or out of memory). Finished shards are kept: the same "
                "command continues. Use fewer --workers if memory is short."
            )
        waiting.extendleft(reversed(lost))

    coming: Iterable[tuple[Task, TaskResult]] = workers.run(partial(attempt, job), missing, requeue=requeue)
    for task, result in progress(coming, len(missing), what):
        deaths = 0
        results[result.name] = result.slim(task)
    return [results[task.name] for task in tasks]


def _static_images(conversion: Conversion, job: Job, chunks: Sequence[str], lost: Mapping[str, str]) -> StaticImages:
    """Return the decoded images with their roles."""
    settings = conversion.settings
    parts = read_parts(job.work, chunks, shape=(ENCODING_CHANNELS[settings.encoding], *settings.frame))
    by_name = {image.name: image for image in conversion.listing.images}
    images = [by_name[name] for name in parts.names]
    keys = static_keys(images)
    roles = assign_image_roles(
        images,
        {
            name: (full.tobytes(), stored.tobytes())
            for name, full, stored in zip(parts.names, parts.pixels_sha256, parts.stored_sha256, strict=True)
        },
        recordings=[r for r in conversion.listing.recordings if r.name not in lost],
        split=conversion.split,
        protocol=settings.protocol,
        official=bool(settings.published) or not settings.splits_sha256,
    )
    return StaticImages.sort(
        parts.images,
        labels=[image.label for image in images],
        keys=[keys[image.name] for image in images],
        roles=[roles[image.name] for image in images],
        pixels_sha256=parts.pixels_sha256,
        num_classes=len(conversion.listing.classes),
    )


def _check_rejects(rejects: Sequence[Reject], max_bad: int, job: Job, conversion: Conversion) -> None:
    """Refuse more rejects than may be, and rejects of everything, whatever may be."""
    counts = Counter(line["kind"] for line in rejects)
    path = job.work / "rejects.jsonl"
    wholes = {"image": len(conversion.listing.images), "recording": len(conversion.used) + len(conversion.rejects)}
    for kind, whole in wholes.items():
        if whole and counts[kind] == whole:
            _write_rejects(path, rejects)
            reasons = Counter(line["reason"] for line in rejects if line["kind"] == kind)
            listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
            outside = conversion.own_images and "out_of_range" in reasons
            larger = " --sensor WxH states a larger sensor." if outside else ""
            raise PipelineError(
                f"none of the {whole:,} {kind}s can be used ({listed}); all are in {path}:\n"
                f"{_first_rejects(rejects, kind)}\n"
                f"Mend what they have in common: the format, its options, or the settings of the frames.{larger}"
            )
    if len(rejects) <= max_bad:
        return
    _write_rejects(path, rejects)
    raise PipelineError(_describe_rejects(rejects, max_bad, path))


def _write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    write_bytes(path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in rejects).encode())


def _first_rejects(rejects: Sequence[Reject], kind: str = "") -> str:
    """Return the first of each reason, then others, at most five."""
    lines = [line for line in rejects if kind in ("", line["kind"])]
    first = {line["reason"]: line for line in reversed(lines)}.values()
    chosen = [*first, *(line for line in lines if not any(line is other for other in first))][:5]
    return "\n".join(f"  {line['reason']}: {name_first(line['name'], line['message'])}" for line in chosen)


def _describe_rejects(rejects: Sequence[Reject], max_bad: int, path: Path) -> str:
    first = _first_rejects(rejects)
    more = f"\n  and {len(rejects) - 5} more, all of them in {path}" if len(rejects) > 5 else ""
    return (
        f"{len(rejects)} recordings or images cannot be used, {max_bad} are allowed:\n{first}{more}\n"
        f"Mend or remove them, or accept the loss with --max-bad {len(rejects)}."
    )
