"""CEP-DVS in its true layout: MAT files, images and pathFile.csv."""

import io

import numpy as np
import scipy.io
from conftest import make_events
from PIL import Image

from spikebridge.pipeline.readers.cepdvs import SENSOR_SIZE

USED = ("fish", "people", "vehicles_2")
COUNT = 24


def columns(seed, **changed):
    """Variables of a recording as MATLAB would hold them: 2-D, p in {-1, 1}."""
    events = make_events(seed, size=SENSOR_SIZE)
    p = events.p.astype(np.int8) * 2 - 1
    return {"x": events.x[None], "y": events.y[None], "ts": events.t[:, None], "p": p[None], **changed}


def mat_bytes(variables, *, compressed=True):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables, do_compression=compressed)
    return buffer.getvalue()


def write_raw(root, count=COUNT):
    """Recordings 0 to count-1, classes in turn, every other image a PNG."""
    (root / "data" / "MAT" / "img").mkdir(parents=True)
    (root / "data" / "img").mkdir()
    rows = ["idx scene path shot class more"]
    for i in range(count):
        rows.append(f"{i} s{i % 4} /some/where/{i} 1 {USED[i * 7 % 3]} x")
        data = mat_bytes(columns(i), compressed=i % 2 == 0)
        (root / "data" / "MAT" / "img" / f"{i}.mat").write_bytes(data)
        pixels = np.random.default_rng(i).integers(0, 256, (26, 34, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "data" / "img" / f"{i}{('.jpg', '.png')[i % 2]}")
    (root / "pathFile.csv").write_text("\n".join(rows) + "\n")
    return root
