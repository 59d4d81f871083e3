"""Class folders of recordings with class folders of images: your own data, or what `simulate --images` makes.

Folders `train`, `val` and `test` above the classes are official subsets; a recording or an image may lie in a folder of
its own. A table of labels takes the place of class folders of recordings.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import LayoutError, RecordingError, SettingsError, shorten
from spikebridge.pipeline.base.fitting import STATED_SHOWN
from spikebridge.pipeline.base.foreign_json import Range, read_json
from spikebridge.pipeline.datasets.layout import (
    is_litter,
    list_entries,
    list_folders,
    refuse_equal_stems,
    unpacked,
)
from spikebridge.pipeline.datasets.pairs import (
    SIMULATION_NOTE,
    DatasetCard,
    Listing,
    PairReader,
    Recording,
    StaticImage,
    find_simulation_note,
    register,
)
from spikebridge.pipeline.datasets.tables import (
    DEFAULT,
    FolderOptions,
    LabelRow,
    near_matches,
    near_twins,
    read_class_map,
    read_labels,
    refuse_lines,
)
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import KEPT_EVENTS, CheckedEvents, pack_chunks
from spikebridge.pipeline.formats import recording as recording_files
from spikebridge.pipeline.formats.decoded import Stream
from spikebridge.pipeline.formats.tables.columns import TableOptions
from spikebridge.pipeline.images.decode import EXTENSIONS, decode_image, holds_several

SENSOR_FILE = "sensor.txt"
BESIDE = (SENSOR_FILE, SIMULATION_NOTE)
"""Names of files that belong to the folders, and are neither recordings nor images."""
MOST_PIXELS = 2**14
"""Of a side; a larger size in a header is taken for damage."""
SUBSETS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Official subsets by the names of folders above the classes, in lower case."""
EVENTS, MOST_BESIDE = "events", 6
"""Name of the file that counts among several in the folder of a recording, and names of others that are said."""
BY_CHANCE = "use --pairing class where names agree by chance"


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording or an image as it lies in the folders."""

    file: str
    label: str
    """Name of its class folder."""
    subset: str | None
    stem: str
    """Its own name; that of its folder where it lies alone in one."""
    below: str
    """What its name begins with: `<class>`, or `<subset folder>/<class>`."""

    @property
    def name(self) -> str:
        """Return its path below the root without the ending."""
        return f"{self.below}/{self.stem}"


@register
class Folders(PairReader):
    """Recordings and images joined by class and stem, or by class alone when no stem agrees."""

    name = "folders"
    card = DatasetCard(
        title="class folders of recordings and of images",
        events_layout="[train/, val/ or test/]<class>/<stem>, or a folder <stem> with one recording, with one of the "
        f"endings {', '.join(recording_files.FORMATS)}; or any folders and --labels FILE.csv",
        static_layout="<class>/<stem>.png (or .jpg, .webp, .avif, .bmp, .gif, .tif), with or without the same folders "
        "above",
        download="your own",
        licence="as you say",
        citation="as you say",
        pairing="exact by class and stem; by class when no stem agrees, or with --pairing class",
        expected={},
        strict="train/, val/ and test/ above the classes where they are there; else 20 % of each class test, and 10 % "
        "of the others validate, by seed; --splits FILE.csv or the column split of --labels FILE.csv replaces both",
        legacy="the same without a validation that is drawn",
        groups="by --group-by REGEX or the column group of --labels; parts of one file, recordings of one image",
    )

    table: TableOptions = TableOptions()
    """What the user says about files whose columns leave their meaning open."""
    options: FolderOptions = DEFAULT
    """What the user says about the folders."""

    def list_pair(self, events_root: Path, static_root: Path) -> Listing:
        notes = list[str]()
        if self.options.labels:
            root, labelled = events_root, _list_labelled(events_root, self.options.labels, notes)
            classes, number = _number_classes(name for _, name in labelled)
            recordings = [replace(recording, label=number[name]) for recording, name in labelled]
        else:
            root, entries = self._find(events_root, "events", recording_files.is_recording, recording_files.stem)
            _refuse_crowds(root)
            _note_empty(root, entries, notes)
            _note_beside(entries, notes)
            entries = _tested_subsets(entries, notes)
            classes, number = _number_classes(entry.label for entry in entries)
            recordings = [_as_recording(entry, number[entry.label]) for entry in entries]
            del entries  # of a million recordings one copy is in memory
        image_root, image_entries = self._find(static_root, "static", _is_image, lambda path: path.stem)
        image_entries = _tested_subsets(image_entries, [])
        images = self._list_images(image_entries, classes, notes)
        del image_entries
        if several := [image for image in images if holds_several(image.path)]:
            named = shorten([image.path.name for image in several], most=3)
            notes.append(
                f"pictures beyond the first are left out of {len(several):,} static images ({named}): save each as a "
                "file of its own"
            )
        if twins := near_twins(classes):
            notes.append(f"class names that are nearly the same, and two classes here: {', '.join(twins)}")
        for row, recording in enumerate(recordings):
            if (group := self._group_of(recording)) != recording.group:
                recordings[row] = replace(recording, group=group)
        self._refuse_parted_files(recordings)
        listed, pairing = self._join(recordings, images, image_root)
        sensor_size, shown_fraction = find_sensor(root)
        if sensor_size is None:
            stated = {file: stated_size(Path(file)) for file in {r.file for r in listed}}
            if len(sizes := set(stated.values())) == 1:
                sensor_size = sizes.pop()
            else:
                listed = [replace(r, sensor_size=stated[r.file]) for r in listed]
        printable = tuple(name.encode("utf-8", "backslashreplace").decode() for name in classes)  # may be no UTF-8
        return Listing(printable, tuple(listed), tuple(images), sensor_size, shown_fraction, pairing, tuple(notes))

    def read_events(self, recording: Recording) -> Events:
        return recording_files.read(recording.path, self.table)

    def read_packed(self, recording: Recording, *, sensor_size: tuple[int, int]) -> CheckedEvents:
        return self._pack(recording_files.stream(recording.path, self.table), recording, sensor_size)

    def read_window(
        self, recording: Recording, *, sensor_size: tuple[int, int], window_us: tuple[int, ...]
    ) -> CheckedEvents:
        if recording.interval is not None:
            return self.read_recording(recording, sensor_size=sensor_size)
        stream = recording_files.stream(recording.path, self.table)
        return self._pack(stream.window(window_us) or stream, recording, sensor_size)

    def _pack(self, stream: Stream, recording: Recording, sensor_size: tuple[int, int]) -> CheckedEvents:
        return pack_chunks(
            stream.annotated, sensor_size=sensor_size, source=recording.name, likely=stream.likely, most=KEPT_EVENTS
        )

    def read_image(self, image: StaticImage) -> NDArray[np.uint8]:
        return decode_image(image.path.read_bytes(), source=image.path.name, bits=self.image_bits)

    def _find(
        self, root: Path, side: str, belongs: Callable[[Path], bool], stem: Callable[[Path], str]
    ) -> tuple[Path, list[Entry]]:
        """Return the folder that holds class folders, and what lies in them.

        Raises:
            LayoutError: no such folder, several, or two files of one name.
        """
        for alone in (False, True):
            for folder in (root, root / side):
                if folder.is_dir() and _holds_any(folder, belongs, alone=alone):
                    return folder, _list_entries(folder, belongs, stem)
        try:
            found = self.find_root(root, side, below=(), holds=lambda folder: _holds_any(folder, belongs, alone=False))
        except LayoutError:
            if side == "events" and root.is_dir():
                _refuse_crowds(root)
            raise
        return found, _list_entries(found, belongs, stem)

    def _group_of(self, recording: Recording) -> str:
        """Return the group of a recording: of the table of labels, or found in its name.

        Raises:
            SettingsError: the pattern does not match.
        """
        if not self.options.group_by:
            return recording.group
        if recording.group and not recording.interval:
            raise SettingsError("--group-by and a column group of --labels: expected one of them.")
        group = self.options.group_of(recording.name)
        if group is None:
            raise SettingsError(
                f"--group-by {self.options.group_by!r} matches nothing in the recording {recording.name}. Every "
                "recording needs a group: widen the pattern, or name the groups in a table (--labels)."
            )
        return group

    def _refuse_parted_files(self, recordings: list[Recording]) -> None:
        """Refuse parts of one file that are of two groups: they share its first event, its light and its noise.

        Raises:
            SettingsError: there are some.
        """
        group_of = dict[str, Recording]()
        for recording in recordings:
            if (other := group_of.setdefault(recording.file, recording)).group != recording.group:
                raise SettingsError(
                    f"--group-by {self.options.group_by!r}: {other.name} and {recording.name} are parts of one file "
                    f"and would be of two groups ({other.group}, {recording.group}). Match the file's own name."
                )

    def _list_images(self, entries: list[Entry], classes: tuple[str, ...], notes: list[str]) -> list[StaticImage]:
        """Return the images of classes that have recordings, as the class map joins them.

        Raises:
            LayoutError: no class has any, but names are nearly the same.
            SettingsError: a class map that does not fit.
        """
        image_classes = {entry.label for entry in entries}
        mapping = {name: name for name in image_classes if name in classes}
        if self.options.class_map:
            mapping |= read_class_map(self.options.class_map, classes=classes, image_classes=image_classes)
        near = near_matches(sorted(set(classes) - set(mapping.values())), sorted(image_classes - mapping.keys()))
        named = ", ".join(f"{other} for {name}" for name, other in near)
        advice = "where they mean the same, say so with --class-map FILE.csv (header static,event)"
        if not mapping and near:
            raise LayoutError(
                f"the classes of recordings ({shorten(classes)}) and of static images "
                f"({shorten(sorted(image_classes))}) have no name in common; nearly the same are {named}: {advice}."
            )
        if unused := sorted(image_classes - mapping.keys()):
            notes.append(f"no recordings of the image classes {shorten(unused)}")
        if near:
            notes.append(f"class names that are nearly the same: {named}; {advice}")
        number = {name: i for i, name in enumerate(classes)}
        return [
            StaticImage(
                entry.name,
                entry.file,
                number[mapping[entry.label]],
                entry.subset,
                # names may begin anew in every subset, and in every folder that the class map joins
                "-".join(filter(None, (entry.subset, entry.label * (mapping[entry.label] != entry.label), entry.stem))),
            )
            for entry in entries
            if entry.label in mapping
        ]

    def _join(
        self, recordings: list[Recording], images: list[StaticImage], image_root: Path
    ) -> tuple[list[Recording], str]:
        """Return the recordings with their images, and how they are paired.

        Raises:
            LayoutError: `--pairing exact` and no names agree, or one image for recordings of two subsets.
        """
        by_stem: dict[tuple[int, str], list[StaticImage]] = defaultdict(list)
        for image in images if self.options.pairing != "class" else ():
            by_stem[image.label, image.name.rpartition("/")[2]].append(image)
        showing: dict[str, list[Recording]] = defaultdict(list)
        for recording in recordings:
            same = by_stem.get((recording.label, recording.image or ""), [])
            same = [i for i in same if not i.subset or recording.subset in (None, i.subset)]
            if len(same) > 1:
                raise LayoutError(
                    f"{recording.name}: the static images {same[0].name} and {same[1].name} both have its name. Rename "
                    f"one, or {BY_CHANCE}."
                )
            showing[same[0].name if same else ""].append(recording)
        alone = showing.pop("", [])
        if showing:
            joined = [replace(r, image=r.name) for r in alone]  # no image is called so: they are rejected
            for image_name, of_image in showing.items():
                joined += _join_image(image_name, of_image)
            order = {recording.name: i for i, recording in enumerate(recordings)}
            return sorted(joined, key=lambda r: order[r.name]), "exact"
        if self.options.pairing == "exact":
            raise LayoutError(
                f"--pairing exact, but no recording has the name of an image below {image_root}; the first are "
                f"{recordings[0].name} and {images[0].name if images else 'none'}. Rename them, or use --pairing class."
            )
        alone.clear()
        for row, recording in enumerate(recordings):
            recordings[row] = replace(recording, image=None)
        return recordings, "class"


def _join_image(image: str, recordings: list[Recording]) -> list[Recording]:
    """Return the recordings of one image, which no split parts.

    Raises:
        LayoutError: they are of two subsets or groups.
    """
    first = recordings[0]
    for other in recordings:
        for what, one, two in (("subset", first.subset, other.subset), ("group", first.group, other.group)):
            if one != two:
                raise LayoutError(
                    f"{first.name} and {other.name} pair with the static image {image} and are not of one {what} "
                    f"({one or 'none'}, {two or 'none'}). Put both into one, or {BY_CHANCE}."
                )
    group = first.group or (image if len(recordings) > 1 else "")
    return [replace(recording, image=image, group=group) for recording in recordings]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not is_litter(path)


def _number_classes(names: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the classes in order, and their labels."""
    classes = tuple(sorted(set(names)))
    return classes, {name: i for i, name in enumerate(classes)}


