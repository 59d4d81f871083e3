"""A conversion as an array job: `preprocess --task i/n` on each machine of a batch queue, then `finish` on any.

Task i does every n-th chunk of images and every n-th event shard, beginning with the i-th; all write into one folder
on a shared disk. They may run in any order and at the same time, be killed, and run again, even twice at once: each
file is put in place whole, and its bytes do not depend on who made it.

Which recordings lost their static image is known only when all images have been decoded. A task goes by what is known
when it comes to its shards; where an image turns out later to be undecodable, the one shard that it concerns counts as
missing, and its task has to run again.

    <work>/shared.json    where the raw data lies, and n
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from spikebridge.pipeline.base.errors import PipelineError, SettingsError, ShardSetError
from spikebridge.pipeline.base.executors import Workers, open_workers
from spikebridge.pipeline.base.foreign_json import Range
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.base.progress import Progress, no_progress
from spikebridge.pipeline.base.sealed_json import read_sealed, write_sealed
from spikebridge.pipeline.preprocess.output import (
    ConversionResult,
    claim_together,
    find_existing,
    lock,
    read_plan,
    record_plan,
)
from spikebridge.pipeline.preprocess.plan import Survey, Task, plan_static
from spikebridge.pipeline.preprocess.prepare import Conversion, prepare
from spikebridge.pipeline.preprocess.run import (
    IMAGES,
    SHARDS,
    SURVEY,
    convert,
    look_at_images,
    make_job,
    plan_shards,
    plan_surveyed,
    run_tasks,
    undecodable_images,
)
from spikebridge.pipeline.preprocess.tasks import Job, TaskResult
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.settings import ConversionSettings

SHARED = "shared.json"


class SharedSources(TypedDict):
    """The file `shared.json`: paths of `Sources`, and the number of tasks."""

    events: str
    static: str
    splits: str | None
    labels: str | None
    class_map: str | None
    pairs: NotRequired[str | None]
    tasks: Annotated[int, Range(1)]


@dataclass(frozen=True)
class ArrayStatus:
    """How far all tasks of an array job are."""

    parts: int
    """Chunks of images and event shards in all."""
    missing: dict[int, list[str]]
    """Those that are not done, by the number of the task that does them."""
    rejects: int
    """Recordings and images dropped so far."""

    def values(self, share: tuple[int, int]) -> dict[str, Any]:
        """Return the JSON values, with the task that has just been done."""
        number, tasks = share
        missing = sorted(self.missing)
        return {"task": number, "tasks": tasks, "parts": self.parts, "missing_tasks": missing, "rejected": self.rejects}

    def text(self, share: tuple[int, int], out: Path) -> str:
        """Return the lines for the terminal, with the task that has just been done."""
        number, tasks = share
        if not self.missing:
            return f"Task {number} of {tasks} is done, and so are the others: {command('finish', out)}"
        return f"Task {number} of {tasks} is done; of all tasks, {self.describe_missing(tasks)}"

    def describe_missing(self, tasks: int) -> str:
        """Name the tasks that must run."""
        parts = [name for names in self.missing.values() for name in names]
        names = ", ".join(parts[:3]) + (", ..." if len(parts) > 3 else "")
        numbers = ", ".join(f"{number}/{tasks}" for number in sorted(self.missing))
        return f"{len(parts)} of {self.parts} parts are missing ({names}): run --task {numbers}"


@dataclass(frozen=True)
class Sources:
    """Where the raw data of a conversion lies."""

    events: Path
    static: Path
    splits: Path | None = None
    """CSV that replaces the splits, if any."""
    labels: Path | None = None
    class_map: Path | None = None
    """CSVs about class folders, see `pipeline.datasets.tables.FolderOptions`."""
    pairs: Path | None = None
    """CSV of static images, see `pipeline.datasets.matched.apply_pairs`."""

    @property
    def tables(self) -> dict[str, Path | None]:
        """Return the tables by the names that `pipeline.preprocess.prepare.prepare` has for them."""
        return {"splits": self.splits, "labels": self.labels, "class_map": self.class_map, "pairs": self.pairs}

    def prepare(self, settings: ConversionSettings) -> Conversion:
        """List the raw folders, see `pipeline.preprocess.prepare.prepare`."""
        return prepare(settings, events_root=self.events, static_root=self.static, **self.tables)


def convert_share(
    conversion: Conversion,
    out: Path,
    sources: Sources,
    *,
    share: tuple[int, int],
    workers: int = 1,
    progress: Progress = no_progress,
) -> ArrayStatus:
    """Do task `share` of a conversion, or what is missing of it.

    `share` is (i, n): this task's number, from 1, and the number of tasks. `finish_shares` finds the raw data by
    `sources`.

    Returns:
        The state of all tasks together.

    Raises:
        SettingsError: `out` holds something else, or a process that does not share is writing there.
    """
    number, tasks = share
    if find_existing(conversion, out, overwrite=False):
        return ArrayStatus(0, {}, 0)
    job = make_job(conversion, out)
    with lock(job.work, shared=True), open_workers(processes=workers) as pool:
        if find_existing(conversion, out, overwrite=False):  # finished meanwhile
            return ArrayStatus(0, {}, 0)
        conversion = conversion.settled(claim_together(conversion, out)["settings"])
        look = lambda job, surveys: _survey_together(pool, job, surveys, number - 1, progress)  # noqa: E731
        paths = {name: str(path.absolute()) if path else None for name, path in vars(sources).items()}
        write_sealed(job.work / SHARED, {**paths, "tasks": tasks})
        chunks = plan_static(conversion.listing)
        conversion, job = look_at_images(conversion, out, chunks, look)
        run_tasks(pool, job, chunks[number - 1 :: tasks], progress, IMAGES)
        lost = conversion.lost(undecodable_images(_load_results(job, chunks)))
        conversion, job, shards = plan_surveyed(conversion, out, lost, look)
        record_plan(conversion, out)
        run_tasks(pool, job, shards[number - 1 :: tasks], progress, SHARDS)
        return _array_status(conversion, job, tasks)


def finish_shares(
    out: Path,
    *,
    where: Mapping[str, Path | None] | None = None,
    max_bad: int = 0,
    strict: bool = False,
    progress: Progress = no_progress,
) -> ConversionResult:
    """Complete a shard set whose tasks have all been done.

    `where` names folders of the raw data, see `Sources`, that lie elsewhere than for the task that began last.

    Raises:
        ShardSetError: nothing was begun here.
        PipelineError: tasks are missing, or see `pipeline.preprocess.run.convert`.
    """
    work = out / manifests.WORK_FOLDER
    if (out / manifests.MANIFEST).is_file():
        return ConversionResult.read(out, manifests.read(out), up_to_date=True)
    try:
        plan = read_plan(out)
        remedy = f"Run any task again (`{command('preprocess')} --task i/n`), then finish."
        shared = read_sealed(work / SHARED, SharedSources, error=ShardSetError, remedy=remedy)
    except FileNotFoundError as error:
        raise ShardSetError(
            f"{out}: no tasks were begun here; expected a folder that `{command('preprocess')} --task 1/n` wrote into."
        ) from error
    paths = {name: Path(path) for name, path in shared.items() if isinstance(path, str) and path}
    sources = Sources(**paths | {name: path for name, path in (where or {}).items() if path})
    conversion = sources.prepare(ConversionSettings.from_dict(plan["settings"]))
    if conversion.fingerprint != plan:
        raise SettingsError(
            f"the raw data in {sources.events} and {sources.static} is not what the tasks found. Put it back, or run "
            "them again into another folder."
        )
    status = _array_status(conversion, make_job(conversion, out), shared["tasks"])
    if status.missing:
        raise PipelineError(f"{out}: {status.describe_missing(shared['tasks'])} (again), then finish.")
    return convert(conversion, out, max_bad=max_bad, strict=strict, progress=progress)


def _survey_together(
    pool: Workers, job: Job, tasks: Sequence[Survey], first: int, progress: Progress
) -> list[TaskResult]:
    """Do all tasks of a survey, beginning at one of their own: jobs that run at the same time share them out."""
    start = first % len(tasks)
    results = run_tasks(pool, job, [*tasks[start:], *tasks[:start]], progress, SURVEY)
    return [*results[len(tasks) - start :], *results[: len(tasks) - start]]


def _load_results(job: Job, tasks: Sequence[Task]) -> list[TaskResult]:
    """Load the results that are there, without a check of their files."""
    return [result for task in tasks if (result := TaskResult.load(job, task, check=False))]


def _array_status(conversion: Conversion, job: Job, tasks: int) -> ArrayStatus:
    """Return how far all tasks together are, without a check of what they wrote."""
    chunks = plan_static(conversion.listing)
    images = _load_results(job, chunks)
    lost = conversion.lost(undecodable_images(images))
    job, shards = plan_shards(conversion, job, lost)
    results = {result.name: result for result in [*images, *_load_results(job, shards)]}
    missing: dict[int, list[str]] = {}
    kinds: tuple[Sequence[Task], ...] = (chunks, shards)
    for parts in kinds:
        for place, part in enumerate(parts):
            if part.name not in results:
                missing.setdefault(place % tasks + 1, []).append(part.name)
    dropped = sum(len(result.rejects) for result in results.values())
    return ArrayStatus(len(chunks) + len(shards), missing, len(conversion.rejects) + len(lost) + dropped)
