"""Frames of new recordings, made as those of a shard set were: what `predict` shows to a network trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.datasets.cuts import cut_recording
from spikebridge.pipeline.datasets.pairs import Recording
from spikebridge.pipeline.datasets.sensor import describe
from spikebridge.pipeline.formats.recording import list_recordings
from spikebridge.pipeline.preprocess.decoded_files import ConvertedRecording
from spikebridge.pipeline.preprocess.tasks import Job, convert_alone
from spikebridge.pipeline.readers.folders import Folders, stated_size
from spikebridge.pipeline.shards.settings import ConversionSettings


def frame_recordings(
    paths: Sequence[Path], settings: Mapping[str, Any], sensor_size: Sequence[int]
) -> Iterator[tuple[str, ConvertedRecording | RecordingError]]:
    """Make frames of recordings with the settings of a shard set; nothing is written.

    Args:
        paths: files, and folders of which every recording is taken, in the order of their paths.
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
    job = Job(Path(), known, (width, height) if width else None, None)
    files = [file for path in paths for file in list_recordings(path)]
    return (item for file in files for item in _frame(job, file))


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
