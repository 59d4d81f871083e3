"""The built-in data set: simulated recordings of scikit-learn's handwritten digits, made by `spikebridge simulate`.

The recordings are in the format and layout of N-MNIST, so they are listed and decoded as those are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.datasets.layout import find_child, list_entries
from spikebridge.pipeline.datasets.pairs import DatasetCard, Listing, StaticImage, register
from spikebridge.pipeline.readers.nmnist import (
    DIGITS,
    SENSOR_SIZE,
    SHOWN_FRACTION,
    SUBSETS,
    DigitReader,
    find_digit_folders,
)


@register
class Digits(DigitReader):
    """Simulated digit recordings with the static images they were simulated from; pairs are exact."""

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
        simulated=True,
    )

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        recordings, notes = self.list_recordings(events_root)
        root = self.find_root(
            static_root,
            "static",
            below=("static",),
            holds=lambda folder: any(find_digit_folders(folder, subset, ".png") for subset in SUBSETS),
        )
        images = []
        for folder, subset in SUBSETS.items():
            subset_folder = find_child(root, folder)
            digits = list_entries(subset_folder) if subset_folder else []
            for path in (path for digit in digits for path in list_entries(digit)):
                if path.parent.name not in DIGITS or path.suffix.lower() != ".png":
                    raise LayoutError(f"{path} does not belong here; expected {self.card.static_layout}. Move it out.")
                name = f"{folder}/{path.parent.name}/{path.stem}"
                stem = f"{subset}{path.stem}"
                images.append(StaticImage(name, str(path), int(path.parent.name), subset, stem))
        if not images:
            raise LayoutError(f"{root}: no images found; expected {self.card.static_layout}.")
        joined = [replace(r, image=r.name) for r in sorted(recordings, key=lambda r: r.name)]
        images.sort(key=lambda image: image.name)
        return Listing(DIGITS, tuple(joined), tuple(images), SENSOR_SIZE, SHOWN_FRACTION, notes=tuple(notes))
