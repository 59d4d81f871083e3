"""The work of one conversion task, run in any process: a chunk of static images, or one event shard.

A task writes its output whole, then its result beside it in the work folder; a task whose result is there is done.
tonic and torch are never imported here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import PipelineError, RecordingError, blame_machine
from spikebridge.pipeline.base.files import FileEntry, file_entry, sha256_file
from spikebridge.pipeline.base.fitting import FITS
from spikebridge.pipeline.base.foreign_json import Count, Pattern, Range, Sha256
from spikebridge.pipeline.base.sealed_json import hash_json, read_sealed, write_sealed
from spikebridge.pipeline.datasets.intervals import cut
from spikebridge.pipeline.datasets.pairs import PairReader, Recording, StaticImage
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.compact import compact
from spikebridge.pipeline.events.framing import narrow
from spikebridge.pipeline.events.packing import LARGEST_SENSOR, CheckedEvents, pack
from spikebridge.pipeline.images.decode import bits_in_use, hash_pixels, to_static
from spikebridge.pipeline.preprocess.decoded_files import ConvertedRecording, cached_frames
from spikebridge.pipeline.preprocess.plan import EventShard, PlannedSample, StaticChunk, Survey, Task
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.framing import frame_events
from spikebridge.pipeline.shards.manifest import WORK_FOLDER
from spikebridge.pipeline.shards.settings import DTYPES, ConversionSettings
from spikebridge.pipeline.shards.static_parts import write_part
from spikebridge.pipeline.shards.writer import EXTENSION, FRAMES, Sample, write_shard
from spikebridge.pipeline.ui.paint import preview_png

TOTALS = ("events", "dropped_events", "saturated_cells", "saturated_samples")
"""Sums over samples that every set has."""
PASSED_OVER, FILTERED = "passed_over_", "filtered_"
"""Before the names of what was passed over, and of filters, in totals."""
log = logging.getLogger(__name__)
Item = TypeVar("Item", Recording, StaticImage)
Content = TypeVar("Content")


@dataclass(frozen=True)
class Job:
    """What every task of a conversion needs to know."""

    out: Path
    settings: ConversionSettings
    sensor_size: tuple[int, int] | None
    """(W, H) of the recordings; None before they are measured: any that fits into a word, and no canvas."""
    shown_fraction: float | None
    """See `pipeline.datasets.pairs.Listing`."""
    image_bits: int = 0
    """See `pipeline.preprocess.prepare.Conversion`."""
    key_bytes: int = 1
    """Length of the longest sample key."""
    group_bytes: int = 0
    """Length of the longest group; 0 where there are none."""
    listing_sha256: str = ""
    """Hash of what the raw folders hold."""

    @property
    def canvas(self) -> tuple[int, int] | None:
        """Return the (W, H) that frames show, or None where each recording's own extent is stretched."""
        return self.sensor_size if self.settings.extent == "canvas" else None

    def facing(self, recording: Recording) -> Job:
        """Return the job with the sensor of one recording, where the set has several."""
        return replace(self, sensor_size=recording.sensor_size) if recording.sensor_size else self

    @cached_property
    def wide(self) -> Job:
        """Return the job that keeps counts in the widest type; frames that wait in the work folder are in that."""
        dtype = DTYPES[self.settings.reduction][-1]
        return replace(self, settings=replace(self.settings, dtype=dtype))

    @cached_property
    def reader(self) -> PairReader:
        """Return the reader of the data set."""
        reader = get_reader(self.settings.dataset, **self.settings.table_options)
        reader.image_bits = self.image_bits
        return reader

    @property
    def work(self) -> Path:
        """Return the folder of results and static parts, removed when the conversion is complete."""
        return self.out / WORK_FOLDER

    def conversion_of(self, task: Task | None = None) -> str:
        """Return the hash of settings and raw data that a work file carries, of a task or of what many tasks use."""
        return hash_conversion(self.settings.as_dict(), self.listing_sha256, dtype=isinstance(task, EventShard))


def hash_conversion(settings: Mapping[str, Any], listing_sha256: str, *, dtype: bool) -> str:
    """Return the hash of settings and raw data, by which a work file knows its conversion.

    Without `dtype` the type of the frames is left out: what is done before it is chosen does not depend on it.
    """
    named = {name: value for name, value in settings.items() if dtype or name != "dtype"}
    return hash_json({"settings": named, "listing_sha256": listing_sha256})