def _as_recording(entry: Entry, label: int) -> Recording:
    """Return a recording whose `image` is the stem of the image wanted."""
    return Recording(entry.name, entry.file, label, entry.subset, entry.stem, entry.stem)


def _holds_any(root: Path, belongs: Callable[[Path], bool], *, alone: bool) -> bool:
    """Return whether class folders hold a file; with `alone`, one alone in a folder of its own counts, too."""
    for _, _, _, folder in _list_classes(root):
        if any(belongs(path) for path in _list_paths(folder)):
            return True
        if alone and any(len(_own_files(inner, belongs)) == 1 for inner in list_folders(folder)):
            return True
    return False


def _list_entries(root: Path, belongs: Callable[[Path], bool], stem: Callable[[Path], str]) -> list[Entry]:
    """List the files of class folders in order, those that lie alone in a folder of their own, too.

    Raises:
        LayoutError: two files of one name.
    """
    entries = []
    for subset, below, label, folder in _list_classes(root):
        paths = [path for path in _list_paths(folder) if belongs(path)]
        refuse_equal_stems(paths, stem=stem)
        of_class = [Entry(str(path), label, subset, stem(path), below) for path in paths]
        for inner in list_folders(folder):
            if len(inside := _own_files(inner, belongs)) == 1:
                of_class.append(Entry(str(inside[0]), label, subset, inner.name, below))
        if twice := [name for name, count in Counter(entry.stem for entry in of_class).items() if count > 1]:
            raise LayoutError(
                f"{folder}: {twice[0]} is a file and a folder with one; expected one of them. Rename one."
            )
        own = {str(path): path.name for path in paths}
        entries += sorted(of_class, key=lambda entry: own.get(entry.file, entry.stem))
    return entries


