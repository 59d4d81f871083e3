"""Speed of the pipeline beside tonic, stock webdataset and SpikingJelly, as ratios of one run.

Command:   make bench-pipeline [SPIKINGJELLY=SJ/bin/python] [READERS=READERS/bin/python] [RECORDINGS=DIR]
           (writes docs/results/bench-pipeline-<date>.json, .md)
           python tests/bench/bench_pipeline.py [--rounds 5] [--json FILE] [--spikingjelly PYTHON] [--readers PYTHON]
           [--recordings DIR] [--only PART]
Theirs:    tonic.io.read_mnist_file, Downsample and ToFrame, DiskCachedDataset; webdataset's WebDataset(...).decode();
           SpikingJelly's load_ATIS_bin and integrate_events_by_fixed_frames_number, in an environment of its own:
           spikingjelly_frames.py says how to make it; without one its row is left out. Decoders of event files
           likewise, see event_readers.py
Takes:     about 4 minutes on two quiet cores

Both sides do the same work on the same files, which is asserted before anything is timed (SpikingJelly's frames stay at
full size: it has no resize). Files are in the page cache. One process and one thread for numbers on either side,
but for verification, which takes a thread a core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rounds import Row, arguments, compare, report  # isort: skip  (sets the number of threads)

import numpy as np
import tonic
import webdataset
from decoding import decoding_rows
from recordings import convert_nmnist, random_events, write_nmnist
from sizes import size_rows
from tonic.io import read_mnist_file
from tonic.transforms import Compose, Downsample, ToFrame

from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.events.compact import compact
from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.shards.framing import Framing
from spikebridge.pipeline.shards.reader import ShardSet, Split
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.shards.writer import Sample, write_shard

TONIC_EVENTS = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
"""The type in which tonic's NMNIST reads events."""
BINS = 10
READ_BATCH = 32
"""Samples per call of `Split.read`, about a training batch."""


@dataclass(frozen=True)
class Sizes:
    """How much work a run does."""

    large_files: int = 4
    large_events: int = 115_000
    small_files: int = 100
    small_events: int = 4_000
    train: int = 1_000
    test: int = 200
    random_reads: int = 300
    decoded: int = 10_000_000
    verified: int = 6_000
    """Samples of the set that is verified: several shards, as the sets of real recordings are."""


SMALL = Sizes(
    large_files=1, large_events=3_000, small_files=3, small_events=500, train=30, test=10, random_reads=20, verified=40,
    decoded=2_000,
)  # fmt: skip


def our_frames(path: Path, *, sensor: tuple[int, int], size: int) -> np.ndarray:
    """A recording as [T,P,H,W] the way a conversion reads it: bytes, events, checks, frames."""
    events = bin40.decode_packed(path.read_bytes(), sensor_size=sensor, source=path.name)
    framed = to_frames(
        events, time_bins=BINS, size=size, reduction="sum", dtype="uint8", canvas=sensor, source=path.name
    )
    return framed.frames


