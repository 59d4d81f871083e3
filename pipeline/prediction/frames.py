"""Frames of new recordings, made as those of a shard set were: what `predict` shows to a network trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.datasets.cuts import cut_recording
from spikebridge.pipeline.datasets.pairs import PairReader, Recording
from spikebridge.pipeline.datasets.sensor import describe
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import CheckedEvents, pack
from spikebridge.pipeline.formats.recording import ending, list_recordings
from spikebridge.pipeline.preprocess.decoded_files import ConvertedRecording
from spikebridge.pipeline.preprocess.tasks import Job, convert_alone
from spikebridge.pipeline.readers.folders import Folders, stated_size
from spikebridge.pipeline.shards.settings import ConversionSettings

OPTIONS = ("--columns", "--group", "--time-unit")
"""Of `preprocess`, which messages about tables name."""


def frame_recordings(
    paths: Sequence[Path], settings: Mapping[str, Any], sensor_size: Sequence[int]
) -> Iterator[tuple[str, ConvertedRecording | RecordingError]]:
    """Make frames of recordings with the settings of a shard set; nothing is written.

    Args:
        paths: files, and folders of which every recording is taken, in the order of their paths. Those of the set's own
            ending are read as it reads them, others by their own format.
        settings: of the set, as its manifest has them.
        sensor_size: (W, H) in pixels of the set's sensor, as its manifest has it; (0, 0) where it has none.

    Yields:
        The path of a recording, with `@start-stop` in microseconds where the set's recordings are cut, and its frames
        [T,P,H,W] or what is wrong with it. A file that holds several yields each.

    Raises:
        LayoutError: no such file, or a folder without recordings; before the first is read.
        SettingsError: not the settings of this version.
    """
    known = ConversionSettings.from_dict(dict(settings))
    if len(sensor_size) != 2:
        raise SettingsError(f"sensor_size: found {list(sensor_size)}, expected width and height in pixels.")
    width, height = sensor_size
    own, other = (kind(Path(), known, (width, height) if width else None, None) for kind in (Job, _ByFormat))
    endings = own.reader.endings
    files = [file for path in paths for file in list_recordings(path)]
    jobs = ((other if endings and ending(file) not in endings else own, file) for file in files)
    return ((name, _advised(content)) for job, file in jobs for name, content in _frame(job, file))


@dataclass(frozen=True)
class _ByFormat(Job):
    """Makes frames as those of a data set, of recordings in other formats than its own."""

    @cached_property
    def reader(self) -> PairReader:
        """Return a reader that goes by the formats of files, and shows what the data set's shows."""
        own = super().reader

        class Shown(_AnyFormat):
            crop, span_us, from_corner = own.crop, own.span_us, own.from_corner

        return Shown()


class _AnyFormat(Folders):
    """Reads recordings by the formats of their files, and places them as a data set's own."""

    def read_events(self, recording: Recording) -> Events:
        events = super().read_events(recording)
        return events.to_corner() if self.from_corner else events

    def read_packed(self, recording: Recording, *, sensor_size: tuple[int, int]) -> CheckedEvents:
        return pack(self.read_events(recording), sensor_size=sensor_size, source=recording.name)

    def read_window(self, recording: Recording, **options: Any) -> CheckedEvents:
        return self.read_recording(recording, sensor_size=options["sensor_size"])


def _frame(job: Job, path: Path) -> Iterator[tuple[str, ConvertedRecording | RecordingError]]:
    settings, recording = job.settings, Recording(str(path), str(path.absolute()), 0, None, path.stem, None)
    parts = [recording]
    try:
        if isinstance(job.reader, Folders):
            recording = replace(recording, sensor_size=_own_sensor(job, recording))
        if settings.cut_us or settings.pauses_us:
            parts, _ = cut_recording(recording, settings, job.reader)
        else:
            parts = [recording]
    except (RecordingError, OSError) as error:
        reason = (
            error if isinstance(error, RecordingError) else RecordingError(f"{path}: {error}.", reason="unreadable")
        )
        yield str(path), reason
        return
    for part in parts:
        yield from convert_alone(job, part)


def _advised(content: ConvertedRecording | RecordingError) -> ConvertedRecording | RecordingError:
    """Return an error whose advice are options of `preprocess` with what can be done here."""
    if not isinstance(content, RecordingError) or not any(option in str(content) for option in OPTIONS):
        return content
    advice = "Such options are those of the shard set; here the file itself can say it: names of its columns (t x y p) "
    return RecordingError(
        f"{content} {advice}in its first line, whole microseconds.", reason=content.reason, counts=content.counts
    )


def _own_sensor(job: Job, recording: Recording) -> tuple[int, int] | None:
    """Return the sensor by which a user's recording is stretched, where that is not the set's.

    Raises:
        RecordingError: it was recorded with another sensor than those of the set.
    """
    stated, scaled = stated_size(recording.path), job.settings.mixed_sensors == "scale"
    if job.settings.sensor or stated is None or scaled:
        return stated if scaled else None
    if job.sensor_size and stated != job.sensor_size:
        raise RecordingError(
            f"{recording.name}: recorded with {describe(stated)}; the shard set's recordings have "
            f"{describe(job.sensor_size)}, so that its frames would show another part of the world. Train on a set of "
            "both, made with --mixed-sensors scale.",
            reason="other_sensor",
        )
    return None
