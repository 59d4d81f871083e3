"""Draw the figure of the first page from a shard set and the table of `make ablate`.

    .venv/bin/python docs/pictures.py data/shards/digits-... docs/results/ablation-digits-....json docs/overview.png

Left: static images of the held-out part and the recordings simulated from them. Right: test accuracy against the number
of labelled recordings per class, mean and standard deviation over the seeds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.static_pool import read_static

ON, OFF = np.array([213, 94, 0]) / 255, np.array([0, 114, 178]) / 255  # vermilion and blue: safe for colour-blind eyes
NAMES = {"event only": "events only", "kt": "with static images (kt)", "best": "static images as recordings (best)"}
COLOURS = {"event only": "#767676", "kt": "#0072b2", "best": "#d55e00"}


def paint(frame: np.ndarray) -> np.ndarray:
    """One frame [P,H,W] of counts on white: ON orange, OFF blue."""
    off, on = np.sqrt(frame.astype(float) / max(1, frame.max()))
    return np.clip(1 - on[..., None] * (1 - ON) - off[..., None] * (1 - OFF), 0, 1)


def main(shard_path: Path, table_path: Path, out: Path) -> None:
    """Write the figure."""
    shards = ShardSet(shard_path)
    test, static = shards.split("test"), read_static(shard_path / "static.h5")
    figure = plt.figure(figsize=(10, 3.4), dpi=150)
    grid = figure.add_gridspec(3, 12, left=0.01, right=0.985, top=0.9, bottom=0.14, wspace=0.08, hspace=0.08)
    steps = np.linspace(0, shards.sample_shape[0] - 1, 6).round().astype(int)
    for row, label in enumerate((3, 5, 8)):
        position = int(np.flatnonzero(test.labels == label)[0])
        stem = test.keys[position].rsplit("-", 1)[1]
        image = static.images[static.keys.index(f"static-{label}-test{stem}")]
        cells = [image[0], *(paint(frame) for frame in test.read([position])[0][steps])]
        for column, cell in enumerate(cells):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(cell, cmap="gray")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color("#dddddd")
            if row == 0:
                axes.set_title("static image" if column == 0 else f"bin {steps[column - 1] + 1}", fontsize=7)
    axes = figure.add_subplot(grid[:, 8:])
    lines = json.loads(table_path.read_text())["table"]
    numbers = sorted({line["amount"] for line in lines})
    for row, name in NAMES.items():
        found = sorted((line for line in lines if line["row"] == row), key=lambda line: line["amount"])
        mean = [100 * line["test_accuracy_mean"] for line in found]
        std = [100 * line["test_accuracy_std"] for line in found]
        axes.errorbar(numbers, mean, std, color=COLOURS[row], marker="o", ms=4, capsize=3, label=name)
    axes.set_xscale("log")
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.minorticks_off()
    axes.set_xlabel("labelled recordings per class", fontsize=8)
    axes.set_ylabel("test accuracy in %", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("digits, simulated recordings", fontsize=8)
    figure.savefig(out, metadata={"Software": None})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
