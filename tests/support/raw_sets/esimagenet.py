"""ES-ImageNet in its true layout: samples, label files and images."""

import numpy as np
from PIL import Image

FOLDERS = {0: "n01440764", 3: "n01491361", 10: "n01530575"}
"""Class numbers of the label files and the folders of their photographs."""


def write_sample(path, seed, height, width, count=400):
    rng = np.random.default_rng(seed)
    arrays = {}
    for name in ("pos", "neg"):
        cells = np.stack([rng.integers(0, n, count) for n in (height, width, 8)], axis=1)
        cells[:, 2] += 1
        arrays[name] = np.concatenate([cells, cells[:50]]).astype(np.int16)  # some cells twice
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return arrays


def write_raw(root, *, train=4, val=2):
    lines = {"train": [], "val": []}
    number = 0
    for label, folder in FOLDERS.items():
        for subset, count in (("train", train), ("val", val)):
            for _ in range(count):
                number += 1
                height, width = 254 - number, 200 + number
                stem = f"{folder}_{number}" if subset == "train" else f"ILSVRC2012_val_{number:08d}"
                below = f"class{label}/{stem}" if subset == "train" else stem
                write_sample(root / "events" / subset / f"{below}.npz", number, height, width)
                lines[subset].append(f"{below}.npz {label} {height} {width}")
                image = root / "static" / subset / folder / f"{stem}.JPEG"
                image.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng([7, number]).integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(image)
    for subset, rows in lines.items():
        (root / "events" / f"{subset}label.txt").write_text("\n".join(rows) + "\n")
    return root
