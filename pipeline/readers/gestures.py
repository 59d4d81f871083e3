"""Recordings of people who make one gesture or sign after the other, cut by a table beside each file.

Source: Amir et al. 2017 (DVS128 Gesture); Vasudevan et al. 2020 (SL-Animals-DVS).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.datasets.described import DescribedReader, Labelled, apply_lists, read_list
from spikebridge.pipeline.datasets.layout import is_litter
from spikebridge.pipeline.datasets.pairs import DatasetCard, Recording, register
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import recording as recording_files

USER = re.compile(r"user\d+", re.IGNORECASE)
LISTS = {"trials_to_train.txt": "train", "trials_to_test.txt": "test"}


class TableReader(DescribedReader):
    """Base of readers of files that a table of class, start and end (exclusive) cuts into recordings."""

    sensor_size = (128, 128)
    table_name: ClassVar[str]
    """Name of the table of a file; `{}` is the file's stem."""

    def is_root(self, folder: Path) -> bool:
        tables = _find_tables(folder, self.table_name)
        return any(
            USER.match(path.stem) and self.table_name.format(path.stem).casefold() in tables
            for path in (folder.rglob("*.aedat") if tables else ())
        )

    def list_recordings(self, root: Path, notes: list[str]) -> Iterator[Labelled]:
        tables = _find_tables(root, self.table_name)
        files = sorted((path for path in root.rglob("*.aedat") if not path.name.startswith(".")), key=lambda p: p.name)
        without = [path.stem for path in files if self.table_name.format(path.stem).casefold() not in tables]
        if without:
            notes.append(f"{len(without)} files have no table and are not used, the first is {without[0]}")
        for path in files:
            table = tables.get(self.table_name.format(path.stem).casefold())
            for number, interval in _read_table(table, classes=len(self.classes)) if table else ():
                stem = f"{path.stem}_{number:02d}_{interval[0]}"
                subject = USER.match(path.stem)
                group = subject[0].lower() if subject else path.stem
                recording = Recording(stem, str(path), 0, None, stem, None, group=group, interval=interval)
                yield recording, self.classes[number - 1]

    def read_events(self, recording: Recording) -> Events:
        return recording_files.read(recording.path)


@register
class DVSGesture(TableReader):
    """DVS128 Gesture: 29 people, 11 gestures, three kinds of light; no static images belong to it.

    x and y are as the files have them. A person may make a gesture several times in a file (the eighth, ninth ...):
    each is a recording.
    """

    name = "dvsgesture"
    card = DatasetCard(
        title="DVS128 Gesture",
        events_layout="user<NN>_<light>.aedat (AEDAT 3.1), user<NN>_<light>_labels.csv, trials_to_train.txt and "
        "trials_to_test.txt",
        static_layout="<gesture>/<image>, any images of the classes; or a folder without images",
        download="https://research.ibm.com/interactive/dvsgesture/ (DvsGesture.tar.gz)",
        licence="CC BY 4.0, as its authors say; their own text lies beside the files",
        citation="Amir, Taba, Berg, Melano, McKinstry, Di Nolfo, Nayak, Andreopoulos, Garreau, Mendoza, Kusnitz, "
        "Debole, Esser, Delbruck, Flickner, Modha: A low power, fully event-based gesture recognition system, CVPR "
        "2017.",
        pairing="class: no static images belong to it",
        expected={"train": 1176, "test": 288},
        images="none",
        groups="subjects",
    )
    table_name = "{}_labels.csv"
    classes = (
        *("hand_clapping", "right_hand_wave", "left_hand_wave", "right_arm_clockwise", "right_arm_counter_clockwise"),
        *("left_arm_clockwise", "left_arm_counter_clockwise", "arm_roll", "air_drums", "air_guitar", "other_gestures"),
    )
    folders = ("DvsGesture",)
    intervals = "file_us"

    def list_recordings(self, root: Path, notes: list[str]) -> Iterator[Labelled]:
        lists = {path.name.casefold(): path for path in root.rglob("trials_to_*.txt")}
        subset_of = {
            Path(words[0]).stem: subset
            for name, subset in LISTS.items()
            if name in lists
            for words in read_list(lists[name])
        }
        labelled = list(super().list_recordings(root, notes))
        if not subset_of:
            notes.append(f"no file {' or '.join(LISTS)}: the official split is not known, subjects are drawn")
            return iter(labelled)
        return iter(apply_lists(labelled, subset_of, notes, "trials_to_train and trials_to_test"))


@register
class SLAnimals(TableReader):
    """SL-Animals-DVS: 59 people, 19 signs; the tables count events, not time."""

    name = "slanimals"
    card = DatasetCard(
        title="SL-Animals-DVS",
        events_layout="<user>_<session>.aedat (AEDAT 2.0) and <user>_<session>.csv (class, first and last event), in "
        "any folders",
        static_layout="sign_<NN>/<image>, any images of the classes; or a folder without images",
        download="http://www2.imse-cnm.csic.es/neuromorphs/index.php/SL-ANIMALS-DVS-Database",
        licence="as its authors say",
        citation="Vasudevan, Negri, Linares-Barranco, Serrano-Gotarredona: Introduction and analysis of an event-based "
        "sign language dataset, IEEE FG 2020.",
        pairing="class: no static images belong to it",
        expected={"unsplit": 1121},
        images="none",
        groups="subjects",
    )
    table_name = "{}.csv"
    classes = tuple(f"sign_{number:02d}" for number in range(1, 20))
    folders = ("allusers_aedat",)
    intervals = "events"

    def list_recordings(self, root: Path, notes: list[str]) -> Iterator[Labelled]:
        notes.append("the tables count events: those of the polarity kind, from 0, the last one not included")
        return super().list_recordings(root, notes)


def _find_tables(root: Path, name: str) -> dict[str, Path]:
    """Return the tables in any folder below a root, by their names in lower case."""
    ending = name.replace("{}", "*")
    return {path.name.casefold(): path for path in root.rglob(ending) if not is_litter(path)}


def _read_table(path: Path, *, classes: int) -> list[tuple[int, tuple[int, int]]]:
    """Read the rows of a table: number of the class, from 1, start and end.

    Raises:
        LayoutError: a row that is none.
    """
    rows = []
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        for line, words in enumerate(csv.reader(file), start=1):
            numbers = [word.strip() for word in words[:3]]
            if line == 1 and not "".join(numbers).isdecimal():
                continue
            if not any(numbers):
                continue
            if len(numbers) < 3 or not all(n.isdecimal() for n in numbers):
                raise LayoutError(f"{path}, line {line}: {','.join(words)[:80]!r}; expected class, start and end.")
            number, start, end = map(int, numbers)
            if not 1 <= number <= classes or not start < end < 2**62:
                raise LayoutError(
                    f"{path}, line {line}: class {number} from {start} to {end}; expected a class from 1 to {classes} "
                    "and a start before the end."
                )
            rows.append((number, (start, end)))
    return rows
