"""UCF101-DVS and HMDB51-DVS: videos of actions played to a camera; clips of one source video belong together.

Source: Bi, Chadha, Abbas, Bourtsoulatze, Andreopoulos 2020 (recordings); Soomro, Zamir, Shah 2012 (UCF101); Kuehne,
Jhuang, Garrote, Poggio, Serre 2011 (HMDB51).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from spikebridge.pipeline.datasets.described import DescribedReader, Labelled, apply_lists, read_list
from spikebridge.pipeline.datasets.layout import list_entries, list_folders, unpacked
from spikebridge.pipeline.datasets.pairs import DatasetCard, Recording, register
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.tables import mat_events

UCF_NAME = re.compile(r"v_(\w+)_(g(\d\d))_c\d\d", re.IGNORECASE)
UCF_TESTED = range(1, 8)
"""Groups that the first official list tests; the second tests 8 to 14, the third 15 to 21."""
BI_CITATION = (
    "Bi, Chadha, Abbas, Bourtsoulatze, Andreopoulos: Graph-based spatio-temporal feature learning for neuromorphic "
    "vision sensing, IEEE Transactions on Image Processing 29, 2020."
)


class VideoReader(DescribedReader):
    """Base of readers of `<class>/<video>.mat` with the vectors ts, x, y and pol; rows count from the bottom."""

    sensor_size = (240, 180)
    endings = (".mat",)
    exact = True

    def is_root(self, folder: Path) -> bool:
        return any(
            path.suffix.lower() == ".mat" and self.group_of(path.stem, inner.name)
            for inner in list_folders(folder)
            for path in list_entries(inner)[:1]
        )

    def list_recordings(self, root: Path, notes: list[str]) -> Iterator[Labelled]:
        notes.append("rows of the files count from the bottom: y is turned over")
        for folder in list_folders(root):
            for path in list_entries(unpacked(folder)):
                if path.suffix.lower() == ".mat":
                    group = self.group_of(path.stem, folder.name)
                    name = f"{folder.name}/{path.stem}"
                    yield Recording(name, str(path), 0, None, path.stem, path.stem, group=group), folder.name

    def read_events(self, recording: Recording) -> Events:
        return mat_events.decode_upturned(recording.path, sensor_size=self.sensor_size)


@register
class UCF101DVS(VideoReader):
    """UCF101-DVS with frames of UCF101; pairs are exact, by the names of the videos.

    The official lists go by the number of the source video: the first tests 1 to 7 (`--splits` has the others).
    """

    name = "ucf101dvs"
    card = DatasetCard(
        title="UCF101-DVS (events) and frames of UCF101",
        events_layout="<class>/v_<class>_g<NN>_c<NN>.mat",
        static_layout="<class>/<video>.jpg, or <class>/<video>/<frame>.jpg, of which the middle frame counts",
        download="https://github.com/PIX2NVS/NVS2Graph and https://www.crcv.ucf.edu/data/UCF101.php",
        licence="not stated: ask the authors before passing anything on",
        citation=f"{BI_CITATION} Soomro, Zamir, Shah: UCF101: a dataset of 101 human actions classes from videos in "
        "the wild, CRCV-TR-12-01, 2012.",
        pairing="exact, by the names of the videos",
        expected={},
        images="one frame of each video",
        strict="list 1 of UCF101 (--splits has the others), and 10 % of each class's training recordings validate",
        groups="source videos",
    )
    folders = ("UCF101_DVS", "UCF101-DVS")

    def group_of(self, stem: str, class_name: str) -> str:
        match = UCF_NAME.match(stem)
        return f"{match[1]}_{match[2]}" if match else ""

    def list_recordings(self, root: Path, notes: list[str]) -> Iterator[Labelled]:
        notes.append("split 1 of UCF101: source videos 1 to 7 of each class are tested")
        for recording, name in super().list_recordings(root, notes):
            match = UCF_NAME.match(recording.stem)
            subset = "test" if match and int(match[3]) in UCF_TESTED else "train"
            yield replace(recording, subset=subset), name


@register
class HMDB51DVS(VideoReader):
    """HMDB51-DVS with frames of HMDB51; pairs are exact, by the names of the videos."""

    name = "hmdb51dvs"
    card = DatasetCard(
        title="HMDB51-DVS (events) and frames of HMDB51",
        events_layout="<class>/<video>.mat, and in any folder the lists <class>_test_split1.txt of HMDB51",
        static_layout="<class>/<video>.jpg, or <class>/<video>/<frame>.jpg, of which the middle frame counts",
        download="https://github.com/PIX2NVS/NVS2Graph and "
        "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/ (with the lists)",
        licence="HMDB51-DVS: not stated; HMDB51: CC BY 4.0",
        citation=f"{BI_CITATION} Kuehne, Jhuang, Garrote, Poggio, Serre: HMDB: a large video database for human motion "
        "recognition, ICCV 2011.",
        pairing="exact, by the names of the videos",
        expected={"train": 3570, "test": 1530},
        images="one frame of each video",
        groups="source videos",
        strict="the lists of split 1, and 10 % of each class's training recordings validate; without the lists source "
        "videos are drawn",
    )
    folders = ("HMDB_DVS", "HMDB51-DVS")

    def group_of(self, stem: str, class_name: str) -> str:
        match = re.match(rf"(.+)_{re.escape(class_name)}_\w+_(goo|med|bad)_\d+", stem, re.IGNORECASE)
        return match[1] if match else ""

    def list_recordings(self, root: Path, notes: list[str]) -> Iterator[Labelled]:
        labelled = list(super().list_recordings(root, notes))
        numbers = {"1": "train", "2": "test"}
        subset_of = {
            Path(words[0]).stem: numbers[words[1]]
            for path in sorted(root.rglob("*_test_split1.txt"))
            for words in read_list(path)
            if len(words) == 2 and words[1] in numbers
        }
        if not subset_of:
            notes.append("no lists <class>_test_split1.txt: the official split is not known, source videos are drawn")
            return iter(labelled)
        return iter(apply_lists(labelled, subset_of, notes, "of split 1"))
