"""Shard sets of random frames and images, written by the pipeline's own writers with numpy and h5py alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from recordings import random_events

from spikebridge.pipeline.base.files import file_entry
from spikebridge.pipeline.events.compact import VERSION, compact
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.shards import manifest
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.shards.static_pool import ROLES, STATIC_FILE, StaticImages, write_static
from spikebridge.pipeline.shards.writer import EVENTS, FRAMES, Sample, write_shard

PER_SHARD = 200
SENSOR = (34, 34)
OTHERS = 200
"""Recordings that differ, of those that are made of events."""
CHANNELS = 1


def write_shards(
    folder: Path,
    *,
    recordings: int,
    classes: int,
    images: int,
    size: int,
    time_bins: int,
    events: int = 0,
    seed: int = 0,
) -> ShardSet:
    """A complete shard set (schema and checksums included) with recordings in the training split only.

    Args:
        folder: new.
        recordings: of the training split, spread over the classes.
        classes: K.
        images: of the static pool, spread over the classes.
        size: side of frames and images.
        time_bins: T.
        events: of a recording, which are stored instead of frames; 0 stores frames.
        seed: of the random counts (Poisson, mean .3) or events, and images.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    store = EVENTS if events else FRAMES
    settings = ConversionSettings(dataset="nmnist", time_bins=time_bins, size=size, store=EVENTS if events else "")
    shape, dtype = (time_bins, 2, size, size), np.dtype("uint8")
    labels = np.sort(np.arange(recordings) % classes)
    keys = [f"train-{label:04d}-{number:06d}" for number, label in enumerate(labels)]
    files, text = [], json.dumps({"events": events, "static": None})
    recorded = [_random_events(number, events) for number in range(min(recordings, OTHERS))] if events else [None]
    for number, start in enumerate(range(0, recordings, PER_SHARD)):
        samples = (
            Sample(
                keys[row],
                int(labels[row]),
                rng.poisson(0.3, shape).astype(dtype) if not events else np.empty(0, dtype),
                text,
                events=recorded[row % len(recorded)],
            )
            for row in range(start, min(start + PER_SHARD, recordings))
        )
        path = folder / f"events-train-{number:05d}.tar"
        files += write_shard(path, samples, shape=shape, dtype=dtype, key_bytes=max(map(len, keys)), store=store).files
    shown = np.arange(images) % classes
    static = StaticImages.sort(
        rng.integers(0, 256, (images, CHANNELS, size, size), np.uint8),
        labels=shown.tolist(),
        keys=[f"image-{number:06d}" for number in range(images)],
        roles=["pool"] * images,
        pixels_sha256=rng.integers(0, 256, (images, 32), np.uint8),
        num_classes=classes,
    )
    write_static(folder / STATIC_FILE, static)
    files.append(file_entry(folder / STATIC_FILE, images))
    counts = np.bincount(labels, minlength=classes).tolist()
    content = {
        "schema": settings.schema,
        "dataset": settings.dataset,
        "settings": settings.as_dict(),
        "settings_sha256": settings.sha256,
        "classes": [f"class {number}" for number in range(classes)],
        "sensor_size": [size, size],
        "shown_fraction": 1.0,
        "sample": {"axes": "TPHW", "shape": list(shape), "dtype": dtype.str},
        "splits": {
            name: {"samples": sum(per_class), "per_class": per_class}
            for name, per_class in (("train", counts), ("validation", [0] * classes), ("test", [0] * classes))
        },
        "static": {
            "file": STATIC_FILE,
            "shape": [CHANNELS, size, size],
            "images": images,
            "roles": {role: images * (role == "pool") for role in ROLES},
            "classes_without_pool": [],
        },
        "events": {},
        "simulated": True,
        "pairing": {"kind": "class", "protocol": settings.protocol},
        "listing_sha256": hashlib.sha256(b"").hexdigest(),  # no raw folder held anything
        "rejected": 0,
        "notes": [],
        "files": files,
    }
    if events:
        most = max(one.size for one in recorded)
        content["stored"] = {"layout": VERSION, "most_bytes": most, "crop": None, "span_us": None}
    manifest.write(folder, manifest.seal(content))
    return ShardSet(folder)


def _random_events(seed: int, count: int) -> NDArray[np.uint8]:
    """Compact events of a recording like one of N-MNIST."""
    events = random_events(seed, count=count, size=SENSOR, duration_us=300_000)
    return compact(pack(events, sensor_size=SENSOR, source=str(seed)), sensor_size=SENSOR)
