"""One recording, from a file or a raw data set, or one stored sample, with its static partner.

Axes: T time bins, P polarity, C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import RecordingError, ShardSetError
from spikebridge.pipeline.base.foreign_json import parse_json
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.base.names import near_names
from spikebridge.pipeline.containers.hdf5 import plain_dataset
from spikebridge.pipeline.datasets.pairs import SIMULATION_NOTE, Listing, PairReader, Recording, find_simulation_note
from spikebridge.pipeline.events.packing import CheckedEvents, pack_chunks
from spikebridge.pipeline.formats import recording as recording_files
from spikebridge.pipeline.formats.tables.columns import TableOptions
from spikebridge.pipeline.inspection.facts import Facts, bins_of, summarize_events, summarize_frames
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.writer import MAX_METADATA
from spikebridge.pipeline.ui.paint import static_pixels

LARGEST_SENSOR = (1 << 14, 1 << 14)
"""In pixels; where the size of the sensor is not known, only coordinates beyond any sensor are refused."""
FOLDERS_ABOVE = 4
"""Folders above a recording that may hold the simulator's note: class, subset, events, data set."""


@dataclass(frozen=True)
class RecordingView:
    """One recording or sample, and what is known of it."""

    facts: Facts
    frames: NDArray[Any]
    """[T,P,H,W], whole events at the sensor's resolution or the stored frames."""
    events: CheckedEvents | None
    """The events of a raw recording; None for a stored sample."""
    partner: NDArray[np.uint8] | None
    """Static image, [H,W] or [H,W,3] uint8; None where none is known."""
    partner_note: str
    """Name of the partner."""
    origin: Mapping[str, object]
    """Other facts from the file or the sample's metadata."""
    simulated: bool = False

    @property
    def title(self) -> str:
        """Return its name, and whether it is simulated."""
        return self.facts.name + (" (SIMULATED)" if self.simulated else "")


def view_file(path: Path, *, time_bins: int, table: TableOptions) -> RecordingView:
    """Read a recording of any format, chosen by its first bytes and its ending.

    Raises:
        RecordingError: not a whole recording, or an ending that is not known.
    """
    stream, size = recording_files.stream(path, table), recording_files.sensor_size(path)
    events = pack_chunks(stream.annotated, sensor_size=size or LARGEST_SENSOR, source=path.name, likely=stream.likely)
    recorded = stream.facts
    size = recorded.sensor_size or size
    if size and (events.extent[0] > size[0] or events.extent[1] > size[1]):
        pack_chunks(stream.annotated, sensor_size=size, source=path.name)  # says what is wrong
    origin = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "format": recorded.format,
        "sensor": f"{size[0]}x{size[1]}" if size else None,
        "decided": "; ".join(recorded.choices),
        "passed_over": _count_passed_over(events),
    }
    simulated = any((folder / SIMULATION_NOTE).is_file() for folder in [*path.absolute().parents][:FOLDERS_ABOVE])
    facts, frames = summarize_events(events, name=path.name, time_bins=time_bins), make_full_frames(events, time_bins)
    return RecordingView(facts, frames, events, None, "", origin, simulated)


def sensor_of(listing: Listing, recording: Recording) -> tuple[int, int]:
    """Return (W, H) of the sensor of a recording, or the largest that may be where it is not known."""
    return recording.sensor_size or listing.sensor_size or LARGEST_SENSOR


def describe_sensor(listing: Listing, *recordings: Recording) -> str:
    """Return the sizes of the sensors of recordings, by default of all, in words."""
    sizes = {r.sensor_size or listing.sensor_size for r in recordings or listing.recordings}
    stated = ", ".join(f"{size[0]}x{size[1]}" for size in sorted(size for size in sizes if size))
    return f"{stated} pixels{' and unknown' if None in sizes else ''}" if stated else "unknown"


def view_recording(
    reader: PairReader, listing: Listing, recording: Recording, *, root: Path, time_bins: int
) -> RecordingView:
    """Read a recording of the raw data set in the folder `root`, with its static image where the pair is exact.

    Raises:
        RecordingError: it cannot be used.
    """
    events = reader.read_recording(recording, sensor_size=sensor_of(listing, recording))
    image = next((image for image in listing.images if image.name == recording.image), None)
    partner = reader.read_image(image) if image else None
    origin = {
        "file": recording.path.name,
        "class": listing.classes[recording.label],
        "subset": recording.subset,
        "static": recording.image,
        "sensor": describe_sensor(listing, recording).removesuffix(" pixels"),
        **({"passed_over": _count_passed_over(events)} if events.passed_over else {}),
    }
    note = f"static image {image.name}" if image else ""
    facts = summarize_events(events, name=recording.name, time_bins=time_bins)
    frames, simulated = make_full_frames(events, time_bins), is_simulated(reader, root)
    return RecordingView(facts, frames, events, partner, note, origin, simulated)