def _own_files(folder: Path, belongs: Callable[[Path], bool]) -> list[Path]:
    """List the files of a recording's own folder; of several the one that is called events, where one is."""
    inside = [path for path in _list_paths(folder) if belongs(path)]
    named = [path for path in inside if recording_files.stem(path).casefold() == EVENTS]
    return named if len(named) == 1 else inside


def _note_beside(entries: list[Entry], notes: list[str]) -> None:
    """Say what else of the same endings lies in the own folders of recordings, as tables of other sensors do."""
    beside = Counter[str]()
    for entry in entries:
        path = Path(entry.file)
        if path.parent.name == entry.stem and recording_files.stem(path).casefold() == EVENTS:
            beside.update(
                one.name for one in _list_paths(path.parent) if one != path and recording_files.is_recording(one)
            )
    if beside:
        named = ", ".join(f"{count:,} {name}" for name, count in beside.most_common(MOST_BESIDE))
        more = f" and {len(beside) - MOST_BESIDE:,} more names" if len(beside) > MOST_BESIDE else ""
        notes.append(f"left out beside files called {EVENTS}, in the folders of recordings: {named}{more}")


def _note_empty(root: Path, entries: list[Entry], notes: list[str]) -> None:
    """Say which class folders hold no recording."""
    used = {(entry.subset, entry.label) for entry in entries}
    empty = [below for subset, below, label, _ in _list_classes(root) if (subset, label) not in used]
    if empty:
        notes.append(f"no recordings in the folders {shorten(empty)}")


