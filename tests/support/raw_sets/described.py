"""Data sets that lists or names describe, in their true layouts: some files of each, random content."""

import zipfile

import numpy as np
import scipy.io
from conftest import make_events
from event_files import aedat3, dat, write_aedat4
from PIL import Image

from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.aedat import aedat2

GESTURE_START_US = 80_000_000
"""Clock of a camera that has been running for a while."""


def small(seed, size=(30, 20)):
    return make_events(seed, count=60, size=size, duration_us=60_000)


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng([5, seed]).integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)


def gesture_events(user, light):
    events = small(10 * user + light, size=(128, 128))
    return Events(events.t + GESTURE_START_US, events.x, events.y, events.p)


def write_dvsgesture(root, users=(1, 2, 3, 24)):
    """Files of two kinds of light, two gestures and one of them again in each, and the official lists."""
    folder = root / "DvsGesture"
    folder.mkdir(parents=True)
    names = {"train": [], "test": []}
    for user in users:
        for light, kind in enumerate(("fluorescent", "led")):
            stem = f"user{user:02d}_{kind}"
            (folder / f"{stem}.aedat").write_bytes(aedat3(gesture_events(user, light), camera=b"DVS128"))
            rows = [f"{label},{GESTURE_START_US + a},{GESTURE_START_US + a + 15_000}" for label, a in ROWS]
            (folder / f"{stem}_labels.csv").write_text("\n".join(["class,startTime_usec,endTime_usec", *rows]) + "\n")
            names["test" if user > 23 else "train"].append(f"{stem}.aedat")
    for subset, files in names.items():
        (folder / f"trials_to_{subset}.txt").write_text("\n".join(files) + "\n")
    return root


ROWS = ((1, 0), (11, 20_000), (1, 40_000))
"""Gesture and start of the rows of every table."""


def write_slanimals(root):
    for i, session in enumerate(("imse", "indoor", "sunlight")):
        for user in (2 * i + 1, 2 * i + 2):
            (root / "allusers_aedat").mkdir(parents=True, exist_ok=True)
            (root / "tags").mkdir(exist_ok=True)
            stem = f"user{user}_{session}"
            (root / "allusers_aedat" / f"{stem}.aedat").write_bytes(aedat2.encode(small(user, size=(128, 128))))
            (root / "tags" / f"{stem}.csv").write_text("class,startTime_ev,endTime_ev\n1,0,20\n19,20,60\n")
    return root


def write_ncars(root):
    """The first layout of .dat in the training folder, the second in the test folder."""
    for top, layout, version in (("n-cars_train", 1, 1), ("n-cars_test", 2, 2)):
        for c, name in enumerate(("cars", "background")):
            for i in range(3):
                path = root / "Prophesee_Dataset_n_cars" / top / name / f"obj_{i:06d}_td.dat"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(dat(small(10 * c + i, size=(120, 100)), layout=layout, version=version))
    for name in ("cars", "background"):
        picture(root / "static" / name / "any.jpg", len(name))
    return root