def tonic_transform(*, sensor: tuple[int, int], size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Small frames as tonic's users make them: coordinates scaled, then counted."""
    return Compose(
        [
            Downsample(sensor_size=(*sensor, 2), target_size=(size, size)),
            ToFrame(sensor_size=(size, size, 2), n_time_bins=BINS),
        ]
    )


class TonicRecordings:
    """Recordings of the folder as tonic's own data sets give them: (frames, label)."""

    def __init__(self, paths: list[Path], *, size: int) -> None:
        self.paths, self.transform = paths, tonic_transform(sensor=(34, 34), size=size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        return self.transform(read_mnist_file(self.paths[i], TONIC_EVENTS)), int(self.paths[i].parent.name)


def frame_row(folder: Path, what: str, *, files: int, events: int, sensor: tuple[int, int], rounds: int) -> Row:
    """Files to 48x48x10 frames, large ones in events per second, small ones in files per second."""
    paths = write_recordings(folder, files=files, events=events, sensor=sensor)
    transform = tonic_transform(sensor=sensor, size=48)

    def ours(_: int) -> list[np.ndarray]:
        return [our_frames(path, sensor=sensor, size=48) for path in paths]

    def theirs(_: int) -> list[np.ndarray]:
        return [transform(read_mnist_file(path, TONIC_EVENTS)) for path in paths]

    assert all(np.array_equal(a, b) for a, b in zip(ours(0), theirs(0), strict=True))
    large = events > 50_000
    amount, unit = (files * events / 1e6, "M events") if large else (files, "files")
    row = Row(what, "read, decode, check, bin", "tonic reader, Downsample, ToFrame", unit, amount)
    row.bars = (100.0, 10.0) if large else row.bars
    return compare(row, ours, theirs, rounds=rounds, our_repeats=20)


def write_recordings(folder: Path, *, files: int, events: int, sensor: tuple[int, int]) -> list[Path]:
    """Recordings of 0.3 s, the large ones as long as N-Caltech101's."""
    paths = []
    for i in range(files):
        paths.append(folder / f"{sensor[0]}-{i}.bin")
        duration_us = 2_500 * max(events // 1_000, 120)
        recording = random_events(i, count=events, size=sensor, duration_us=duration_us)
        paths[-1].write_bytes(bin40.encode(recording))
    return paths


def spikingjelly_row(folder: Path, python: str, *, files: int, events: int, rounds: int) -> Row:
    """Large files to frames, ours 48x48, theirs of the sensor's size."""
    sensor = (240, 180)
    paths = write_recordings(folder, files=files, events=events, sensor=sensor)
    command = [python, str(Path(__file__).with_name("spikingjelly_frames.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        task = {"paths": [str(path) for path in paths], "height": sensor[1], "width": sensor[0], "bins": BINS}
        peer.stdin.write(json.dumps(task) + "\n")

        def theirs(_: int) -> int:
            peer.stdin.write("once\n")  # type: ignore[union-attr]
            peer.stdin.flush()  # type: ignore[union-attr]
            return int(json.loads(peer.stdout.readline())["events"])  # type: ignore[union-attr]

        def ours(_: int) -> int:
            return sum(int(our_frames(path, sensor=sensor, size=48).sum(dtype=np.int64)) for path in paths)

        # SpikingJelly gives the rest to the last bin, where tonic's rule, which is ours, drops the last events.
        assert theirs(0) - len(paths) * BINS <= ours(0) <= theirs(0) == files * events
        what, theirs_are = f"{events:,} events to frames", "SpikingJelly reader, integrate, no resize"
        row = Row(what, "read, decode, check, bin 48x48", theirs_are, "M events", files * events / 1e6)
        row = compare(row, ours, theirs, rounds=rounds, our_repeats=20)
        peer.stdin.close()
    return row


def conversion_row(raw: Path, folder: Path, *, rounds: int) -> Row:
    """Raw folder to a verified shard set, against one pass that fills tonic's cache."""
    paths = sorted((raw / "events").rglob("*.bin"))
    ours_at, theirs_at = folder / "converted", folder / "cache"

    def ours(_: int) -> None:
        shutil.rmtree(ours_at, ignore_errors=True)
        convert_nmnist(raw, ours_at, size=34)
        assert verify(ours_at).ok

    def theirs(_: int) -> None:
        cached = tonic.DiskCachedDataset(TonicRecordings(paths, size=34), str(theirs_at), reset_cache=True)
        for i in range(len(cached)):
            cached[i]

    ours(0)
    theirs(0)
    shards = ShardSet(ours_at)
    stored = {key: frames for split in shards.splits.values() for key, frames in _by_source(split, shards)}
    cached = tonic.DiskCachedDataset(None, str(theirs_at))
    for i, path in enumerate(paths):
        assert np.array_equal(stored[path.parent.parent.name, path.stem], cached[i][0])
    row = Row("raw folder to verified shard set", "convert, verify", "DiskCachedDataset pass", "recordings", len(paths))
    row.bars = (None, 8.0)
    return compare(row, ours, theirs, rounds=rounds)


def _by_source(split: Any, shards: ShardSet) -> list[tuple[tuple[str, str], np.ndarray]]:
    """((subset folder, file stem), frames) of every sample."""
    folder = "Test" if split is shards.split("test") else "Train"
    stems = [key.rpartition("-")[2] for key in split.keys]
    return [((folder, stem), frames) for stem, frames in zip(stems, split.read_all(), strict=True)]


def read_rows(shards: ShardSet, folder: Path, *, reads: int, rounds: int) -> list[Row]:
    """Stored samples at random, against tonic's cache at random and webdataset in order."""
    split = shards.split("train")
    frames = split.read_all()
    labelled = [(each.astype(np.int16), int(label)) for each, label in zip(frames, split.labels, strict=True)]
    cached = tonic.DiskCachedDataset(labelled, str(folder / "cache"))  # int16, as ToFrame counts
    assert all(np.array_equal(cached[i][0], frames[i]) for i in range(len(frames)))

    shard = str(shards.event_shards("train")[0])
    first = int((split.shard_of == 0).sum())

    def stream() -> Any:
        return webdataset.WebDataset(shard, shardshuffle=False, empty_check=False).decode()

    assert all(np.array_equal(sample["frames.npy"], frames[i]) for i, sample in enumerate(stream()))

    def positions(number: int, count: int) -> np.ndarray:
        return np.random.default_rng(number).integers(0, len(split), count)

    def ours(number: int) -> None:
        wanted = positions(number, 8 * reads)
        for start in range(0, len(wanted), READ_BATCH):
            split.read(wanted[start : start + READ_BATCH])

    def from_cache(number: int) -> None:
        for i in positions(number, reads):
            cached[i]

    def in_order(_: int) -> None:
        for sample in stream():
            sample["frames.npy"]

    what = f"reads of {split.dtype} {'x'.join(map(str, split.shape))}"
    cache = Row(what, "random, crc32", "DiskCachedDataset hits", "samples", 8 * reads, reads)
    cache.bars = (40_000.0, 20.0)
    tars = Row(what, "random, crc32", "webdataset in order", "samples", 8 * reads, first)
    return [
        compare(cache, ours, from_cache, rounds=rounds),
        compare(tars, ours, in_order, rounds=rounds),
    ]


def event_rows(raw: Path, frames: ShardSet, folder: Path, sizes: Sizes, *, rounds: int) -> list[Row]:
    """Frames made of stored events, beside stored frames of the same recordings; of large ones, beside tonic."""
    events = convert_nmnist(raw, folder / "events", size=48, store="events")
    made, stored = events.split("train"), frames.split("train")
    assert np.array_equal(made.read_all(), stored.read_all())
    count, reads = len(made), 8 * sizes.random_reads

    def read(split: Split) -> Callable[[int], None]:
        def run(number: int) -> None:
            wanted = np.random.default_rng(number).integers(0, count, reads)
            for start in range(0, reads, READ_BATCH):
                split.read(wanted[start : start + READ_BATCH])

        return run

    what = f"{sizes.small_events:,} stored events to 48x48x10"
    small = Row(what, "random, crc32, bin", "stored frames, random, crc32", "samples", reads)
    small.bars = (None, 0.7)
    return [
        compare(small, read(made), read(stored), rounds=rounds),
        _large_events_row(folder, sizes, rounds=rounds),
    ]


def all_size_rows(raw: Path, folder: Path, sizes: Sizes, given: argparse.Namespace) -> list[Row]:
    """Bytes on disk of random recordings like N-MNIST's and N-Caltech101's, and of real ones of N-MNIST where given."""
    large = [folder / "sizes" / str(i % 2) for i in range(10)]
    for path in set(large):
        path.mkdir(parents=True)
    written = write_recordings(folder / "sizes", files=len(large), events=sizes.large_events, sensor=(240, 180))
    moved = [path.rename(to / path.name) for path, to in zip(written, large, strict=True)]
    small = sorted((raw / "events" / "Train").rglob("*.bin"))[:: max(1, sizes.train // sizes.small_files)]
    kinds = [("N-MNIST, random", small, (34, 34)), ("N-Caltech101, random", moved, (240, 180))]
    if given.recordings:
        kinds.append(("N-MNIST, real", sorted(given.recordings.rglob("*.bin")), (34, 34)))
    rows = []
    for i, (what, paths, sensor) in enumerate(kinds):
        place = folder / f"sizes-{i}"
        rows += size_rows(what, paths, place, sensor=sensor, python=given.readers or "")
    return rows


def _large_events_row(folder: Path, sizes: Sizes, *, rounds: int) -> Row:
    """Stored recordings as long as N-Caltech101's to frames, against tonic on events that are in memory."""
    sensor, number = (240, 180), sizes.large_files
    duration_us = 2_500 * max(sizes.large_events // 1_000, 120)
    recorded = [random_events(i, count=sizes.large_events, size=sensor, duration_us=duration_us) for i in range(number)]
    settings = ConversionSettings(dataset="ncaltech101", time_bins=BINS, size=48, dtype="uint8", store="events")
    samples = [
        Sample(
            f"train-0-{i}",
            0,
            np.empty(0, np.uint8),
            "{}",
            events=compact(pack(one, sensor_size=sensor, source=str(i)), sensor_size=sensor),
        )
        for i, one in enumerate(recorded)
    ]
    framing = Framing(settings, settings, None, None)
    path = folder / "large.tar"
    more = {"shape": framing.shape, "dtype": framing.dtype, "key_bytes": 20}
    index = write_shard(path, samples, store="events", **more).index
    split = Split(
        [path],
        index,
        np.zeros(number, np.int64),
        shape=framing.shape,
        dtype=framing.dtype,
        store="events",
        framing=framing,
        as_stored=False,
        reopen=lambda: split,
    )
    plain = [np.empty(len(one), TONIC_EVENTS) for one in recorded]
    for rows, one in zip(plain, recorded, strict=True):
        rows["t"], rows["x"], rows["y"], rows["p"] = one.columns
    transform = tonic_transform(sensor=sensor, size=48)
    for i, rows in enumerate(plain):
        assert np.array_equal(split.read([i])[0], transform(rows))

    def theirs(_: int) -> list[np.ndarray]:
        return [transform(rows) for rows in plain]

    what = f"{sizes.large_events:,} stored events to 48x48x10"
    row = Row(what, "read, crc32, bin", "Downsample, ToFrame in memory", "M events", number * sizes.large_events / 1e6)
    row.bars = (300.0, None)
    return compare(row, lambda _: split.read(range(number)), theirs, rounds=rounds, our_repeats=20)


def verify_row(shards: ShardSet, *, rounds: int) -> Row:
    """Verification of a set of several shards, on all cores, against nothing but the hash of its bytes on one."""
    files = [shards.path / entry["name"] for entry in shards.manifest["files"]]
    amount = verify(shards.path).bytes / 1e6

    def hashes(_: int) -> None:
        for path in files:
            with open(path, "rb") as file:
                hashlib.file_digest(file, "sha256")

    row = Row("verify", "hashes, checksums, counts, leaks", "sha256 alone, one thread", "MB", amount)
    row.bars = (1000.0, None)
    return compare(row, lambda _: verify(shards.path), hashes, rounds=rounds, their_repeats=2, our_repeats=2)


PARTS = ("frames", "stored", "sizes", "readers")
"""Parts of the rows that `--only` names: of raw files, of shards, bytes on disk, other decoders."""


def more_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for what lives in environments of its own."""
    parser.add_argument("--spikingjelly", metavar="PYTHON", help="of an environment that has it")
    parser.add_argument("--readers", metavar="PYTHON", help="of an environment that has other decoders")
    parser.add_argument("--recordings", metavar="DIR", type=Path, help="of real N-MNIST recordings, in class folders")
    parser.add_argument("--only", choices=PARTS, help="leave all other rows out")


def raw_rows(folder: Path, sizes: Sizes, given: argparse.Namespace) -> list[Row]:
    """Rows of frames that are made of files."""
    rows = [
        frame_row(
            folder,
            f"{events:,} events to 48x48x10",
            files=files,
            events=events,
            sensor=sensor,
            rounds=given.rounds,
        )
        for files, events, sensor in (
            (sizes.large_files, sizes.large_events, (240, 180)),
            (sizes.small_files, sizes.small_events, (34, 34)),
        )
    ]
    if given.spikingjelly:
        large = {"files": sizes.large_files, "events": sizes.large_events}
        rows.append(spikingjelly_row(folder, given.spikingjelly, **large, rounds=given.rounds))
    return rows


def shard_rows(raw: Path, folder: Path, sizes: Sizes, given: argparse.Namespace) -> list[Row]:
    """Rows of conversion, reading and verification."""
    rows = [conversion_row(raw, folder, rounds=given.rounds)]
    shards = convert_nmnist(raw, folder / "shards", size=48)
    rows += read_rows(shards, folder / "hits", reads=sizes.random_reads, rounds=given.rounds)
    rows += event_rows(raw, shards, folder, sizes, rounds=given.rounds)
    more = write_nmnist(folder / "more", train=5 * sizes.verified // 6, test=sizes.verified // 6, events=500)
    several = convert_nmnist(more, folder / "several", size=48)
    rows.append(verify_row(several, rounds=given.rounds))
    return rows


def main() -> None:
    """Make the files, time, print."""
    given = arguments("Speed of the pipeline beside other libraries.", more_arguments)
    sizes = SMALL if given.small else Sizes()
    warnings.filterwarnings("ignore", module="webdataset")
    wanted = (given.only,) if given.only else PARTS
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, rows, without = Path(name), list[Row](), dict[str, str]()
        raw = folder / "raw"
        if {"stored", "sizes"} & {*wanted}:
            write_nmnist(raw, train=sizes.train, test=sizes.test, events=sizes.small_events)
        if "frames" in wanted:
            rows += raw_rows(folder, sizes, given)
        if "stored" in wanted:
            rows += shard_rows(raw, folder, sizes, given)
        if "sizes" in wanted:
            rows += all_size_rows(raw, folder, sizes, given)
        if "readers" in wanted and given.readers:
            decoded, without = decoding_rows(folder, given.readers, events=sizes.decoded, rounds=given.rounds)
            rows += decoded
    for what, why in without.items():
        print(f"no row for {what}: {why}")
    report(rows, packages=("numpy", "numba", "h5py", "tonic", "webdataset"), given=given)


if __name__ == "__main__":
    main()
