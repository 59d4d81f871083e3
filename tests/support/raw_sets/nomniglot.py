"""N-Omniglot in its true layout: AEDAT4 files, tables of windows and drawings."""

from dataclasses import replace

import numpy as np
from conftest import make_events
from event_files import EPOCH_US, join, later, write_aedat4
from PIL import Image

from spikebridge.pipeline.readers import nomniglot

CHARACTERS = (
    ("background", "Alphabet_of_the_Magi", "Alphabet of the Magi", "01", "0001"),
    ("background", "Zulu", "Zulu", "02", "0964"),
    ("evaluation", "Angelic", "Angelic", "01", "0965"),
)
"""Set, alphabet as Omniglot spells it, as N-Omniglot does, character, number."""
PERIOD_US = 50_000


def drawer_events(number, drawer):
    return make_events(int(number) * 100 + drawer, count=60, size=nomniglot.SENSOR_SIZE, duration_us=40_000)


def write_raw(root):
    """Three characters with 20 drawers each, noise between the recordings, and a drawing for each."""
    for folder, omniglot, ours, character, number in CHARACTERS:
        file = root / "events" / f"dvs_{folder}" / ours / f"character{character}" / f"{number}.aedat4"
        parts, lines = [], ["index,start,end"]
        for drawer in range(1, 21):
            start = EPOCH_US + drawer * PERIOD_US
            events = later(drawer_events(number, drawer), start)
            end = int(events.t[-1]) + 1
            noise = make_events(drawer, count=5, size=nomniglot.SENSOR_SIZE, duration_us=100)
            parts += [events, replace(noise, t=np.full(5, end))]  # at the end, which is exclusive
            lines.append(f"{drawer - 1},{events.t[0]},{end}")
            drawing = root / "static" / f"images_{folder}" / omniglot / f"character{character}"
            drawing.mkdir(parents=True, exist_ok=True)
            paper = np.random.default_rng([int(number), drawer]).integers(0, 2, (105, 105)).astype(bool)
            Image.fromarray(paper).save(drawing / f"{number}_{drawer:02d}.png")
        write_aedat4(file, join(parts), others=number == "0001")
        file.with_suffix(".csv").write_text("\n".join(lines) + "\n")
    return root
