"""The settings of a conversion that change bytes, their checks, and their hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pipeline.errors import SettingsError

SCHEMA_VERSION = 1
"""Version of the shard-set layout that this code writes, and the newest that it reads."""

CHOICES: dict[str, tuple[str, ...]] = {
    "protocol": ("strict", "legacy"),
    "reduction": ("sum", "bilinear", "frequency", "event"),
    "extent": ("recording", "canvas"),
    "encoding": ("v", "luma", "rgb", "hsv"),
    "dtype": ("uint8", "uint16", "float16"),
    "format": ("webdataset", "hdf5"),
    "codec": ("raw", "gzip"),
}
"""Allowed values of the settings that are names."""
DTYPES = {"sum": ("uint8", "uint16"), "bilinear": ("float16",), "frequency": ("float16",), "event": ("uint8",)}
"""Types in which the frames of a reduction are stored, the default first."""


@dataclass(frozen=True, kw_only=True)
class ConversionSettings:
    """What a conversion computes; two conversions of the same raw data with equal settings give equal bytes.

    Raises:
        SettingsError: a value out of its range, or two that contradict each other.
    """

    dataset: str
    """Name of the reader."""
    protocol: str = "strict"
    """`strict`: no held-out photograph in the static pool. `legacy`: the published splits."""
    time_bins: int = 10
    """T, frames per recording, 1 to 1000."""
    size: int = 28
    """Height and width of a frame and of a static image in pixels, 1 to 1024."""
    reduction: str = "sum"
    """`sum`: every event adds 1 to one cell. `bilinear`: the published resize, corners aligned. `event`: a cell is 1
    when an event falls into it. `frequency`: rates relative to the frame's largest, as published with N-Omniglot."""
    extent: str = "canvas"
    """What is stretched to `size`: the `recording`'s own extent (max + 1) or the sensor's `canvas`."""
    encoding: str = "v"
    """Channels of the static images: `v` and `luma` one, `rgb` and `hsv` three."""
    dtype: str = ""
    """Stored type of the frames; empty chooses uint8 for `sum` and `event`, float16 for the others."""
    format: str = "webdataset"
    """Container of the event shards: tar (`webdataset`) or `hdf5`."""
    samples_per_shard: int = 1000
    """Samples in a full shard, at least 1."""
    seed: int = 0
    """Seed of the splits and of the order at writing, 0 to 2**32 - 1."""
    classes: tuple[str, ...] = ()
    """Keep only these classes; empty keeps all."""
    limit: int = 0
    """Keep at most this many recordings, taken class by class in turn; 0 keeps all."""
    splits_sha256: str = ""
    """SHA-256 of the CSV that replaces the splits; empty for none."""
    codec: str = "raw"
    """How frames are stored: `raw`, or `gzip`, five to ten times smaller and several times slower to read."""

    def __post_init__(self) -> None:
        if not self.dtype:
            object.__setattr__(self, "dtype", DTYPES.get(self.reduction, ("uint8",))[0])
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}.")
        for name, low, high in (
            ("time_bins", 1, 1000),
            ("size", 1, 1024),
            ("samples_per_shard", 1, 10**9),
            ("seed", 0, 2**32 - 1),
            ("limit", 0, 10**12),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{name} is {value}; expected {low} to {high}.")
        if self.dtype not in DTYPES[self.reduction]:
            raise SettingsError(
                f"dtype {self.dtype} does not go with reduction {self.reduction}, whose frames are stored as "
                f"{' or '.join(DTYPES[self.reduction])}."
            )

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values, in the order of their definition."""
        return {**dataclasses.asdict(self), "classes": list(self.classes)}

    @property
    def sha256(self) -> str:
        """Hash of the settings and the schema version: what `make` puts into a folder's name."""
        text = json.dumps({"schema": SCHEMA_VERSION, **self.as_dict()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def describe_difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """One line per setting that differs, `name: found there, wanted here`; empty when equal."""
    return "\n".join(
        f"  {name}: {found.get(name, 'absent')} there, {wanted.get(name, 'absent')} wanted"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    )
