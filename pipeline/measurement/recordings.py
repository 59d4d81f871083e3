"""Recordings and static images of a folder, a drawn part of them, as a calibration takes them.

Axes: n recordings, m static images, T time bins, P polarity, S side of a frame.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError, RecordingError, group_alike
from spikebridge.pipeline.containers import idx
from spikebridge.pipeline.datasets.layout import is_litter
from spikebridge.pipeline.datasets.pairs import SIMULATION_NOTE, find_simulation_note
from spikebridge.pipeline.datasets.sensor import Size, describe
from spikebridge.pipeline.events.arrays import Events, check_events
from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.formats import recording as recording_files
from spikebridge.pipeline.formats.tables.columns import TableOptions
from spikebridge.pipeline.images.colour import POOLED
from spikebridge.pipeline.images.decode import EXTENSIONS, common_bits, read_image
from spikebridge.pipeline.measurement.placing import SAMPLE, Placing
from spikebridge.pipeline.readers.folders import SENSOR_FILE, find_sensor, stated_size

IDX = ("-idx3-ubyte", "-idx3-ubyte.gz")
"""Endings of MNIST's files of images."""
NOTE_ABOVE = 3
"""Folders above a recording in which the note of simulated ones is looked for: class, subset, `events`."""
HALF, NEARLY_ALL = 0.5, 0.95
"""Share of the sensor's width, and of its height."""
FEWEST_TO_DOUBT = 3
"""Recordings of each of two kinds from which on they may be of two cameras."""
ASPECTS = (0.05, 0.5, 0.95)
"""Quantiles of the images' aspects."""
MOST_EVENTS, FEWEST_KEPT = 10**8, 20
"""Events of all recordings together from which on no more are read, for the memory's sake (about 35 bytes each); but so
many recordings are."""
FEWEST_EVENTS = 10
"""A recording of fewer events says nothing of movement."""
MOST_UNREADABLE = 10
"""Recordings that cannot be used of which it is said what is wrong with them."""
SHORT, LONG, UNLIKE = 0.1, 0.9, 1.5
"""Quantiles of the recordings' lengths, and their ratio above which one movement is doubted."""

log = logging.getLogger(__name__)

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class RecordingSet:
    """Events of some recordings of one camera."""

    names: tuple[str, ...]
    events: tuple[Events, ...]
    """t from each recording's first event."""
    sensor: tuple[int, int]
    """(W, H) in pixels."""
    sensor_known: str
    """How the sensor is known."""
    simulated: bool
    found: int
    """Recordings that there are, of which these were drawn."""
    unreadable: tuple[str, ...] = ()
    """What is wrong with others that were drawn and cannot be used."""

    @property
    def counted(self) -> str:
        """Return how many there are in words, and what is wrong with the first of others."""
        others = f" (and {len(self.unreadable)} that cannot be used, {self.unreadable[0]})" if self.unreadable else ""
        return f"{len(self.events)} recordings{others}"

    @property
    def duration_us(self) -> int:
        """Return the median time from first to last event."""
        return int(np.median([events.duration_us for events in self.events]))

    def part(self, rows: Iterable[int]) -> RecordingSet:
        """Return some of these, by their positions."""
        rows = list(rows)
        return replace(self, names=tuple(self.names[i] for i in rows), events=tuple(self.events[i] for i in rows))

    def without(self, pixels: Collection[tuple[int, int]]) -> RecordingSet:
        """Return these without the events of some pixels (x, y); each one's first and last stay, and so its length."""
        stays = np.ones(self.sensor[::-1], bool)  # [H,W]
        for x, y in pixels:
            stays[y, x] = False
        left = []
        for events in self.events:
            keep = stays[events.y, events.x]
            keep[[0, -1]] = True
            left.append(Events(events.t[keep], events.x[keep], events.y[keep], events.p[keep]))
        return replace(self, events=tuple(left))

    def frames(self, *, time_bins: int, size: int) -> NDArray[np.float32]:
        """Return the counts of all recordings, [T,n,2,S,S], the sensor squashed into the frame."""
        made = np.empty((time_bins, len(self.events), 2, size, size), np.float32)
        for i, (name, events) in enumerate(zip(self.names, self.events, strict=True)):
            packed = pack(events, sensor_size=self.sensor, source=name)
            made[:, i] = to_frames(
                packed,
                time_bins=time_bins,
                size=size,
                reduction="sum",
                dtype="uint16",
                canvas=self.sensor,
                source=name,
            ).frames
        return made


