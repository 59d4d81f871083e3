"""Rows of `bench_pipeline`: event files to frames, beside other libraries that only decode them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path
from typing import Any

from rounds import Row, compare  # isort: skip  (sets the number of threads)

import numpy as np
from large_recordings import SENSOR, write_recordings

from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.events.packing import pack_chunks
from spikebridge.pipeline.formats import recording

BINS, SIZE = 10, 48
READERS = {
    "EVT2": ("evutils", "faery", "expelliarmus", "evlib"),
    "EVT3": ("evutils", "evt3", "faery", "expelliarmus", "evlib"),
    "DAT": ("evutils", "faery", "expelliarmus", "evlib"),
    "AEDAT4": ("evutils", "faery", "evlib"),
    "AEDAT3": ("tonic",),
    "text": ("numpy",),
}
"""Libraries that read a format."""
BARS = {"AEDAT3": 5.0, "text": 5.0}
"""Ratio to be reached; else 1."""


def our_frames(path: Path) -> np.ndarray:
    """A recording as [T,P,H,W] the way a conversion reads it: bytes, events, checks, frames."""
    stream = recording.stream(path)
    events = pack_chunks(stream.annotated, sensor_size=SENSOR, source=path.name, likely=stream.likely)
    framed = to_frames(
        events, time_bins=BINS, size=SIZE, reduction="sum", dtype="uint16", canvas=SENSOR, source=path.name
    )
    return framed.frames


class Readers:
    """The process of `event_readers.py`."""

    def __init__(self, python: str) -> None:
        script = str(Path(__file__).with_name("event_readers.py"))
        self.process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.versions: dict[str, str] = json.loads(self.process.stdout.readline())

    def ask(self, **task: Any) -> dict[str, Any]:
        """One request, one answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def decoding_rows(folder: Path, python: str, *, events: int, rounds: int) -> tuple[list[Row], dict[str, str]]:
    """Rows, the fastest of the others first in each format, and what each library that gives no row answered.

    Whoever gets a row decodes the same events: counts are compared cell by cell.
    """
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {min(cores)})  # the core of the others
    lines = max(events // 10, 1)
    paths = write_recordings(folder, events=events, lines=lines)
    rows, without = list[Row](), dict[str, str]()
    readers = Readers(python)
    for kind, libraries in READERS.items():
        path, amount = paths[kind], lines if kind == "text" else events
        frames = our_frames(path)
        found = list[Row]()
        for library in libraries:
            task = {"library": library, "path": str(path), "kind": kind}
            if library not in readers.versions:
                without[f"{kind} by {library}"] = "not installed"
                continue
            answer = readers.ask(**task, bins=BINS, size=SIZE, sensor=SENSOR)
            if "error" in answer:
                without[f"{kind} by {library}"] = answer["error"]
                continue
            if answer["cells"] != frames.reshape(-1).tolist():
                without[f"{kind} by {library}"] = "other events"
                continue
            version = readers.versions[library]
            row = Row(
                f"{kind}, {amount:,} events", "frames 48x48x10", f"{library} {version}, decoding alone", "M events"
            )
            row.amount, row.bars = amount / 1e6, (None, BARS.get(kind, 1.0))
            found.append(
                compare(
                    row, lambda _, path=path: our_frames(path), lambda _, task=task: readers.ask(**task), rounds=rounds
                )
            )
        rows += sorted(found, key=lambda row: statistics.median(row.their_seconds))
    readers.close()
    if cores:
        os.sched_setaffinity(0, cores)
    return rows, without
