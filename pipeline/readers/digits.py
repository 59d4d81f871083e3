"""The built-in data set: simulated recordings of scikit-learn's handwritten digits, made by `spikebridge simulate`.

The recordings are in the format and layout of N-MNIST, so the reader of N-MNIST lists and decodes them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.datasets.layout import child, entries, find_root
from spikebridge.pipeline.datasets.pairs import (
    OFFICIAL,
    DatasetCard,
    Listing,
    PairReader,
    Recording,
    StaticImage,
    register,
)
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import PackedEvents
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.images.decode import decode_image
from spikebridge.pipeline.readers.nmnist import (
    DIGITS,
    SENSOR_SIZE,
    SHOWN_FRACTION,
    SUBSETS,
    digit_folders,
    list_digit_recordings,
)


@register
class Digits(PairReader):
    """Simulated digit recordings with the photographs they were simulated from; pairs are exact."""

    name = "digits"
    card = DatasetCard(
        title="digits: simulated recordings of the handwritten digits of scikit-learn",
        events_layout="{Train,Test}/<digit>/<NNNNN>.bin",
        static_layout="{Train,Test}/<digit>/<NNNNN>.png, NNNNN the 1-based index of the digit",
        download="made on this machine: spikebridge simulate digits --out RAW",
        licence="images: CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits); simulated recordings: the same",
        citation="Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, "
        "doi:10.24432/C50P49. The event recordings are simulated.",
        pairing="exact",
        expected={"train": 1438, "test": 359},
        images="1,797, one of each recording",
        splits=OFFICIAL + "legacy: the same subsets, nothing validates",
        simulated=True,
    )

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        recordings, notes = list_digit_recordings(events_root)
        root = find_root(
            static_root,
            below=("static",),
            holds=lambda folder: any(digit_folders(folder, subset, ".png") for subset in SUBSETS),
            what="static",
            layout=self.card.static_layout,
        )
        images = []
        for folder, subset in SUBSETS.items():
            subset_folder = child(root, folder)
            for path in (p for digit in (entries(subset_folder) if subset_folder else ()) for p in entries(digit)):
                if path.parent.name not in DIGITS or path.suffix.lower() != ".png":
                    raise LayoutError(f"{path} does not belong here; expected {self.card.static_layout}. Move it out.")
                name = f"{folder}/{path.parent.name}/{path.stem}"
                stem = f"{subset}{path.stem}"
                images.append(StaticImage(name, path, int(path.parent.name), subset, stem))
        if not images:
            raise LayoutError(f"{root}: no images found; expected {self.card.static_layout}.")
        joined = [
            Recording(r.name, r.path, r.label, r.subset, r.stem, image=r.name)
            for r in sorted(recordings, key=lambda r: r.name)
        ]
        images.sort(key=lambda image: image.name)
        return Listing(DIGITS, tuple(joined), tuple(images), SENSOR_SIZE, SHOWN_FRACTION, notes=tuple(notes))

    def read_events(self, recording: Recording) -> Events:
        return bin40.decode(recording.path.read_bytes(), source=f"{recording.name}.bin")[0]

    def read_packed(self, recording: Recording, *, sensor_size: tuple[int, int]) -> PackedEvents:
        data = recording.path.read_bytes()
        return bin40.decode_packed(data, sensor_size=sensor_size, source=f"{recording.name}.bin")

    def read_image(self, image: StaticImage) -> NDArray[np.uint8]:
        return decode_image(image.path.read_bytes(), source=f"{image.name}.png")