class Reject(TypedDict):
    """A line of rejects.jsonl."""

    kind: str
    """`recording` or `image`."""
    name: str
    reason: str
    message: str
    counts: NotRequired[dict[str, Count]]
    """Of events, see `RecordingError`."""


class WrittenFile(TypedDict):
    """A file that a task wrote."""

    name: Annotated[str, Pattern(r"(\.work/)?[A-Za-z0-9_][A-Za-z0-9_.-]*", "a plain name, or one in the work folder")]
    bytes: Count
    sha256: Sha256
    samples: Count


class StoredResult(TypedDict):
    """The file of a `TaskResult`."""

    conversion: Sha256
    """See `Job.conversion_of`."""
    name: str
    files: list[WrittenFile]
    rejects: list[Reject]
    samples: list[tuple[str, str, Sha256]]
    totals: dict[str, Count]
    lost: dict[str, Count]
    shapes: list[tuple[Count, Annotated[int, Range(0, 2)], Count, Count]]
    doubts: list[tuple[str, str]]
    choices: dict[str, Count]
    most_bytes: Count


@dataclass
class TaskResult:
    """What a task did, as kept in the work folder."""

    name: str
    files: list[FileEntry] = field(default_factory=list)
    """Name below `out`, bytes, sha256 and samples of every file written."""
    rejects: list[Reject] = field(default_factory=list)
    """What was dropped: kind, name, reason, message."""
    samples: list[tuple[str, str, str]] = field(default_factory=list)
    """Key, source name and hash of the events of every sample stored."""
    totals: dict[str, int] = field(default_factory=dict)
    """Sums over the samples: events, dropped_events, saturated_cells, saturated_samples; where there are any,
    filtered_<filter>, overflow_markers and passed_over_<what>."""
    lost: dict[str, int] = field(default_factory=dict)
    """Sums that the manifest does not hold: clipped_events, outside_events, and `BEYOND_UINT8`."""
    shapes: list[tuple[int, int, int, int]] | NDArray[np.int64] = field(default_factory=list)
    """Duration in microseconds, number of polarities, of cells in use in any frame, and of events, of every sample; an
    array [n,4] of a slim result."""
    doubts: list[tuple[str, str]] = field(default_factory=list)
    """Recording and sentence, of those that can be read but may be wrong."""
    choices: dict[str, int] = field(default_factory=dict)
    """What was decided where files left it open, and in how many."""
    most_bytes: int = 0
    """Of the largest sample, where events are stored."""

    def save(self, work: Path, conversion: str) -> None:
        """Write the result, whole or not at all: from then on the task is done."""
        write_sealed(work / f"{self.name}.json", {"conversion": conversion, **vars(self)})

    @classmethod
    def read(cls, work: Path, name: str, conversion: str, *, check: bool = True) -> TaskResult | None:
        """Read a result and, with `check`, compare the files that it names; None without one that holds.

        One that is damaged or of another conversion is removed, with a warning: it counts as none.
        """
        path = work / f"{name}.json"
        try:
            stored = read_sealed(path, StoredResult, error=PipelineError, remedy="The task is done again.")
            if (stored["conversion"], stored["name"]) != (conversion, name):
                raise PipelineError(f"{path}: of another conversion or task. The task is done again.")
        except FileNotFoundError:
            return None
        except PipelineError as error:
            log.warning("%s", error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        values: Any = {name: value for name, value in stored.items() if name != "conversion"}
        result = cls(**values)
        for entry in result.files if check else ():
            written = work.parent / entry["name"]
            if not written.is_file() or sha256_file(written) != entry["sha256"]:
                return None
        return result

    @classmethod
    def load(cls, job: Job, task: Task, *, check: bool = True) -> TaskResult | None:
        """Load the result of a task that is done, see `read`; None where its items are not the task's."""
        result = cls.read(job.work, task.name, job.conversion_of(task), check=check)
        return result if result and result._covers(task) else None

    def _covers(self, task: Task) -> bool:
        """Return whether what the result says is of this task's items, and for an event shard of all of them."""
        rejected = {line["name"] for line in self.rejects}
        if isinstance(task, EventShard):
            stored = {(key, name) for key, name, _ in self.samples}
            planned = {(sample.key, sample.recording.name) for sample in task.samples}
            whole = {name for _, name in stored} | rejected == set(task.names)
            return stored <= planned and whole and len(self.shapes) == len(self.samples)
        facts = isinstance(task, StaticChunk) or not self.totals or self.totals.keys() == FACTS[task.fact].totals
        return facts and rejected <= set(task.names)

    def slim(self, task: Task) -> TaskResult:
        """Return the result with texts of the plan for its own, and numbers in an array: a million samples are kept."""
        if isinstance(task, EventShard):
            own = {text: text for sample in task.samples for text in (sample.key, sample.recording.name)}
            self.samples = [(own[key], own[name], digest) for key, name, digest in self.samples]
            self.shapes = np.array(self.shapes, np.int64).reshape(-1, 4)
        return self

    def add_file(self, out: Path, path: Path, samples: int) -> None:
        """Record a file that the task wrote."""
        self.files.append({**file_entry(path, samples), "name": path.relative_to(out).as_posix()})


def name_first(name: str, message: str) -> str:
    """Return a message about a recording or an image with its whole name, where it names its file alone."""
    return message if name in message else f"{name}: {message}"


def reject(kind: str, name: str, error: RecordingError) -> Reject:
    """Return a line of rejects.jsonl."""
    line: Reject = {"kind": kind, "name": name, "reason": error.reason, "message": str(error)}
    return {**line, "counts": error.counts} if error.counts else line


BEYOND_UINT8 = "beyond_uint8"
"""Events that cells of uint8 would not hold, where cells are wider."""
NONE: frozenset[str] = frozenset()
KILLS_WORKER = "kills_worker"
"""Reason of what kills the process that reads it."""


def convert_task(job: Job, task: Task, crashing: frozenset[str] = NONE) -> TaskResult:
    """Do a task and write what it makes.

    Recordings or images that are `crashing` are rejected unread, because they kill the process that reads them.
    """
    result = TaskResult(task.name)
    convert = {StaticChunk: _convert_static, EventShard: _convert_events, Survey: _survey}[type(task)]
    convert(job, task, result, crashing)  # type: ignore[operator]
    result.save(job.work, job.conversion_of(task))
    return result


def rehearse_task(job: Job, task: Task) -> None:
    """Do all that a task does but store its result: a process that survives this survives the task."""
    result = TaskResult(task.name)
    if isinstance(task, Survey):
        _survey(job, task, result, NONE)
        return
    convert = _decode_images if isinstance(task, StaticChunk) else _convert_samples
    for _ in convert(job, task, result, NONE):  # type: ignore[arg-type]
        pass


def _survey(job: Job, survey: Survey, result: TaskResult, crashing: frozenset[str]) -> None:
    """Find a fact of all items that can be read; what is wrong with the others is said when they are converted."""
    for item, name in zip(survey.items, survey.names, strict=True):
        if name in crashing:
            result.rejects.append(_reject_crashing("recording" if isinstance(item, PlannedSample) else "image", name))
        else:
            with suppress(RecordingError):
                FACTS[survey.fact].find(job, item, result.totals)


def _find_extent(job: Job, sample: PlannedSample, totals: dict[str, int]) -> None:
    """Raise `width` and `height` to what the recording's events reach."""
    read = partial(job.reader.read_packed, sensor_size=LARGEST_SENSOR)
    width, height = _read_or_reject(read, sample.recording).extent
    totals["recordings"] = totals.get("recordings", 0) + 1
    for name, reach in (("width", width), ("height", height)):
        totals[name] = max(totals.get(name, 0), reach)


def _find_clipping(job: Job, sample: PlannedSample, totals: dict[str, int]) -> None:
    """Add the recording's `events`, and those that would be `clipped` in the type that takes the least room."""
    dtype = DTYPES[job.settings.reduction][0]
    facts = _convert_planned(replace(job, settings=replace(job.settings, dtype=dtype)), sample).facts
    for name, count in (("events", facts["events"]), ("clipped", facts["clipped_events"])):
        totals[name] = totals.get(name, 0) + count


def _find_depth(job: Job, image: StaticImage, totals: dict[str, int]) -> None:
    """Raise `bits` to what the pixels of an image need, and count the `images` that have more than 8 to declare."""
    data = _read_or_reject(lambda item: item.path.read_bytes(), image)
    if bits := bits_in_use(data, source=image.name):
        totals["bits"] = max(totals.get("bits", 0), bits)
        totals["images"] = totals.get("images", 0) + 1


class Fact(NamedTuple):
    """What a survey may find."""

    find: Callable[[Job, Any, dict[str, int]], None]
    """Adds what an item says to the totals."""
    totals: set[str]


FACTS = {
    "extent": Fact(_find_extent, {"recordings", "width", "height"}),
    "clipping": Fact(_find_clipping, {"events", "clipped"}),
    "depth": Fact(_find_depth, {"bits", "images"}),
}
"""What a survey may find, by name."""


def _reject_crashing(kind: str, name: str) -> Reject:
    message = f"{name}: kills the process that reads it, by a crash or for want of memory. Leave it out, or report it."
    return reject(kind, name, RecordingError(message, reason=KILLS_WORKER))


def _convert_static(job: Job, chunk: StaticChunk, result: TaskResult, crashing: frozenset[str]) -> None:
    """Decode, hash, stretch and encode a chunk of images, and write them as `pipeline.shards.static_parts` says."""
    for path, samples in write_part(job.work, chunk.name, _decode_images(job, chunk, result, crashing)):
        result.add_file(job.out, path, samples)


def _decode_images(
    job: Job, chunk: StaticChunk, result: TaskResult, crashing: frozenset[str]
) -> Iterator[tuple[str, bytes, NDArray[np.uint8]]]:
    """Yield name, hash of the full-size pixels, and encoded image [C,S,S] of every image that can be decoded."""
    for image in chunk.images:
        if image.name in crashing:
            result.rejects.append(_reject_crashing("image", image.name))
            continue
        try:
            rgb = _read_or_reject(job.reader.read_image, image)
        except RecordingError as error:
            result.rejects.append(reject("image", image.name, error))
            continue
        yield image.name, hash_pixels(rgb), _encode_static(job, rgb)


def _convert_events(job: Job, shard: EventShard, result: TaskResult, crashing: frozenset[str]) -> None:
    """Read, check and frame the recordings of one shard, and write the shard and its index."""
    settings = job.settings
    written = write_shard(
        job.out / (shard.name + EXTENSION[settings.format]),
        _convert_samples(job, shard, result, crashing),
        shape=(settings.time_bins, 2, *settings.frame),
        dtype=np.dtype(settings.dtype).newbyteorder("<"),
        key_bytes=job.key_bytes,
        group_bytes=job.group_bytes,
        codec=settings.codec,
        store=settings.store or FRAMES,
        preview=preview_png if settings.preview else None,
    )
    result.files += written.files


def _convert_samples(job: Job, shard: EventShard, result: TaskResult, crashing: frozenset[str]) -> Iterator[Sample]:
    """Yield the samples of a shard in their order; rejects and totals go into the result."""
    result.totals = dict.fromkeys(TOTALS, 0)
    for planned in shard.samples:
        if planned.recording.name in crashing:
            result.rejects.append(_reject_crashing("recording", planned.recording.name))
            continue
        try:
            sample, digest = _convert_sample(job, planned, result)
        except RecordingError as error:
            result.rejects.append(reject("recording", planned.recording.name, error))
            continue
        result.samples.append((planned.key, planned.recording.name, digest))
        yield sample


def add_totals(totals: dict[str, int], facts: Mapping[str, Any], *, saturated: int) -> None:
    """Add a sample to the sums: its facts as its metadata has them, and how many of its cells are saturated."""
    counts = {"events": facts["events"], "dropped_events": facts["dropped_events"]}
    counts |= {"saturated_cells": saturated, "saturated_samples": int(saturated > 0)}
    counts |= {f"{FILTERED}{name}": count for name, count in facts.get("filtered_events", {}).items()}
    if "overflow_markers" in facts:
        counts["overflow_markers"] = facts["overflow_markers"]
    counts |= {f"{PASSED_OVER}{what}": count for what, count in facts.get("passed_over", {}).items()}
    for name, count in counts.items():
        totals[name] = totals.get(name, 0) + count


def _convert_sample(job: Job, planned: PlannedSample, result: TaskResult) -> tuple[Sample, str]:
    totals, recording = result.totals, planned.recording
    converted = _convert_planned(job, planned)
    facts = dict(converted.facts)
    saturated = facts.pop("saturated_cells")
    for name in ("clipped_events", "outside_events"):
        result.lost[name] = result.lost.get(name, 0) + facts.pop(name)
    if converted.frames.dtype == np.uint16:
        result.lost[BEYOND_UINT8] = result.lost.get(BEYOND_UINT8, 0) + narrow(converted.frames, "uint8")[2]
    reached = np.any(converted.frames, axis=0)  # [P,H,W]
    polarities, cells = (int(np.count_nonzero(np.any(reached, axis=axis))) for axis in ((1, 2), 0))
    assert isinstance(result.shapes, list)  # it is not slim yet
    result.shapes.append((facts["duration_us"], polarities, cells, facts["events"]))
    add_totals(totals, facts, saturated=saturated)
    result.doubts += [(recording.name, doubt) for doubt in facts.get("doubts", [])]
    for choice in facts.pop("choices", ()):
        result.choices[choice] = result.choices.get(choice, 0) + 1
    metadata = {**facts, "source": recording.name, "static": planned.static_key}
    metadata |= {"group": planned.group} if planned.group else {}
    text = json.dumps(metadata, sort_keys=True)
    if converted.events is not None:
        result.most_bytes = max(result.most_bytes, converted.events.size)
    sample = Sample(planned.key, recording.label, converted.frames, text, planned.group, converted.events)
    return sample, facts["events_sha256"]


def _convert_planned(job: Job, planned: PlannedSample) -> ConvertedRecording:
    """Convert the recording of a sample, or take it from its file, all of which is converted at once."""
    recording = planned.recording
    job = job.facing(recording)
    if job.reader.many_per_file:
        kept = cached_frames(job.work, recording, job.conversion_of(), partial(_convert_file, job.wide, recording))
    elif len(planned.parts) > 1:
        convert = partial(_convert_parts, job.wide, recording, planned.parts)
        kept = cached_frames(job.work, recording, job.conversion_of(), convert)
    else:
        return _convert(job, recording.name, _read(job, recording))
    frames, saturated, clipped = narrow(kept.frames, job.settings.dtype)
    facts = {**kept.facts, "clipped_events": kept.facts.get("clipped_events", 0) + clipped}
    facts = {**facts, "saturated_cells": max(saturated, facts["saturated_cells"])}
    return ConvertedRecording(frames, facts, kept.events)


def _read(job: Job, recording: Recording) -> CheckedEvents:
    """Read, check and pack a recording, or the part of its file that it is."""
    sensor_size = job.sensor_size or LARGEST_SENSOR
    read = job.reader.read_recording
    if job.settings.time_window_us:
        read = partial(job.reader.read_window, window_us=job.settings.time_window_us)
    return _read_or_reject(lambda item: read(item, sensor_size=sensor_size), recording)


def _convert(job: Job, name: str, events: Events | CheckedEvents) -> ConvertedRecording:
    """Check, filter and frame the events of one recording."""
    settings, sensor_size = job.settings, job.sensor_size or LARGEST_SENSOR
    packed = pack(events, sensor_size=sensor_size, source=name) if isinstance(events, Events) else events
    facts: dict[str, Any] = {"events": len(packed) + packed.not_read}
    if packed.overflow_markers:
        facts["overflow_markers"] = packed.overflow_markers
    if packed.passed_over:
        facts["passed_over"] = dict(packed.passed_over)
    if packed.doubts:
        facts["doubts"] = list(packed.doubts)
    if packed.choices:
        facts["choices"] = list(packed.choices)
    if settings.filters:
        packed, facts["filtered_events"] = settings.filters.apply(packed, source=name)
    framed = frame_events(
        packed,
        settings,
        sensor_size=job.sensor_size,
        crop=job.reader.crop,
        span_us=job.reader.span_us,
        source=name,
    )
    facts |= {
        "dropped_events": framed.dropped_events,
        "saturated_cells": framed.saturated_cells,
        "clipped_events": framed.clipped_events,
        "outside_events": framed.outside_events,
        "duration_us": packed.duration_us,
        "events_sha256": packed.sha256(),
    }
    folder = job.work if job.work.is_dir() else None  # nothing is written when one is tried
    stored = compact(packed, sensor_size=sensor_size, folder=folder) if settings.store else None
    return ConvertedRecording(framed.frames, facts, stored)


def _convert_file(job: Job, recording: Recording) -> Iterator[tuple[str, ConvertedRecording | RecordingError]]:
    """Check and frame every recording of the file that `recording` lies in."""
    for name, content in _read_or_reject(lambda item: list(job.reader.read_file(item)), recording):
        try:
            if isinstance(content, RecordingError):
                raise content
            yield name, _convert(job, name, content)
        except RecordingError as error:
            yield name, error


def _convert_parts(
    job: Job, recording: Recording, parts: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, ConvertedRecording | RecordingError]]:
    """Check and frame every recording that is a part of the file of `recording`, which is decoded once."""
    try:
        whole = _read_or_reject(lambda item: job.reader.read_packed(item, sensor_size=LARGEST_SENSOR), recording)
    except RecordingError as error:
        yield from ((name, error) for name in parts)
        return
    sensor_size = job.sensor_size or LARGEST_SENSOR
    for name, part in cut(whole, parts, unit=job.reader.intervals, sensor_size=sensor_size):
        try:
            if isinstance(part, RecordingError):
                raise part
            yield name, _convert(job, name, part)
        except RecordingError as error:
            yield name, error