def _refuse_crowds(root: Path) -> None:
    """Refuse a folder of several recordings below a class folder: which are of one sample, nothing says.

    Raises:
        LayoutError: there is one, or `train/` and the like lie beside class folders.
    """
    for _, _, _, folder in _list_classes(root):
        for inner in list_folders(folder):
            inside = [path.name for path in _own_files(inner, recording_files.is_recording)]
            if len(inside) > 1 and folder.name.casefold() in SUBSETS:
                others = [other for other in list_folders(root) if other.name.casefold() not in SUBSETS]
                beside = [other.name for other in others if _may_hold(other)]
                raise LayoutError(
                    f"{root}: {folder.name} would be an official subset with class folders, but {shorten(beside)} lie "
                    "beside it. Move what is no subset out, or name recordings, classes and splits in a table with "
                    "--labels FILE.csv."
                )
            if len(inside) > 1:
                raise LayoutError(
                    f"{inner}: {len(inside)} recordings ({shorten(inside, most=3)}); below a class folder there may be "
                    "a folder for each recording, with one in it, or one of several called events. Move the others "
                    "out, or name recordings and classes in a table with --labels FILE.csv."
                )


def _list_paths(folder: Path) -> list[Path]:
    """List the files of a folder in order; texts among them, which may be recordings."""
    return sorted(
        (path for path in folder.iterdir() if not is_litter(path) or path.suffix.lower() == recording_files.TEXT),
        key=lambda path: path.name,
    )


