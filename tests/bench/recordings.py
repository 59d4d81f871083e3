"""Raw data for the benchmarks: N-MNIST and MNIST in their own formats, random but seeded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikebridge.pipeline.containers import idx
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings


def random_events(seed: int, *, count: int, size: tuple[int, int], duration_us: int) -> Events:
    """Sorted events, denser in the middle of the sensor as real ones are."""
    rng = np.random.default_rng(seed)
    x, y = ((n * rng.beta(3, 3, count)).astype(np.int32) for n in size)
    t = np.sort(rng.integers(0, duration_us, count)).astype(np.int64)
    return Events(t, x, y, rng.integers(0, 2, count, np.uint8))


def write_nmnist(root: Path, *, train: int, test: int, events: int) -> Path:
    """Folders `events/` and `static/` of N-MNIST and MNIST: 34x34 pixels, 300 ms, random images."""
    for folder, prefix, count in (("Train", "train", train), ("Test", "t10k", test)):
        rng = np.random.default_rng([7, count])
        labels = (np.arange(count) % 10).astype(np.uint8)
        (root / "static").mkdir(parents=True, exist_ok=True)
        idx.write(root / "static" / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), np.uint8))
        idx.write(root / "static" / f"{prefix}-labels-idx1-ubyte", labels)
        for i, label in enumerate(labels):
            path = root / "events" / folder / str(label) / f"{i + 1:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            recording = random_events(len(folder) * 100_000 + i, count=events, size=(34, 34), duration_us=300_000)
            path.write_bytes(bin40.encode(recording))
    return root


def convert_nmnist(root: Path, out: Path, *, size: int, store: str = "") -> ShardSet:
    """The shard set of what `write_nmnist` wrote: 10 bins, one process."""
    settings = ConversionSettings(dataset="nmnist", time_bins=10, size=size, store=store)
    convert(prepare(settings, events_root=root, static_root=root), out)
    return ShardSet(out)
