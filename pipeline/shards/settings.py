"""The settings of a conversion that change bytes, their checks, and their hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.settings import field_problems, setting

if TYPE_CHECKING:  # numpy stays out of the way of --help
    from spikebridge.pipeline.events.binning import Binning
    from spikebridge.pipeline.events.filters import Filters

SCHEMA_VERSION = 2
"""Newest version of the shard-set layout that is read. Sets of frames are written as version 1, with events as 2."""

CHOICES: dict[str, tuple[str, ...]] = {
    "protocol": ("strict", "legacy", "leaky"),
    "reduction": ("sum", "bilinear", "frequency", "event", "voxel", "est", "surface", "tore"),
    "extent": ("recording", "canvas"),
    "binning": ("bins", "window", "count"),
    "encoding": ("v", "luma", "rgb", "hsv"),
    "dtype": ("uint8", "uint16", "float16"),
    "format": ("webdataset", "hdf5"),
    "codec": ("raw", "gzip"),
    "time_unit": ("s", "ms", "us", "ns"),
    "mixed_sensors": ("scale",),
    "fit": ("pad", "crop"),
    "store": ("events", "both"),
    "pairing": ("exact", "class"),
}
"""Allowed values of the settings that are names."""
TABLES = ("columns", "group", "time_unit")
"""Settings of recordings that are tables."""
RARE = (
    *TABLES,
    "sensor",
    "mixed_sensors",
    "image_bits",
    "min_shards",
    "width",
    "fit",
    "group_by",
    "pairing",
    "labels_sha256",
    "class_map_sha256",
    "pairs_sha256",
    "published",
    "cut_us",
    "overlap_us",
    "pauses_us",
    "store",
    "tau_us",
    "latest_events",
    "preview",
)
"""Settings that no hash and no manifest holds where they are not given."""
FRAMING = (
    *("time_bins", "size", "width", "fit", "binning", "window_us", "events_per_bin"),
    *("time_window_us", "reduction", "tau_us", "latest_events", "extent", "dtype"),
)
"""Settings that say how events become frames: a set that stores events can be read with others."""
DTYPES = {name: ("float16",) for name in CHOICES["reduction"]} | {"sum": ("uint8", "uint16"), "event": ("uint8",)}
"""Types in which the frames of a reduction are stored, the default first."""

USUAL_SHARDS, FEWEST_SAMPLES = 8, 250
"""Shards that a split gets at least, where each of them holds so many samples."""


@dataclass(frozen=True, kw_only=True)
class ConversionSettings:
    """What a conversion computes; two conversions of the same raw data with equal settings give equal bytes.

    Raises:
        SettingsError: a value out of its range, or two that contradict each other.
    """

    dataset: str = setting()
    """Name of the reader."""
    protocol: str = setting("strict", choices=CHOICES["protocol"])
    """`strict`: no held-out static image in the pool. `legacy`: the published splits. `leaky`: the splits of
    `strict`, but every static image in the pool, to measure what leakage is worth."""
    time_bins: int = setting(10, low=1, high=1000)
    """T, frames per recording, 1 to 1000."""
    size: int = setting(28, low=1, high=1024)
    """Height and width of a frame and of a static image in pixels, 1 to 1024."""
    binning: str = setting("bins", choices=CHOICES["binning"])
    """How a recording is cut: `bins` of equal length, windows of `window_us`, or bins of equal `count` of events."""
    window_us: int = setting(0, low=0, high=10**9)
    """Length of a window in microseconds, 1 to 10**9; binning `window` only."""
    events_per_bin: int = setting(0, low=0, high=10**9)
    """Events of a bin, 0 to share out the recording's evenly; binning `count` only."""
    time_window_us: tuple[int, ...] = ()
    """(start, stop) in microseconds from the first event: the part of a recording that is used; empty for all."""
    hot_pixels: float = setting(0.0, low=0.0, high=1e9)
    """Leave out pixels with more than this many times the mean events of active pixels; 0 leaves none out."""
    refractory_us: int = setting(0, low=0, high=10**9)
    """Leave out events that follow on their pixel's last within this time, in microseconds; 0 leaves none out."""
    background_us: int = setting(0, low=0, high=10**9)
    """Leave out events without a neighbour's event within this time before, in microseconds; 0 leaves none out."""
    reduction: str = setting("sum", choices=CHOICES["reduction"])
    """`sum`: every event adds 1 to one cell. `bilinear`: the published resize, corners aligned. `event`: a cell is 1
    when an event falls into it. `frequency`: rates relative to the frame's largest, as published with N-Omniglot.
    `voxel`: an event is shared between the two nearest of T points in time. `est`: its time is. `surface`: how recent
    a cell's last event is. `tore`: how long ago its latest ones are. See docs/reference/representations.md."""
    extent: str = setting("canvas", choices=CHOICES["extent"])
    """What is stretched to `size`: the `recording`'s own extent (max + 1) or the sensor's `canvas`."""
    encoding: str = setting("v", choices=CHOICES["encoding"])
    """Channels of the static images: `v` and `luma` one, `rgb` and `hsv` three."""
    dtype: str = setting("", choices=CHOICES["dtype"])
    """Stored type of the frames; empty chooses uint8 for `event`, float16 for `bilinear` and `frequency`, and for `sum`
    uint8, or uint16 where uint8 would clip more than 1 % of a set's events."""
    format: str = setting("webdataset", choices=CHOICES["format"])
    """Container of the event shards: tar (`webdataset`) or `hdf5`."""
    samples_per_shard: int = setting(1000, low=1, high=10**9)
    """Samples in a full shard, at least 1."""
    min_shards: int = setting(0, low=0, high=10**6)
    """Shards of a split, at least, as far as it has samples; 0 makes 8 where each holds 250 samples or more."""
    seed: int = setting(0, low=0, high=2**32 - 1)
    """Seed of the splits and of the order at writing, 0 to 2**32 - 1."""
    classes: tuple[str, ...] = ()
    """Keep only these classes; empty keeps all."""
    limit: int = setting(0, low=0, high=10**12)
    """Keep at most this many recordings, taken class by class in turn; 0 keeps all."""
    splits_sha256: str = ""
    """SHA-256 of the CSV that replaces the splits, or of the list of a published split; empty for none."""
    codec: str = setting("raw", choices=CHOICES["codec"])
    """How frames are stored: `raw`, or `gzip`, five to ten times smaller and several times slower to read."""
    columns: tuple[str, ...] = ()
    """What the columns of the recordings are, where their files leave it open; empty finds out. Data set `folders`."""
    group: str = ""
    """Group, array or variable that holds the events in the recordings; empty searches. Data set `folders`."""
    time_unit: str = setting("", choices=("", *CHOICES["time_unit"]))
    """Unit of the recordings' times, where their files leave it open; empty infers it. Data set `folders`."""
    group_by: str = ""
    """Regular expression that finds a recording's group in its name; no split parts a group. Data set `folders`."""
    pairing: str = setting("", choices=("", *CHOICES["pairing"]))
    """Whether equal names pair recording and static image; empty pairs where any agree. Data set `folders`."""
    labels_sha256: str = ""
    """SHA-256 of the CSV that says what the recordings are; empty for none. Data set `folders`."""
    published: str = ""
    """Name of a published split that takes the place of the official one, see `pipeline.datasets.published`."""
    class_map_sha256: str = ""
    """SHA-256 of the CSV that joins classes of other names; empty for none. Data set `folders`."""
    pairs_sha256: str = ""
    """SHA-256 of the CSV that names the static image of each recording; empty for none."""

    sensor: tuple[int, ...] = setting((), low=1, high=2**14)
    """(W, H) in pixels of the sensor, whatever files say; empty takes what they say, or measures the recordings."""
    mixed_sensors: str = setting("", choices=("", *CHOICES["mixed_sensors"]))
    """With `scale`, recordings of several sensors are stretched each by its own; empty refuses them."""

    image_bits: int = setting(0, low=0, high=16)
    """Bits of a pixel in static images that have room for more than 8, 8 to 16; 0 takes what files declare, or the
    least that holds the largest value of all. Data set `folders`."""
    width: int = setting(0, low=0, high=1024)
    """Width of a frame and of a static image in pixels; 0 for `size`, which is then both."""
    fit: str = setting("", choices=("", *CHOICES["fit"]))
    """What becomes of a sensor or an image whose aspect is not the frame's: empty squashes, as published, `pad` adds
    empty stripes, `crop` cuts stripes off."""
    cut_us: int = setting(0, low=0, high=10**12)
    """Length of the parts into which recordings are cut, in microseconds; 0 leaves them whole."""
    overlap_us: int = setting(0, low=0, high=10**12)
    """Microseconds that a part has in common with the one before; with `cut_us` only."""
    pauses_us: int = setting(0, low=0, high=10**12)
    """Cut recordings where no event comes for longer than this, in microseconds; 0 does not."""

    tau_us: int = setting(0, low=0, high=10**9)
    """Time in which a cell of a `surface` decays to 1 / e, in microseconds; reduction `surface` only."""

    latest_events: int = setting(0, low=0, high=1000)
    """Latest events that a cell of `tore` shows, a frame each; reduction `tore` only."""

    store: str = setting("", choices=("", *CHOICES["store"]))
    """What is stored of a recording: empty its frames, or its `events`, of which frames are made at reading, or
    `both`: the frames are read as they are, and others made of the events."""

    preview: bool = False
    """Put a picture of every recording into the tars, `KEY.preview.png`, for the viewers of catalogues."""

    dtype_open: bool = field(default=False, compare=False, repr=False)
    """Set where no dtype is given: a conversion chooses it, see `pipeline.preprocess.survey`. In no hash."""

    def __post_init__(self) -> None:
        choices = DTYPES.get(self.reduction, ("uint8",))  # a reduction that is not known is refused below
        object.__setattr__(self, "dtype_open", not self.dtype or (self.dtype_open and self.dtype == choices[0]))
        if not self.dtype:
            object.__setattr__(self, "dtype", choices[0])
        problems = field_problems(type(self), vars(self)) or self._contradictions()
        if problems:
            raise SettingsError("; ".join(problems) + ".")

    def _contradictions(self) -> list[str]:
        """Return the contradictions between settings of the right types, one sentence each."""
        problems = [
            f"{name}: goes with binning {mode} only; binning is {self.binning}"
            for name, mode in (("window_us", "window"), ("events_per_bin", "count"))
            if getattr(self, name) and self.binning != mode
        ]
        if self.binning == "window" and not self.window_us:
            problems.append("window_us: binning window needs the length of a window; expected at least 1")
        if self.reduction == "frequency" and self.binning != "bins":
            problems.append("reduction: frequency is a rate over equal bins; expected binning bins")
        times = self.time_window_us
        if times and (len(times) != 2 or not 0 <= times[0] < times[1]):
            problems.append(f"time_window_us: found {list(times)}, expected a start from 0 on and a later stop")
        if 0 < self.image_bits < 8:
            problems.append(f"image_bits: found {self.image_bits}, expected 8 to 16")
        if self.cut_us and self.pauses_us:
            problems.append("pauses_us: recordings are cut by length (cut_us) or at pauses; leave one of the two out")
        if self.overlap_us and not self.overlap_us < self.cut_us:
            problems.append(f"overlap_us: {self.overlap_us} found; expected less than cut_us, which is {self.cut_us}")
        if self.sensor and len(self.sensor) != 2:
            problems.append(f"sensor: found {list(self.sensor)}, expected width and height in pixels")
        if self.sensor and self.mixed_sensors == "scale":
            problems.append("mixed_sensors: with sensor given there is one; leave one of the two out")
        if self.preview and self.format != "webdataset":
            problems.append(f"preview: goes with format webdataset only; format is {self.format}")
        if self.dtype not in DTYPES[self.reduction]:
            problems.append(
                f"dtype: {self.dtype} does not go with reduction {self.reduction}, whose frames are stored as "
                f"{' or '.join(DTYPES[self.reduction])}"
            )
        return problems + self._reduction_contradictions()

    def _reduction_contradictions(self) -> list[str]:
        """Return what the reduction does not go with, one sentence each."""
        problems = []
        if bool(self.tau_us) != (self.reduction == "surface"):
            problems.append(f"tau_us: {self.tau_us} found; reduction surface needs 1 or more, and no other takes it")
        if bool(self.latest_events) != (self.reduction == "tore"):
            problems.append(
                f"latest_events: {self.latest_events} found; reduction tore needs 1 or more, and no other takes it"
            )
        if self.latest_events and self.time_bins % self.latest_events:
            problems.append(
                f"time_bins: {self.time_bins} found; expected a multiple of latest_events, which is "
                f"{self.latest_events}: each bin takes so many frames"
            )
        if self.reduction in ("voxel", "est") and self.binning == "bins" and self.time_bins == 1:
            problems.append(f"time_bins: reduction {self.reduction} needs 2 points in time or more; found 1")
        return problems

    @property
    def schema(self) -> int:
        """Return the version of the shard-set layout that the set is written in."""
        return SCHEMA_VERSION if self.store else 1

    @property
    def bins(self) -> int:
        """Return into how many bins a recording is cut: one a frame, but for `tore`."""
        return self.time_bins // (self.latest_events or 1)

    @property
    def frame(self) -> tuple[int, int]:
        """Return (H, W) of a frame and of a static image in pixels."""
        return self.size, self.width or self.size

    def cut_into_shards(self, samples: int) -> list[tuple[int, int]]:
        """Return the (start, stop) of each shard of a split of so many samples.

        Shards are full but for the last, unless that gives fewer than `min_shards`: then all are of one size, to a
        sample. Several readers share a split by shards, and the stock reader fails with fewer shards than workers.
        """
        full = -(-samples // self.samples_per_shard)
        usual = USUAL_SHARDS if samples >= USUAL_SHARDS * FEWEST_SAMPLES else 0
        wanted = min(self.min_shards, samples) or usual
        if full >= wanted:
            return [(i * self.samples_per_shard, min((i + 1) * self.samples_per_shard, samples)) for i in range(full)]
        return [(i * samples // wanted, (i + 1) * samples // wanted) for i in range(wanted)]

    @cached_property
    def filters(self) -> Filters:
        """Return what is taken out of a recording before it is binned."""
        from spikebridge.pipeline.events.filters import Filters

        return Filters(self.time_window_us, self.hot_pixels, self.refractory_us, self.background_us)

    @cached_property
    def binning_rule(self) -> Binning:
        """Return how a recording is cut into time bins."""
        from spikebridge.pipeline.events.binning import Binning

        return Binning(self.binning, self.window_us, self.events_per_bin)

    @property
    def table_options(self) -> dict[str, Any]:
        """Return what `pipeline.readers.get_reader` hands on to readers of tables."""
        return {name: getattr(self, name) for name in TABLES}

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values, in the order of their definition."""
        values = {n: list(v) if isinstance(v, tuple) else v for n, v in dataclasses.asdict(self).items()}
        del values["dtype_open"]
        return {name: value for name, value in values.items() if value or name not in RARE}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ConversionSettings:
        """Return the settings that `as_dict` gave.

        Raises:
            SettingsError: they are not those of this version.
        """
        try:
            known: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
            settings = cls(**known)
        except (TypeError, KeyError) as error:
            raise SettingsError(f"these are not the settings of this version: {error}.") from error
        if settings.as_dict() != {"dtype": settings.dtype, **values}:
            raise SettingsError("these are not the settings of this version.")
        return settings

    @property
    def sha256(self) -> str:
        """Return the hash of settings and schema version: what `make` puts into a folder's name."""
        text = json.dumps({"schema": self.schema, **self.as_dict()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def describe_difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Return one line per setting that differs, `name: found there, wanted here`; empty when equal."""
    return "\n".join(
        f"  {name}: {found.get(name, 'absent')} there, {wanted.get(name, 'absent')} wanted"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    )
