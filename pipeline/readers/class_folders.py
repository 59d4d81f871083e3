"""Data sets of one file a recording in class folders: N-Cars, ASL-DVS, Caltech256-DVS, and DailyDVS-200 with its lists.

Source: Sironi et al. 2018 (N-Cars); Bi et al. 2019 (ASL-DVS); Hu et al. 2016 (Caltech256-DVS); Wang et al. 2024
(DailyDVS-200).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.datasets.described import DescribedReader, Labelled, apply_lists, read_list
from spikebridge.pipeline.datasets.layout import find_child, list_entries, list_folders, unpacked
from spikebridge.pipeline.datasets.pairs import DatasetCard, Listing, Recording, register
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import recording as recording_files
from spikebridge.pipeline.formats.aedat import aedat4
from spikebridge.pipeline.formats.prophesee import dat
from spikebridge.pipeline.formats.tables import mat_events

NCARS_FOLDERS = {"n-cars_train": "train", "n-cars_test": "test"}
ASL_SUBJECTS = 5
ASL_TRAIN_SHARE = 0.8
DAILY_LISTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
DAILY_NAME = re.compile(r"c(\d+)p(\d+)", re.IGNORECASE)


@register
class NCars(DescribedReader):
    """N-Cars: cars and background, cut out of drives; which cuts come from one drive is not published."""

    name = "ncars"
    endings = (".dat",)
    card = DatasetCard(
        title="N-Cars",
        events_layout="n-cars_train/{cars,background}/obj_<NNNNNN>_td.dat, and n-cars_test the same",
        static_layout="{cars,background}/<image>, any images of the classes; or a folder without images",
        download="https://www.prophesee.ai/2018/03/13/dataset-n-cars/",
        licence="Prophesee's own terms: ask before passing anything on",
        citation="Sironi, Brambilla, Bourdis, Lagorce, Benosman: HATS: histograms of averaged time surfaces for robust "
        "event-based object classification, CVPR 2018.",
        pairing="class: no static images belong to it",
        expected={"train": 15_422, "test": 8_607},
        images="none",
    )
    sensor_size = (120, 100)
    classes = ("background", "cars")
    folders = ("Prophesee_Dataset_n_cars",)

    def is_root(self, folder: Path) -> bool:
        return any(find_child(folder, name) for name in NCARS_FOLDERS)

    def list_recordings(self, root: Path, notes: list[str]) -> Iterator[Labelled]:
        notes.append("which recordings come from one drive is not published: they are no groups")
        for top, subset in NCARS_FOLDERS.items():
            for folder in list_folders(found) if (found := find_child(root, top)) else ():
                for path in list_entries(folder):
                    if path.suffix.lower() == ".dat":
                        name = f"{top}/{folder.name}/{path.stem}"
                        yield Recording(name, str(path), 0, subset, path.stem, None), folder.name.lower()

    def read_events(self, recording: Recording) -> Events:
        data, source = recording.path.read_bytes(), f"{recording.name}.dat"
        return dat.decode(data, source=source, sensor_size=self.sensor_size).annotated()


@register
class ASLDVS(DescribedReader):
    """ASL-DVS: 24 letters of the American sign language, signed by five people.

    Which person signs is not in the names: the numbers of each letter are taken for five runs of equal length, a person
    each, which no source confirms.
    """

    name = "asldvs"
    endings = (".mat",)
    card = DatasetCard(
        title="ASL-DVS",
        events_layout="<letter>/<letter>_<NNNN>.mat with the vectors ts, x, y and pol",
        static_layout="<letter>/<image>, any images of the signs; or a folder without images",
        download="https://github.com/PIX2NVS/NVS2Graph",
        licence="not stated: ask the authors before passing anything on",
        citation="Bi, Chadha, Abbas, Bourtsoulatze, Andreopoulos: Graph-based object classification for neuromorphic "
        "vision sensing, ICCV 2019.",
        pairing="class: no static images belong to it",
        expected={"unsplit": 100_800},
        images="none",
        strict="people are drawn: one of five tests, and one of the others validates",
        legacy="the first 80 % of each letter train, the rest test, in the order of the numbers",
        groups="people, as five equal runs of the numbers of each letter, which no source confirms",
    )
    sensor_size = (240, 180)
    classes = tuple("abcdefghiklmnopqrstuvwxy")
    folders = ("ICCV2019_DVS_dataset", "ASLDVS", "ASL-DVS")

    def is_root(self, folder: Path) -> bool:
        return any(
            re.fullmatch(rf"{letter}_?\d+\.mat", path.name, re.IGNORECASE)
            for letter in self.classes
            if (inner := find_child(folder, letter))
            for path in list_entries(inner)[:1]
        )

    def list_recordings(self, root: Path, notes: list[str]) -> Iterator[Labelled]:
        notes.append("rows of the files count from the bottom: y is turned over")
        notes.append("who signs is not stated: five equal runs of the numbers of each letter are taken for five people")
        for letter in self.classes:
            folder = find_child(root, letter)
            paths = [path for path in list_entries(folder) if path.suffix.lower() == ".mat"] if folder else []
            paths.sort(key=lambda path: _number(path.stem))
            for i, path in enumerate(paths):
                group = f"person{i * ASL_SUBJECTS // len(paths) + 1}"
                yield Recording(f"{letter}/{path.stem}", str(path), 0, None, path.stem, None, group=group), letter

    def read_events(self, recording: Recording) -> Events:
        return mat_events.decode_upturned(recording.path, sensor_size=self.sensor_size)

    def apply_published_split(self, listing: Listing, *, seed: int) -> Listing:
        """Train on the first 80 % of each letter.

        Source: Bi et al. 2019, public implementation, in the order of the files' numbers.
        """
        of_class: dict[int, list[Recording]] = {}
        for recording in sorted(listing.recordings, key=lambda r: _number(r.stem)):
            of_class.setdefault(recording.label, []).append(recording)
        training = {r.name for rs in of_class.values() for r in rs[: round(ASL_TRAIN_SHARE * len(rs))]}
        recordings = (replace(r, subset="train" if r.name in training else "test") for r in listing.recordings)
        note = "legacy: the first 80 % of each letter train, in the order of the numbers"
        return replace(listing, recordings=tuple(recordings), notes=(*listing.notes, note))


@register
class Caltech256DVS(DescribedReader):
    """Caltech256-DVS with Caltech-256; pairs are exact where the stems agree, else by class."""

    name = "caltech256dvs"
    card = DatasetCard(
        title="Caltech256-DVS (events) and Caltech-256 (images)",
        events_layout="<NNN.class>/<NNN>_<NNNN>.aedat",
        static_layout="256_ObjectCategories/<NNN.class>/<NNN>_<NNNN>.jpg",
        download="https://sensors.ini.ch/databases and https://data.caltech.edu/records/nyy15-4j048",
        licence="Caltech256-DVS: as its authors say; Caltech-256: CC BY 4.0",
        citation="Hu, Liu, Pfeiffer, Delbruck: DVS benchmark datasets for object tracking, action recognition, and "
        "object recognition, Frontiers in Neuroscience 10, 2016. Griffin, Holub, Perona: Caltech-256 object category "
        "dataset, 2007.",
        pairing="exact where stems agree, else by class",
        expected={"unsplit": 30_607},
        images="30,607",
    )
    sensor_size = (240, 180)
    exact = True
    folders = ("Caltech256-DVS", "Caltech-256", "256_ObjectCategories")

    def is_root(self, folder: Path) -> bool:
        return any(
            recording_files.is_recording(path)
            for inner in list_folders(folder)
            if re.match(r"\d{3}\.", inner.name)
            for path in list_entries(inner)[:1]
        )

    def list_recordings(self, root: Path, notes: list[str]) -> Iterator[Labelled]:
        for folder in list_folders(root):
            for path in list_entries(unpacked(folder)):
                if recording_files.is_recording(path):
                    stem = recording_files.stem(path)
                    yield Recording(f"{folder.name}/{stem}", str(path), 0, None, stem, stem), folder.name

    def read_events(self, recording: Recording) -> Events:
        return recording_files.read(recording.path)


@register
class DailyDVS200(DescribedReader):
    """DailyDVS-200: 200 everyday actions of 47 people, with lists by person.

    Its lists are said to share people (45 in training and test, 4 in validation and test): what the later subset holds
    is left out of the earlier one.
    """

    name = "dailydvs200"
    endings = (".aedat4",)
    card = DatasetCard(
        title="DailyDVS-200",
        events_layout="C<class>P<person>...aedat4 in any folders, and train.txt, val.txt and test.txt (path class)",
        static_layout="action_<NNN>/<image>, any images of the classes; or a folder without images",
        download="https://github.com/QiWang233/DailyDVS-200",
        licence="MIT",
        citation="Wang, Xu, Lin, Ye, Li, Zhu, Ali Shah, Bennamoun, Zhang: DailyDVS-200: a comprehensive benchmark "
        "dataset for event-based action recognition, ECCV 2024.",
        pairing="class: no static images belong to it",
        expected={"unsplit": 22_046},
        images="none",
        strict="the lists train, val and test; people in two of them stay in the later one",
        groups="people",
    )
    sensor_size = (320, 240)
    folders = ("DailyDVS-200",)

    def is_root(self, folder: Path) -> bool:
        listed = any((folder / f"{name}.txt").is_file() for name in DAILY_LISTS)
        return listed and any(folder.rglob("*.aedat4"))

    def list_recordings(self, root: Path, notes: list[str]) -> Iterator[Labelled]:
        class_of, subset_of = dict[str, str](), dict[str, str]()
        for name, subset in DAILY_LISTS.items():
            for line, words in enumerate(read_list(root / f"{name}.txt") if (root / f"{name}.txt").is_file() else ()):
                if len(words) != 2 or not words[1].isdecimal():
                    raise LayoutError(
                        f"{root / name}.txt, line {line + 1}: {' '.join(words)[:80]!r}; expected path class."
                    )
                stem = words[0].replace("\\", "/").rpartition("/")[2].partition(".")[0]
                class_of[stem], subset_of[stem] = f"action_{int(words[1]):03d}", subset
        paths = sorted(root.rglob("*.aedat4"), key=lambda path: path.name)
        labelled = []
        for path in paths:
            match = DAILY_NAME.match(path.stem)
            below = path.relative_to(root).with_suffix("").as_posix()
            group = f"person{int(match[2])}" if match else ""
            recording = Recording(below, str(path), 0, None, path.stem, None, group=group)
            labelled.append((recording, class_of.get(path.stem, "")))
        if nameless := sum(not recording.group for recording, _ in labelled):
            notes.append(f"{nameless:,} files do not name a person (C<class>P<person>): they are no groups")
        given = apply_lists(labelled, subset_of, notes, "train, val and test")
        return iter([(recording, name) for recording, name in given if name])

    def read_events(self, recording: Recording) -> Events:
        return aedat4.read(recording.path)


def _number(stem: str) -> tuple[int, str]:
    digits = re.findall(r"\d+", stem)
    return (int(digits[-1]) if digits else 0, stem)
