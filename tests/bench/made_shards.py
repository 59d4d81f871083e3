"""Shard sets of random frames and images, written by the pipeline's own writers with numpy and h5py alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from spikebridge.pipeline.base.files import file_entry
from spikebridge.pipeline.shards import manifest
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.shards.static_pool import ROLES, STATIC_FILE, StaticImages, write_static
from spikebridge.pipeline.shards.writer import Sample, write_shard

PER_SHARD = 200
CHANNELS = 1


def write_shards(
    folder: Path, *, recordings: int, classes: int, images: int, size: int, time_bins: int, seed: int = 0
) -> ShardSet:
    """A complete shard set (schema and checksums included) with recordings in the training split only.

    Args:
        folder: new.
        recordings: of the training split, spread over the classes.
        classes: K.
        images: of the static pool, spread over the classes.
        size: side of frames and images.
        time_bins: T.
        seed: of the random counts (Poisson, mean .3) and images.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    settings = ConversionSettings(dataset="nmnist", time_bins=time_bins, size=size)
    shape, dtype = (time_bins, 2, size, size), np.dtype("uint8")
    labels = np.sort(np.arange(recordings) % classes)
    keys = [f"train-{label:04d}-{number:06d}" for number, label in enumerate(labels)]
    files = []
    for number, start in enumerate(range(0, recordings, PER_SHARD)):
        samples = (
            Sample(key, int(label), rng.poisson(0.3, shape).astype(dtype), json.dumps({"events": 0, "static": None}))
            for key, label in zip(keys[start : start + PER_SHARD], labels[start : start + PER_SHARD], strict=True)
        )
        path = folder / f"events-train-{number:05d}.tar"
        files += write_shard(path, samples, shape=shape, dtype=dtype, key_bytes=max(map(len, keys))).files
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
        "schema": 1,
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
    manifest.write(folder, manifest.seal(content))
    return ShardSet(folder)
