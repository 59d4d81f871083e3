"""A shard set of several GB: made, verified and read for training, each in a process that reports its memory.

Command:   python tests/support/large_set.py write|verify|train FOLDER GIGABYTES [--format F] [--codec C]
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import numpy as np
from memory import peak_bytes

from spikebridge.pipeline.datasets.pairs import DatasetCard, Listing, PairReader, Recording, StaticImage, register
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.settings import ConversionSettings

BINS, SIZE, CLASSES, PER_SHARD, EVENTS = 10, 48, 10, 5000, 300
SAMPLE_BYTES = BINS * 2 * SIZE * SIZE
IMAGES_PER_CLASS = 30_000


class Generated(PairReader):
    """Recordings and images that are made when they are read, each from its number; all for training."""

    name = "generated"
    card = DatasetCard("generated", "numbers", "numbers", "nowhere", "CC0", "nobody", "exact", {}, simulated=True)

    def list_pair(self, events_root, static_root):
        count = int((events_root / "count").read_text())
        path = str(events_root / "count")
        images = tuple(
            StaticImage(f"{k}/{i:06d}", path, k, "train", f"{i:06d}", row=k * IMAGES_PER_CLASS + i)
            for k in range(CLASSES)
            for i in range(IMAGES_PER_CLASS)
        )
        recordings = tuple(
            Recording(f"{i:08d}", path, i % CLASSES, "train", f"{i:08d}", f"{i % CLASSES}/{i % IMAGES_PER_CLASS:06d}")
            for i in range(count)
        )
        return Listing(tuple(map(str, range(CLASSES))), recordings, images, (SIZE, SIZE))

    def read_events(self, recording):
        rng = np.random.default_rng(int(recording.name))
        t = np.sort(rng.integers(0, 300_000, EVENTS))
        x, y = rng.integers(0, SIZE, (2, EVENTS), dtype=np.int32)
        return Events(t=t, x=x, y=y, p=rng.integers(0, 2, EVENTS, dtype=np.uint8))

    def read_image(self, image):
        return np.random.default_rng(image.row).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def write(folder, *, gigabytes, format_, codec):
    """Convert as `preprocess` does, to shards and a static pool too large to be kept; returns the number of samples."""
    settings = ConversionSettings(
        dataset="generated",
        protocol="legacy",
        time_bins=BINS,
        size=SIZE,
        samples_per_shard=PER_SHARD,
        format=format_,
        codec=codec,
    )
    count = -(-int(gigabytes * 1e9) // (SAMPLE_BYTES * PER_SHARD)) * PER_SHARD
    raw = folder.with_name("raw")
    raw.mkdir()
    (raw / "count").write_text(str(count))
    manifest = convert(prepare(settings, events_root=raw, static_root=raw), folder).manifest
    assert manifest["static"]["roles"]["pool"] == CLASSES * IMAGES_PER_CLASS
    return manifest["splits"]["train"]["samples"]


def check(folder):
    """Verify; returns the number of samples."""
    from spikebridge.pipeline.checks.verify import verify

    found = verify(folder)
    assert found.ok, found.problems[:3]
    return found.samples


def train(folder):
    """One pass over random batches as training reads them from the disk; returns the number of samples."""
    import torch

    from spikebridge.pipeline.shards.reader import ShardSet
    from spikebridge.train.config.settings import TrainSettings
    from spikebridge.train.data.batches import TrainingBatches

    settings = TrainSettings(method="kt", model="scnn", batch_size=64, epochs=1, lr=1e-3, augmentation="none")
    batches = TrainingBatches(
        ShardSet(folder), settings, device=torch.device("cpu"), needs_static=True, residence="disk"
    )
    seen, labels = 0, 0
    for index in range(batches.steps_per_epoch):
        batch = batches.batch(0, index)
        assert batch.images is not None
        assert batch.events.shape == (BINS, len(batch.labels), 2, SIZE, SIZE)
        seen, labels = seen + len(batch.labels), labels + int(batch.labels.sum())
    assert labels == seen // CLASSES * sum(range(CLASSES))
    return seen


def main():
    """Do one of the three and say samples, seconds and peak memory as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=("write", "verify", "train"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("gigabytes", type=float)
    parser.add_argument("--format", default="webdataset")
    parser.add_argument("--codec", default="raw")
    given = parser.parse_args()
    register(Generated)
    start = time.perf_counter()
    if given.step == "write":
        count = write(given.folder, gigabytes=given.gigabytes, format_=given.format, codec=given.codec)
    else:
        count = check(given.folder) if given.step == "verify" else train(given.folder)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in given.folder.iterdir())
    peak = peak_bytes()
    print(json.dumps({"step": given.step, "samples": count, "seconds": seconds, "set_bytes": size, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
