"""N-Caltech101 and Caltech101 in their true layout."""

import numpy as np
from conftest import make_events
from PIL import Image

from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40

CLASSES = {"BACKGROUND_Google": 6, "Faces_easy": 5, "accordion": 5, "yin_yang": 4}


def write_jpeg(path, seed, *, grey=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    size = rng.integers(20, 60, 2)
    pixels = rng.integers(0, 256, size if grey else (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="JPEG")


def shifted(seed, *, dx, dy):
    events = make_events(seed, size=(100, 80))
    return Events(events.t, events.x + dx, events.y + dy, events.p)


def write_raw(root, classes=CLASSES):
    """Recordings and photographs with the oddities of the real ones; numbers begin at 1."""
    for c, (name, count) in enumerate(classes.items()):
        (root / "Caltech101" / name).mkdir(parents=True)
        for i in range(1, count + 1):
            events = shifted(100 * c + i, dx=3 * i, dy=2 * i)
            (root / "Caltech101" / name / f"image_{i:04d}.bin").write_bytes(bin40.encode(events))
            path = root / "101_ObjectCategories" / name / f"image_{i:04d}.jpg"
            write_jpeg(path, 100 * c + i, grey=i == 2)
    if "BACKGROUND_Google" in classes:
        (root / "101_ObjectCategories" / "BACKGROUND_Google" / "tmp").write_bytes(b"not part of the set")
    for i in (1, 2):
        write_jpeg(root / "101_ObjectCategories" / "Faces" / f"image_{i:04d}.jpg", i)
    return root
