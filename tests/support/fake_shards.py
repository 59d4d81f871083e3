"""A shard set in memory with the attributes that training reads; every class has its own bright column."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

SETTINGS = {
    "dataset": "fake",
    "time_bins": 4,
    "size": 16,
    "reduction": "sum",
    "extent": "canvas",
    "encoding": "v",
    "protocol": "strict",
}


class FakeSplit:
    def __init__(self, name, labels, frames):
        self.labels = np.asarray(labels, dtype=np.int64)
        self.keys = tuple(f"{name}-{label}-{i:04d}" for i, label in enumerate(self.labels))
        self.frames = frames
        self.shard_of = np.arange(len(self.labels)) // 5
        self.reads, self.as_stored = 0, True

    def __len__(self):
        return len(self.labels)

    def key(self, position):
        return self.keys[position]

    def durations_us(self, positions):
        return np.full(len(positions), 200_000)

    def read(self, positions, *, changes=None):
        assert changes is None, "it stores frames"
        self.reads += 1
        return self.frames[np.asarray(positions, dtype=np.int64)]


class FakeShardSet:
    def __init__(
        self, path, *, train=24, validation=9, test=12, classes=3, channels=1, pool=5, dtype="uint8", **settings
    ):
        self.path = Path(path)
        self.settings = {**SETTINGS, **settings}
        self.classes = tuple("abcdefghij"[:classes])
        self.simulated = True
        self.sample_shape = (4, 2, 16, 16)
        self.dtype = np.dtype(dtype)
        self.store, self.arrays, self.as_stored = "frames", ("frames",), True
        shape = list(self.sample_shape)
        self.manifest = {
            "settings": self.settings,
            "sample": {"axes": "TPHW", "shape": shape, "dtype": self.dtype.str},
        }
        self.id = f"{len(str(sorted(self.settings.items()))) + train:064x}"
        self._splits = {}
        for number, (name, n) in enumerate({"train": train, "validation": validation, "test": test}.items()):
            rng = np.random.default_rng(number)
            labels = rng.permutation(np.arange(n) % classes)
            frames = rng.poisson(0.3, (n, *self.sample_shape))
            for i, label in enumerate(labels):
                frames[i, :, :, :, 4 * label : 4 * label + 3] += 2
            self._splits[name] = FakeSplit(name, labels, frames.astype(dtype))
        per_class = [pool] * classes if isinstance(pool, int) else pool
        labels = np.repeat(np.arange(classes), per_class)
        images = np.random.default_rng(9).integers(0, 60, (len(labels), channels, 16, 16))
        for i, label in enumerate(labels):
            images[i, :, :, 4 * label : 4 * label + 3] = 250
        self._pool = SimpleNamespace(
            images=images.astype(np.uint8),
            labels=labels.astype(np.int64),
            keys=tuple(f"image{i}" for i in range(len(labels))),
            class_offsets=np.concatenate([[0], np.cumsum(per_class)]).astype(np.int64),
        )

    def split(self, name):
        return self._splits[name]

    def static_pool(self):
        return self._pool


def tiny_recipe(**train):
    """A recipe for the fake shard set; keywords replace keys of [train]."""
    from spikebridge.train.config.recipes import recipe_from

    base = {"method": "kt", "model": "scnn", "width": 0.3, "epochs": 3, "batch_size": 10, "lr": 3e-3}
    return recipe_from({"shards": SETTINGS, "train": {**base, "augmentation": "crop", **train}}, name="tiny")