def read_recordings(
    paths: Sequence[Path],
    *,
    most: int,
    seed: int,
    sensor: tuple[int, int] | None = None,
    table: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> RecordingSet:
    """Read recordings of one camera, at most so many, drawn by the seed; fewer where they hold `MOST_EVENTS` before.

    Those that cannot be used are passed over, and named in `RecordingSet.unreadable`.

    Args:
        paths: files, and folders of which every recording counts.
        most: recordings that are read.
        seed: of the draw.
        sensor: (W, H); by default what the files state, or the smallest that holds all events.
        table: columns, group and time_unit, as `TableOptions` takes them.
        progress: wraps the list of what is read.

    Raises:
        LayoutError: no recordings there, or such of several sensors.
        RecordingError: none can be read, lies within the sensor and holds enough events.
    """
    files = sorted({file for path in paths for file in recording_files.list_recordings(path)})
    drawn = [files[row] for row in draw_rows(len(files), most, seed)]
    sensor, known = (sensor, "given") if sensor else stated_sensor(drawn)
    names, simulated = [str(file) for file in drawn], are_simulated([*paths, *files])
    rows, events, unreadable = read_rows(
        names, lambda row: read_located(drawn[row], table), sensor=sensor, seed=seed, progress=progress
    )
    if sensor is None:
        sensor, known = smallest_sensor(events)
    names = [names[row] for row in rows]
    warn_of(names, events, sensor)
    return RecordingSet(tuple(names), tuple(events), sensor, known, simulated, len(files), tuple(unreadable))


def read_rows(
    names: Sequence[str],
    read: Callable[[int], Events],
    *,
    sensor: Size | None,
    seed: int,
    progress: Progress | None = None,
) -> tuple[list[int], list[Events], list[str]]:
    """Read the recordings of some names by their positions, fewer where they hold `MOST_EVENTS` before.

    Those that cannot be read, are empty or reach outside a known sensor (W, H) are passed over.

    Returns:
        Positions of those that were read, in order; their events, t from the first; what is wrong with others.

    Raises:
        RecordingError: none can be used.
    """
    if not names:
        raise RecordingError("no recordings; expected some to draw from", reason="empty")
    kept, wrong = Kept(), dict[int, RecordingError]()
    for row in kept.until_full(len(names), seed, progress):
        try:
            kept.add(row, usable(read(row), names[row], sensor))
        except RecordingError as error:
            wrong[row] = error
    problems = [wrong[row] for row in sorted(wrong)]
    if not kept.rows:
        first = problems[0]
        if len(problems) == 1:
            raise first
        raise RecordingError(f"none of {len(names)} recordings can be used; the first: {first}", reason=first.reason)
    return kept.rows, kept.in_order(), [str(problem) for problem in problems]


def usable(events: Events, name: str, sensor: Size | None = None) -> Events:
    """Return the events of a recording, t from its first.

    Raises:
        RecordingError: too few, or some outside the sensor (W, H) where that is known.
    """
    if len(events) < FEWEST_EVENTS or events.duration_us == 0:
        raise RecordingError(
            f"{name}: holds {len(events)} events; expected at least {FEWEST_EVENTS} over some time. Leave it out.",
            reason="empty",
        )
    if sensor is not None:
        check_events(events, sensor_size=sensor, source=name)
    return from_first(events)


class Kept:
    """Recordings that are read, in any order, until they hold too many events."""

    def __init__(self) -> None:
        self._events, self._total = dict[int, Events](), 0

    def add(self, row: int, events: Events) -> None:
        """Keep the recording at a position."""
        self._events[row] = events
        self._total += len(events)

    @property
    def rows(self) -> list[int]:
        """Return the positions of those that were kept, in order."""
        return sorted(self._events)

    def in_order(self) -> list[Events]:
        """Return their events by position."""
        return [self._events[row] for row in self.rows]

    def until_full(self, count: int, seed: int, progress: Progress | None = None) -> Iterator[int]:
        """Draw positions of so many recordings, all of them unless those that are kept hold `MOST_EVENTS` before."""
        order = np.random.default_rng(seed).permutation(count).tolist()
        for row in progress(order) if progress else order:
            if self._total > MOST_EVENTS and len(self._events) >= FEWEST_KEPT:
                log.warning(
                    "%d of %d recordings hold %s events, and no more are read: of shorter ones more are",
                    len(self._events), count, f"{self._total:,}",
                )  # fmt: skip
                return
            yield row


class StaticImages(NamedTuple):
    """Some static images as they lie on a sensor."""

    placed: NDArray[np.float32]
    """[m,1,FS,FS] in [0, 1], colours as static pools hold them, see `colour.POOLED`."""
    aspect: tuple[float, ...]
    """Widths of images relative to their heights: the `ASPECTS`."""
    placing: Placing
    """How they lie there; as fine as they are."""


def read_static_images(folder: Path, placing: Placing, *, most: int, seed: int, finest: int = 1) -> StaticImages:
    """Read static images below a folder, also MNIST's idx files, at most so many, drawn by the seed.

    They are placed on the sensor with their aspect kept, as a conversion does it that knows how the camera saw them;
    `finest` times as fine as its frames are, where most of them have that many details.

    Raises:
        LayoutError: no images there.
        RecordingError: one cannot be decoded.
    """
    images, read = image_files(folder)
    drawn = draw_rows(len(images), most, seed)
    some = [drawn[row] for row in draw_rows(len(drawn), SAMPLE, seed)]
    placing = placing.for_images((read(row).shape for row in some), finest)
    placed, aspects = np.empty((len(drawn), 1, placing.side, placing.side), np.float32), list[float]()
    for number, row in enumerate(drawn):
        image = read(row)
        aspects.append(image.shape[1] / image.shape[0])
        placed[number] = as_grey(placing.place(image, POOLED))
    return StaticImages(placed, tuple(np.quantile(aspects, ASPECTS).tolist()), placing)


def as_grey(placed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return bytes as numbers in [0, 1]."""
    grey: NDArray[np.float32] = placed.astype(np.float32) / np.float32(255)
    return grey


def image_files(folder: Path) -> tuple[list[tuple[Path, int]], Callable[[int], NDArray[np.uint8]]]:
    """List the static images below a folder, files before those of MNIST's idx files.

    Returns:
        Paths and rows, -1 for a file that is one image; what decodes the image at a position, uint8 [H,W,3]. Integers
        of more than 8 bits are scaled by one depth, the least that holds the largest value of all images.

    Raises:
        LayoutError: no images there.
    """
    if not folder.is_dir():
        raise LayoutError(f"{folder}: no such folder; expected the static images that the recordings show.")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not is_litter(p) and not p.name.startswith("."))
    listed: list[tuple[Path, int]] = [(p, -1) for p in files if p.suffix.lower() in EXTENSIONS]
    arrays = {p: idx.read(p) for p in files if p.name.endswith(IDX)}
    listed += [(p, i) for p, images in arrays.items() for i in range(len(images))]
    if not listed:
        raise LayoutError(f"{folder}: no image below it; expected {', '.join(EXTENSIONS)}, or MNIST's idx files.")
    bits = common_bits(p for p, row in listed if row < 0)

    def read(position: int) -> NDArray[np.uint8]:
        path, row = listed[position]
        return read_image(path, bits=bits) if row < 0 else np.repeat(arrays[path][row][..., None], 3, -1)

    return listed, read


def read_located(file: Path, table: Mapping[str, Any] | None = None) -> Events:
    """Read a recording; errors name its path, as the formats know its name alone.

    Raises:
        RecordingError: as `formats.recording.read`.
    """
    try:
        return recording_files.read(file, TableOptions(**table or {}))
    except RecordingError as error:
        message = f"{file}: {str(error).removeprefix(f'{file.name}: ')}"
        raise RecordingError(message, reason=error.reason, counts=error.counts) from error


def smallest_sensor(events: Sequence[Events]) -> tuple[Size, str]:
    """Return the smallest sensor (W, H) that holds all events of some recordings, and how it is known."""
    width, height = np.max([_reach(one) for one in events], axis=0)
    return (int(width), int(height)), "smallest that holds all events"


def from_first(events: Events) -> Events:
    """Return events with t from the first of them, and what is doubtful about their file."""
    return Events(events.t - events.t[0], events.x, events.y, events.p, doubts=events.doubts)


def warn_of(names: Sequence[str], events: Sequence[Events], sensor: Size) -> None:
    """Warn of what may be wrong with recordings of one camera and one kind of movement."""
    _doubt_files(names, events)
    _doubt_one_camera(names, events, sensor)
    doubt_one_movement(names, np.array([one.duration_us for one in events]))
    one_sided = [name for name, one in zip(names, events, strict=True) if one.p.min() == one.p.max()]
    if one_sided:
        log.warning(
            "%d of %d recordings have events of one polarity, such as %s: thresholds are judged by both. Look with "
            "`spikebridge inspect` at what their files hold", len(one_sided), len(names), one_sided[0],
        )  # fmt: skip


def _doubt_files(names: Sequence[str], events: Sequence[Events]) -> None:
    """Warn of what is doubtful about files, each kind of doubt once."""
    cases = ((name, doubt) for name, one in zip(names, events, strict=True) for doubt in one.doubts)
    for (name, doubt), *more in group_alike(cases):
        log.warning("%s%s: %s", name, f" and {len(more):,} more" if more else "", doubt)


def doubt_one_movement(names: Sequence[str], durations: NDArray[np.int64]) -> None:
    """Warn where recordings are of very unequal length [n] in us: a path has its times in shares of it."""
    short, long = np.quantile(durations, (SHORT, LONG))
    if long > UNLIKE * short or durations.max() > UNLIKE**2 * durations.min():
        least, most = int(durations.argmin()), int(durations.argmax())
        log.warning(
            "recordings last from %.3g s (%s) to %.3g s (%s), in the median %.3g s, and each counts as the whole of "
            "one movement: name those that are of one length, or cut them alike",
            durations[least] / 1e6, names[least], durations[most] / 1e6, names[most], np.median(durations) / 1e6,
        )  # fmt: skip


def _doubt_one_camera(names: Sequence[str], events: Sequence[Events], sensor: Size) -> None:
    """Warn where some recordings end in the first half of the sensor both ways, and others reach nearly across it.

    And where all of them end there, as those of a smaller sensor do.
    """
    reached = np.array([_reach(one) for one in events])  # [n,2]
    share = reached / sensor
    if (share <= HALF).all():
        log.warning(
            "all %d recordings have events within %dx%d of the %dx%d pixels alone. If the sensor is another, give it "
            "with --sensor; if not, they are compared in few of its cells",
            len(events), *reached.max(0), *sensor,
        )  # fmt: skip
    small, large = np.flatnonzero((share <= HALF).all(1)), np.flatnonzero((share >= NEARLY_ALL).all(1))
    if min(len(small), len(large)) < FEWEST_TO_DOUBT:
        return
    width, height = reached[small].max(0)
    log.warning(
        "%d of %d recordings have events within %dx%d of the %dx%d pixels alone, such as %s, others nearly all over: "
        "are they of one camera? Those of two make a camera that is neither",
        len(small), len(events), width, height, *sensor, names[small[0]],
    )  # fmt: skip


def _reach(events: Events) -> Size:
    return int(events.x.max()) + 1, int(events.y.max()) + 1


def stated_sensor(files: Sequence[Path]) -> tuple[Size | None, str]:
    """Return the sensor (W, H) that recordings or folders above them state, None where none does; and how it is known.

    What a folder states, by `sensor.txt` or the simulator's note, holds for all below it, as in a conversion. Files
    whose header cannot be read state nothing: whoever reads them says so.

    Raises:
        LayoutError: of several sensors; or what a folder states is damaged.
    """
    folders = {folder: _stated_above(folder) for folder in {file.parent for file in files}}
    sizes = {file: folders[file.parent][0] or stated_size(file) for file in files}
    counts = Counter(size for size in sizes.values() if size)
    if len(counts) > 1:
        examples = {size: file for file, size in reversed(sizes.items())}
        raise LayoutError(
            "recordings of several sensors: "
            + ", ".join(f"{n:,} of {describe(size)} (such as {examples[size]})" for size, n in counts.most_common())
            + ". A camera has one: name the recordings of one camera, or its sensor with --sensor WxH."
        )
    if not counts:
        return None, ""
    where = {name for _, name in folders.values() if name}
    return next(iter(counts)), f"stated by {where.pop() if len(where) == 1 else 'the files'}"


def _stated_above(folder: Path) -> tuple[Size | None, str]:
    """Return what a folder of recordings, or one above it, states of their sensor, and the file that does."""
    for one in (folder, *folder.absolute().parents[:NOTE_ABOVE]):
        size, shown_fraction = find_sensor(one)
        if size is not None:
            return size, SENSOR_FILE if shown_fraction is None else SIMULATION_NOTE  # which states both
    return None, ""


def are_simulated(paths: Iterable[Path]) -> bool:
    """Return whether `spikebridge simulate` made some of recordings or folders of them, by its note above them."""
    above = {folder for path in paths for folder in (path, *path.absolute().parents[:NOTE_ABOVE])}
    return any(find_simulation_note(folder) for folder in above)


def draw_rows(count: int, most: int, seed: int) -> list[int]:
    """Draw at most so many positions, in order."""
    if count <= most:
        return list(range(count))
    rows: list[int] = sorted(np.random.default_rng(seed).choice(count, most, replace=False).tolist())
    return rows