def write_vectors(path, events, height=180):
    """MATLAB vectors of one column each, rows from the bottom."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"ts": events.t, "x": events.x, "y": height - 1 - events.y, "pol": events.p}
    scipy.io.savemat(path, {name: column[:, None].astype(float) for name, column in columns.items()})


def write_asldvs(root):
    for c, letter in enumerate("aby"):
        for number in range(1, 11):
            write_vectors(root / letter / f"{letter}_{number:04d}.mat", small(100 * c + number))
    return root


def write_ucf101dvs(root):
    """Four source videos with two clips each; one class is spelled otherwise in the names of its videos."""
    for c, (folder, name) in enumerate((("Archery", "Archery"), ("HandstandPushups", "HandStandPushups"))):
        for source in (1, 2, 8, 25):
            for clip in (1, 2):
                stem = f"v_{name}_g{source:02d}_c{clip:02d}"
                write_vectors(root / "UCF101_DVS" / folder / f"{stem}.mat", small(100 * c + 10 * source + clip))
                for frame in range(3):
                    picture(root / "static" / folder / stem / f"{frame:05d}.jpg", 1000 * c + 10 * source + clip + frame)
    return root


def write_hmdb51dvs(root):
    rows = []
    for source in range(4):
        for clip in range(2):
            stem = f"April_09_{source}_brush_hair_u_nm_np1_ba_goo_{clip}"
            write_vectors(root / "HMDB_DVS" / "brush_hair" / f"{stem}.mat", small(10 * source + clip))
            rows.append(f"{stem}.avi {2 if source == 3 else 0 if source == 2 else 1} ")
            picture(root / "static" / "brush_hair" / f"{stem}.png", 10 * source + clip)
    (root / "HMDB_DVS" / "testTrainMulti").mkdir()
    (root / "HMDB_DVS" / "testTrainMulti" / "brush_hair_test_split1.txt").write_text("\n".join(rows) + "\n")
    return root


def write_caltech256dvs(root):
    for c, name in enumerate(("001.ak47", "257.clutter")):
        for number in range(1, 4):
            stem = f"{name[:3]}_{number:04d}"
            path = root / "events" / name / f"{stem}.aedat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(aedat2.encode(small(10 * c + number, size=(128, 128))))
            picture(root / "256_ObjectCategories" / name / f"{stem}.jpg", 10 * c + number)
    return root


def write_dailydvs200(root):
    """Five people with two actions each; person 4 is in the lists of validation and test."""
    lists = {"train": [], "val": [], "test": []}
    for person, subsets in {
        1: ["train"] * 2,
        2: ["train"] * 2,
        3: ["val"] * 2,
        4: ["val", "test"],
        5: ["test"] * 2,
    }.items():
        for action, subset in enumerate(subsets):
            stem = f"C{action}P{person}M0S1_20231111_09_19_{person}{action}"
            write_aedat4(root / "data" / f"{stem}.aedat4", small(10 * person + action), size=(320, 240))
            lists[subset].append(f"data/{stem}.aedat4 {action}")
    for subset, lines in lists.items():
        (root / f"{subset}.txt").write_text("\n".join(lines) + "\n")
    return root


WNIDS = ("n01440764", "n01443537")
FIELDS = np.dtype([("x", "<u2"), ("y", "<u2"), ("t", "<u4"), ("p", "i1")])


def npz_bytes(folder, events):
    array = np.zeros(len(events), FIELDS)
    for name in "xyt":
        array[name] = getattr(events, name)
    array["p"] = 2 * events.p.astype(np.int8) - 1
    np.savez_compressed(folder / "one.npz", event_data=array)
    return (folder / "one.npz").read_bytes()


def write_nimagenet(root):
    """Two training zips, a validation zip, one of a validation set recorded again, and ImageNet's images."""
    root.mkdir(exist_ok=True)
    parts = {"Part_1.zip": [], "Part_2.zip": [], "val.zip": [], "extra.zip": []}
    for c, wnid in enumerate(WNIDS):
        for i in range(4):
            stem = f"{wnid}_{10 * c + i}"
            parts[f"Part_{1 + i // 2}.zip"].append((f"extracted_train/{wnid}/{stem}.npz", 10 * c + i))
            picture(root / "imagenet" / "train" / wnid / f"{stem}.JPEG", 10 * c + i)
        stem = f"ILSVRC2012_val_{c + 1:08d}"
        parts["val.zip"].append((f"N_Imagenet/extracted_val/{wnid}/{stem}.npz", 100 + c))
        parts["extra.zip"].append((f"extracted_mode_1/{wnid}/{stem}.npz", 200 + c))
        picture(root / "imagenet" / "val" / f"{stem}.JPEG", 100 + c)
    (root / "events").mkdir()
    for number, (name, files) in enumerate(parts.items()):
        packing = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
        with zipfile.ZipFile(root / "events" / name, "w", packing) as archive:
            for member, seed in files:
                archive.writestr(member, npz_bytes(root, small(seed, size=(640, 480))))
            archive.writestr("readme.txt", "not a recording")
    (root / "one.npz").unlink()
    return root