def _count_passed_over(events: CheckedEvents) -> str:
    """Return what the file holds that is no event, with counts."""
    return ", ".join(f"{count:,} {what}" for what, count in events.passed_over)


def is_simulated(reader: PairReader, root: Path) -> bool:
    """Return whether the recordings of a raw data set are known to be simulated."""
    return reader.card.simulated or bool(find_simulation_note(root) or find_simulation_note(root / "events"))


def make_full_frames(events: CheckedEvents, time_bins: int) -> NDArray[np.int32]:
    """Count events into frames [T,P,H,W] at full resolution over the extent; the last bin takes the last event too."""
    from spikebridge.pipeline.events.loops import framing as kernel

    frames = np.zeros((time_bins, 2, events.extent[1], events.extent[0]), np.int32)
    for chunk in events.columns():
        bins = bins_of(chunk, events, time_bins)
        for step in range(int(bins[0]), int(bins[-1]) + 1):
            part = chunk.part(slice(*np.searchsorted(bins, (step, step + 1))))
            kernel.count_pixels(part.x, part.y, part.p, frames[step])
    return frames


def view_sample(shards: ShardSet, key: str) -> RecordingView:
    """Read a stored sample, with the static image that its metadata names.

    Raises:
        ShardSetError: no such sample, or it is damaged.
    """
    split = next((s for s in shards.splits.values() if key in s.keys), None)
    if split is None:
        raise ShardSetError(
            f"{shards.path}: no sample {key!r}; a key is <split>-<class index>-<stem>. `{command('inspect')}` on the "
            "set names some."
        )
    position = split.keys.index(key)
    frames = split.read([position])[0]
    metadata = _read_metadata(shards, split.shards[int(split.shard_of[position])], key)
    static = shards.static_images()
    partner, note = None, ""
    if metadata.get("static") in static.keys:
        row = static.keys.index(metadata["static"])
        partner = static_pixels(static.images[row], encoding=shards.settings["encoding"])
        note = f"static image {static.keys[row]} ({static.roles[row]})"
    origin = {"class": shards.classes[int(split.labels[position])], **metadata}
    return RecordingView(summarize_frames(frames, name=key), frames, None, partner, note, origin, shards.simulated)


def _read_metadata(shards: ShardSet, shard: Path, key: str) -> dict[str, object]:
    """Read what is stored beside a sample's frames: source, events, duration, static partner."""
    import tarfile

    import h5py

    again = f"Run `{command('verify', shards.path)}`."
    try:
        if shards.settings["format"] == "webdataset":
            with tarfile.open(shard, "r:") as tar:
                member = tar.extractfile(f"{key}.json")
                assert member is not None
                text = member.read(MAX_METADATA + 1)
        else:
            with h5py.File(shard, "r") as file:
                keys, texts = (plain_dataset(file, name, shard, dtype=np.bytes_) for name in ("key", "json"))
                text = bytes(texts[keys[()].tolist().index(key.encode())])
        source = f"{shard}, metadata of {show(key)}"
        return parse_json(
            text, dict[str, Any], source=source, error=ShardSetError, remedy=again, most_bytes=MAX_METADATA
        )
    except (OSError, KeyError, ValueError, AssertionError, tarfile.TarError) as error:
        raise ShardSetError(f"{shard}: the metadata of {show(key)} cannot be read ({error}). {again}") from error


def find_recording(listing: Listing, name: str) -> Recording:
    """Return a recording of a listing by name.

    Raises:
        RecordingError: no such name; the message lists near ones.
    """
    by_name = {recording.name: recording for recording in listing.recordings}
    if name not in by_name:
        near = near_names(name, by_name, most=3) or list(by_name)[:3]
        raise RecordingError(
            f"no recording is called {name!r}; names look like {', '.join(near)}. Give one of those.", reason="missing"
        )
    return by_name[name]