def convert_alone(job: Job, recording: Recording) -> Iterator[tuple[str, ConvertedRecording | RecordingError]]:
    """Convert a recording, or all of its file, and store nothing; yield names with frames or with what is wrong."""
    try:
        if job.reader.many_per_file:
            yield from _convert_file(job, recording)
        else:
            job = job.facing(recording)
            yield recording.name, _convert(job, recording.name, _read(job, recording))
    except RecordingError as error:
        yield recording.name, error


class Attempt(NamedTuple):
    """What came of a recording or image of which nothing is stored."""

    items: int
    """How many recordings were converted, bad ones counted: all of a file; 1 for an image."""
    error: RecordingError | None
    """What is wrong with it."""
    beside_frames: list[int]
    """Bytes of the compact events and the picture of each good recording, as far as a set would store them."""


def try_recording(job: Job, recording: Recording) -> Attempt:
    """Convert a recording, or all of its file, and store nothing."""
    contents = dict(convert_alone(job, recording))
    content = contents.get(recording.name)
    good = [one for one in contents.values() if isinstance(one, ConvertedRecording)]
    sizes = [0 if one.events is None else one.events.size for one in good]
    if job.settings.preview:
        sizes = [size + len(preview_png(one.frames)) for size, one in zip(sizes, good, strict=True)]
    return Attempt(max(1, len(contents)), content if isinstance(content, RecordingError) else None, sizes)


def try_image(job: Job, image: StaticImage) -> Attempt:
    """Convert an image and store nothing."""
    try:
        _encode_static(job, _read_or_reject(job.reader.read_image, image))
    except RecordingError as error:
        return Attempt(1, error, [])
    return Attempt(1, None, [])


def _encode_static(job: Job, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return to_static(
        rgb,
        size=job.settings.size,
        width=job.settings.width,
        fit=job.settings.fit or FITS[0],
        encoding=job.settings.encoding,
        canvas=job.canvas if job.shown_fraction else None,
        shown_fraction=job.shown_fraction or 1.0,
    )


def _read_or_reject(read: Callable[[Item], Content], item: Item) -> Content:
    """Call a reader's method; a file that the system will not give becomes a reject like any other.

    Raises:
        RecordingError: the reader's, or the file cannot be read (`unreadable`).
        PipelineError: this machine is short of memory or open files, which says nothing of the file.
    """
    try:
        return read(item)
    except OSError as error:
        blame_machine(error, item.name)
        raise RecordingError(
            f"{item.name}: cannot be read ({error.strerror or error}).", reason="unreadable"
        ) from error
