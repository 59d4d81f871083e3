"""A shard set of several GB: made, verified and read for training, each in a process that reports its memory.

Command:   python tests/pipeline/large_set.py write|verify|train FOLDER GIGABYTES [--format F] [--codec C]
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from memory import peak_bytes

from pipeline import manifest as manifests
from pipeline.files import file_entry
from pipeline.finish import checksums
from pipeline.shards import EXTENSION, Sample, write_shard
from pipeline.static_pool import STATIC_FILE, StaticImages, write_static

SHAPE, CLASSES, PER_SHARD = (10, 2, 48, 48), 10, 5000
SAMPLE_BYTES = 10 * 2 * 48 * 48
IMAGES_PER_CLASS = 30_000


class Pictures:
    """Images [N,1,48,48] that are made when they are asked for."""

    shape = (CLASSES * IMAGES_PER_CLASS, 1, 48, 48)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        numbers = np.arange(*rows.indices(len(self)))
        return np.random.default_rng(int(numbers[0])).integers(0, 256, (len(numbers), 1, 48, 48), dtype=np.uint8)


def samples(first, count):
    """Sparse random frames, 64 of them over and over, each with a pixel of its own."""
    rng = np.random.default_rng(0)
    frames = rng.poisson(0.1, (64, *SHAPE)).astype(np.uint8)
    for i in range(first, first + count):
        mine = frames[i % 64].copy()
        mine.reshape(-1)[:8] = np.frombuffer(i.to_bytes(8, "little"), np.uint8)
        metadata = {"events_sha256": hashlib.sha256(mine).hexdigest(), "static": f"static-{i % CLASSES}-{i % 1000:06d}"}
        yield Sample(f"train-{i % CLASSES}-{i:08d}", i % CLASSES, mine, json.dumps(metadata | {"source": f"{i}.bin"}))


def write(folder, *, gigabytes, format_, codec):
    """Write shards, a static pool that is too large to be kept, and a manifest; returns the number of samples."""
    folder.mkdir()
    shards = -(-int(gigabytes * 1e9) // (SAMPLE_BYTES * PER_SHARD))
    files = []
    for number in range(shards):
        path = folder / f"events-train-{number:05d}{EXTENSION[format_]}"
        made = samples(number * PER_SHARD, PER_SHARD)
        files += write_shard(path, made, shape=SHAPE, dtype=np.dtype("u1"), key_bytes=16, codec=codec).files
    number = len(Pictures())
    static = StaticImages(
        images=Pictures(),
        labels=np.repeat(np.arange(CLASSES), IMAGES_PER_CLASS),
        keys=tuple(f"static-{k}-{i:06d}" for k in range(CLASSES) for i in range(IMAGES_PER_CLASS)),
        roles=("pool",) * number,
        pixels_sha256=np.random.default_rng(1).integers(0, 256, (number, 32), dtype=np.uint8),
        class_offsets=np.arange(CLASSES + 1) * IMAGES_PER_CLASS,
    )
    write_static(folder / STATIC_FILE, static)
    files.append(file_entry(folder / STATIC_FILE, number))
    count = shards * PER_SHARD
    none = {"samples": 0, "per_class": [0] * CLASSES}
    content = {
        "schema": 1,
        "dataset": "digits",
        "settings": {"format": format_, "codec": codec, "protocol": "strict", "encoding": "v"},
        "classes": [str(k) for k in range(CLASSES)],
        "sample": {"axes": "TPHW", "shape": list(SHAPE), "dtype": "|u1"},
        "splits": {
            "train": {"samples": count, "per_class": [count // CLASSES] * CLASSES},
            "validation": none,
            "test": none,
        },
        "static": {
            "shape": [1, 48, 48],
            "images": number,
            "roles": {"pool": number, "validation": 0, "test": 0, "duplicate": 0},
        },
        "files": files,
        "pairing": {"kind": "exact", "protocol": "strict"},
        "simulated": True,
    }
    (folder / manifests.CHECKSUMS).write_text(checksums(files))
    manifests.write(folder, manifests.seal(content))
    return count


def check(folder):
    """Verify; returns the number of samples."""
    from pipeline.verify import verify

    found = verify(folder)
    assert found.ok, found.problems[:3]
    return found.samples


def train(folder):
    """One pass over random batches as training reads them from the disk; returns the number of samples."""
    import torch

    from pipeline.shardset import ShardSet
    from train.batches import TrainingBatches
    from train.settings import TrainSettings

    settings = TrainSettings(method="kt", model="scnn", batch_size=64, epochs=1, lr=1e-3, augmentation="none")
    batches = TrainingBatches(
        ShardSet(folder), settings, device=torch.device("cpu"), needs_static=True, residence="disk"
    )
    seen, labels = 0, 0
    for index in range(batches.steps_per_epoch):
        batch = batches.batch(0, index)
        assert batch.images is not None
        assert batch.events.shape[1:] == (len(batch.labels), *SHAPE[1:])
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
