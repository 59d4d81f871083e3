"""Class folders of `.bin` recordings with class folders of images: your own data, or what `simulate --images` makes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import LayoutError
from pipeline.events import Events
from pipeline.formats import bin40
from pipeline.images import EXTENSIONS, decode_image
from pipeline.pairs import (
    DatasetCard,
    Listing,
    PairReader,
    Recording,
    StaticImage,
    find_root,
    register,
    simulation_note,
)


@register
class Folders(PairReader):
    """Recordings and images joined by class and stem, or by class alone when no stem agrees."""

    name = "folders"
    card = DatasetCard(
        title="class folders of recordings and of images",
        events_layout="<class>/<stem>.bin, 40-bit events",
        static_layout="<class>/<stem>.png (or .jpg, .bmp, .gif, .tif)",
        download="your own",
        licence="as you say",
        citation="as you say",
        pairing="exact by class and stem; by class when no stem agrees",
        expected={},
    )

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        root = find_root(
            events_root,
            below=("events",),
            holds=lambda folder: any(folder.glob("*/*.bin")),
            what="events",
            layout=self.card.events_layout,
        )
        image_root = find_root(
            static_root,
            below=("static",),
            holds=lambda folder: any(path.suffix.lower() in EXTENSIONS for path in folder.glob("*/*")),
            what="static",
            layout=self.card.static_layout,
        )
        paths = sorted(root.glob("*/*.bin"))
        image_paths = sorted(path for path in image_root.glob("*/*") if path.suffix.lower() in EXTENSIONS)
        classes = tuple(sorted({path.parent.name for path in paths}))
        label = {name: i for i, name in enumerate(classes)}
        names = Counter((path.parent.name, path.stem) for path in image_paths)
        if twice := [f"{folder}/{stem}" for (folder, stem), count in names.items() if count > 1]:
            raise LayoutError(f"{image_root}: several images are called {twice[0]}; stems must differ. Rename one.")
        images = tuple(
            StaticImage(f"{p.parent.name}/{p.stem}", p, label[p.parent.name], None, p.stem)
            for p in image_paths
            if p.parent.name in label
        )
        known = {image.name for image in images}
        recordings = tuple(
            Recording(f"{p.parent.name}/{p.stem}", p, label[p.parent.name], None, p.stem, f"{p.parent.name}/{p.stem}")
            for p in paths
        )
        exact = any(recording.name in known for recording in recordings)
        if not exact:
            recordings = tuple(Recording(r.name, r.path, r.label, None, r.stem, None) for r in recordings)
        unused = sorted({path.parent.name for path in image_paths} - set(classes))
        notes = (f"no recordings of the image classes {', '.join(unused)}",) if unused else ()
        return Listing(classes, recordings, images, *_geometry(root), "exact" if exact else "class", notes)

    def read_events(self, recording: Recording) -> Events:
        return bin40.decode(recording.path.read_bytes(), source=f"{recording.name}.bin")[0]

    def read_image(self, image: StaticImage) -> NDArray[np.uint8]:
        return decode_image(image.path.read_bytes(), source=image.path.name)


def _geometry(root: Path) -> tuple[tuple[int, int], float | None]:
    """Sensor size and shown fraction of simulated recordings; else the largest sensor that the format holds."""
    note = simulation_note(root)
    if note is None:
        return (bin40.MAX_WIDTH, bin40.MAX_HEIGHT), None
    settings = json.loads(note.read_bytes())["settings"]
    return (settings["sensor_width_px"], settings["sensor_height_px"]), settings["shown_fraction"]
