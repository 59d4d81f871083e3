"""Class folders as users have them: recordings of several endings beside static images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from conftest import make_events
from event_files import dat
from PIL import Image

from spikebridge.pipeline.base.files import write_bytes
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.preprocess.prepare import Conversion, prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.settings import ConversionSettings


def put_recording(path: Path, events: Events, *, size: tuple[int, int] | None = None) -> None:
    """Write events in the format of the path's ending: .npz, which states no sensor, or .dat, which states `size`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, t=events.t, x=events.x, y=events.y, p=events.p)
    else:
        write_bytes(path, dat(events, size=size))


def put_image(path: Path, seed: int, *, size: tuple[int, int] = (9, 9)) -> None:
    """Write a random grey image of (W, H) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_own(root: Path, *, each: int = 5, size: tuple[int, int] = (30, 20), ending: str = ".npz") -> Path:
    """Write two classes, cat and dog, of `each` recordings and images with equal names; no sensor.txt."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(each):
            events = make_events(10 * label + number, count=400, size=size)
            put_recording(root / "events" / name / f"r{number}{ending}", events, size=size)
            put_image(root / "static" / name / f"r{number}.png", 10 * label + number)
    return root


def planned(root: Path, **settings: Any) -> Conversion:
    """Prepare a small conversion of such folders."""
    wanted = ConversionSettings(**{"dataset": "folders", "time_bins": 3, "size": 10, **settings})
    return prepare(wanted, events_root=root, static_root=root)


def converted(root: Path, out: Path, *, workers: int = 1, max_bad: int = 0, **settings: Any) -> dict[str, Any]:
    """Convert such folders with small settings; returns the manifest."""
    return dict(convert(planned(root, **settings), out, workers=workers, max_bad=max_bad).manifest)