def _list_classes(root: Path) -> Iterator[tuple[str | None, str, str, Path]]:
    """Yield subset, path below the root, name and folder of every class.

    Of a folder that holds nothing but one of its own name, the inner one counts.
    """
    if subsets := _subsets(root):
        for outer in subsets:
            for folder in list_folders(outer):
                inner = unpacked(folder)
                yield SUBSETS[outer.name.casefold()], f"{outer.name}/{folder.name}", folder.name, inner
        return
    for folder in list_folders(root):
        yield None, folder.name, folder.name, unpacked(folder)


def _subsets(root: Path) -> list[Path]:
    """Return the folders `train`, `val` and `test` of classes; none where others beside them hold files, too."""
    folders = list_folders(root)
    subsets = [folder for folder in folders if folder.name.casefold() in SUBSETS]
    others = [folder for folder in folders if folder not in subsets]
    if not any(list_folders(folder) for folder in subsets):
        return []
    return [] if any(_may_hold(folder) for folder in others) else subsets


def _may_hold(folder: Path) -> bool:
    """Return whether a folder, or one in it, holds a file that may be a recording or an image."""
    return any(
        recording_files.ending(path) in recording_files.FORMATS or _is_image(path)
        for one in (folder, *list_folders(folder))
        for path in list_entries(one)
        if path.is_file()
    )


def _tested_subsets(entries: list[Entry], notes: list[str]) -> list[Entry]:
    """Take the folder `val` for the test subset where there is no `test`, and say so."""
    subsets = {entry.subset for entry in entries}
    if "validation" not in subsets or "test" in subsets:
        return entries
    notes.append("there is a folder val and no folder test: its recordings are the test subset")
    return [replace(e, subset="test") if e.subset == "validation" else e for e in entries]


def _list_labelled(root: Path, table: Path, notes: list[str]) -> list[tuple[Recording, str]]:
    """List the recordings of a table of labels, with their classes; all parts of a file are of one group.

    Raises:
        LayoutError: no folder of recordings.
        SettingsError: a file that is not there or outside, is named twice, or whose rows are of two groups or splits.
    """
    if not root.is_dir():
        raise LayoutError(f"{root} is no folder; expected the folder of the recordings that {table} names.")
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if recording_files.is_recording(path)}
    stems: dict[str, list[str]] = defaultdict(list)
    for name in files:
        stems[_without_ending(name)].append(name)
    rows, problems = read_labels(table, notes), list[str]()
    by_file: dict[str, list[LabelRow]] = defaultdict(list)
    for row in rows:
        names = [row.file] if row.file in files else stems.get(row.file, [])
        if len(names) == 1:
            by_file[names[0]].append(row)
        else:
            found = f"{len(names)} recordings" if names else "no recording"
            problems.append(f"line {row.line}: {found} {row.file!r} below {root}")
    recordings = []
    for name, of_file in by_file.items():
        for what, values in (("groups", {r.group for r in of_file}), ("splits", {r.subset for r in of_file})):
            if len(values) > 1:
                problems.append(f"line {of_file[0].line}: {name} has rows of {len(values)} {what}; expected one")
        if len({row.interval for row in of_file}) < len(of_file):
            problems.append(f"line {of_file[0].line}: {name} has two rows of one interval")
        below, several = _without_ending(name), len(of_file) > 1
        for row in of_file:
            part = f"@{row.interval[0]}-{row.interval[1]}" if row.interval else ""
            own = below.rpartition("/")[2]
            group = row.group or (below if several else "")
            recording = Recording(below + part, str(files[name]), 0, row.subset, own + part, own)
            recordings.append((replace(recording, group=group, interval=row.interval), row.label))
    refuse_lines(table, problems)
    if unlisted := len(files) - len(by_file):
        notes.append(f"{unlisted:,} recordings have no row in the table of labels and are not used")
    return sorted(recordings, key=lambda pair: pair[0].name)


def _without_ending(name: str) -> str:
    path = Path(name)
    return (path.parent / recording_files.stem(path)).as_posix()


class _Camera(TypedDict):
    """What the simulator's settings say of the sensor."""

    sensor_width_px: Annotated[int, Range(1, 2**14)]
    sensor_height_px: Annotated[int, Range(1, 2**14)]
    shown_fraction: Annotated[float, Range(*STATED_SHOWN)]
    """Of the sensor, that shows the image."""


class _SimulatorsNote(TypedDict):
    """What is read of the note beside simulated recordings."""

    settings: _Camera | None
    """None of another simulator's recordings, whose camera is not known."""


def find_sensor(root: Path) -> tuple[tuple[int, int] | None, float | None]:
    """Return the sensor size that the folder states, and the shown fraction of simulated recordings.

    It comes from the simulator's note, or from `sensor.txt` (width and height in pixels) beside the class folders.
    A note whose settings are null says that recordings are simulated, and nothing of their camera.

    Raises:
        LayoutError: the note is damaged, or `sensor.txt` does not hold two numbers.
    """
    note = find_simulation_note(root)
    if note is not None:
        remedy = "It is not what `spikebridge simulate` wrote. Simulate again."
        camera = read_json(note, _SimulatorsNote, error=LayoutError, remedy=remedy)["settings"]
        if camera is not None:
            return (camera["sensor_width_px"], camera["sensor_height_px"]), camera["shown_fraction"]
    sensor_file = root / SENSOR_FILE
    if sensor_file.is_file():
        try:
            width, height = (int(word) for word in sensor_file.read_text().split())
        except ValueError:
            width = height = 0
        if min(width, height) < 1:
            raise LayoutError(f"{sensor_file}: expected the sensor's width and height in pixels, such as 346 260.")
        return (width, height), None
    return None, None


def stated_size(path: Path) -> tuple[int, int] | None:
    """Return the sensor's size as a recording states it; None where it does not, as 40-bit records."""
    try:
        size = recording_files.sensor_size(path)
    except (RecordingError, OSError):
        return None  # the recording becomes a reject when it is read
    return size if size and 1 <= min(size) <= max(size) <= MOST_PIXELS else None
