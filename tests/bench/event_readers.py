"""Other libraries' decoders of event files, in a process and an environment of their own, on one thread.

In the folder of this project, with the Python that made .venv; the last line but one lends it tonic from .venv:

    python3 -m venv READERS
    READERS/bin/pip install evutils==0.3.18 evt3==0.4.1 faery==0.7.1 expelliarmus==1.1.12 evlib==0.13.2 lz4 hdf5plugin
    realpath .venv/lib/python3*/site-packages > READERS/lib/$(ls READERS/lib)/site-packages/project.pth
    make bench-pipeline READERS=READERS/bin/python

Protocol: first line out, JSON {library: version} of those that can be imported. Then for every line in, JSON
{"library", "path", "kind"}, one line of JSON out: {"events": number}, {"cells": [T * P * S * S]} where "bins" is given,
too (counts of its events, as ours bin them), or {"error": text}. The parent takes the time.
"""

from __future__ import annotations

import os
import sys

for variable in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import contextlib  # noqa: E402
import importlib  # noqa: E402
import importlib.metadata  # noqa: E402
import json  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402


def _by_evutils(path: str, _kind: str) -> Any:
    from evutils.io import EventReader

    return EventReader(path).read_all()


def _by_evt3(path: str, _kind: str) -> Any:
    import evt3

    return evt3.decode_file(path)


def _by_faery(path: str, _kind: str) -> Any:
    import faery

    return list(faery.events_stream_from_file(path))


def _by_expelliarmus(path: str, kind: str) -> Any:
    import expelliarmus

    return expelliarmus.Wizard(encoding=kind.lower()).read(path)


def _by_evlib(path: str, _kind: str) -> Any:
    import evlib

    return evlib.load_events(path).collect()


def _by_tonic(path: str, _kind: str) -> Any:
    """As `read_dvs_ibm` does it, which in 1.7.0 fails on the first line's three values."""
    from tonic import io

    version, start, _ = io.read_aedat_header_from_file(path)
    events = io.get_aer_events_from_file(path, version, start)
    address = events["address"]
    return io.make_structured_array(
        address >> 17 & 0x1FFF, address >> 2 & 0x1FFF, events["timeStamp"], address >> 1 & 1
    )


DECODERS: dict[str, Callable[[str, str], Any]] = {
    "evutils": _by_evutils,
    "evt3": _by_evt3,
    "faery": _by_faery,
    "expelliarmus": _by_expelliarmus,
    "evlib": _by_evlib,
    "tonic": _by_tonic,
    "numpy": lambda path, _: np.loadtxt(path),
}
"""What a library's users call; each gives what the library gives."""


def columns(library: str, events: Any) -> list[np.ndarray]:
    """Columns t, x, y, p of what a decoder gives, t in microseconds."""
    if library == "faery":
        parts = [np.concatenate([packet[name] for packet in events]) for name in ("t", "x", "y", "on")]
    elif library == "evt3":
        parts = [events.timestamp, events.x, events.y, events.polarity]
    elif library == "evlib":
        times = events["t"].dt.total_microseconds().to_numpy()
        parts = [times, *(events[name].to_numpy() for name in ("x", "y", "polarity"))]
    elif library == "numpy":
        parts = [np.rint(events[:, 0] * 1e6), events[:, 1], events[:, 2], events[:, 3]]
    elif library == "evutils":
        parts = [getattr(events, name) for name in "txyp"]
    else:
        parts = [events[name] for name in "txyp"]
    return [np.asarray(part).astype(np.int64) for part in parts]


def count(library: str, events: Any) -> int:
    """Number of events of what a decoder gives."""
    return sum(map(len, events)) if library == "faery" else len(events)


def cells(parts: list[np.ndarray], *, bins: int, size: int, sensor: list[int]) -> list[int]:
    """Counts [T,P,S,S] as spikebridge's `to_frames` bins them."""
    t, x, y, p = parts
    since = t - t[0]
    step = since // (since[-1] // bins)
    cell = ((step * 2 + (p > 0)) * size + y * size // sensor[1]) * size + x * size // sensor[0]
    return np.bincount(cell[step < bins], minlength=bins * 2 * size * size).tolist()


def main() -> None:
    """Answer one line per request."""
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr  # some libraries print
    found = {}
    for library in DECODERS:
        with contextlib.suppress(ImportError, importlib.metadata.PackageNotFoundError):
            importlib.import_module(library)
            found[library] = importlib.metadata.version(library)
    print(json.dumps(found), file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        try:
            events = DECODERS[task["library"]](task["path"], task["kind"])
            if "bins" in task:
                parts = columns(task["library"], events)
                answer = {"cells": cells(parts, bins=task["bins"], size=task["size"], sensor=task["sensor"])}
            else:
                answer = {"events": count(task["library"], events)}
        except BaseException as error:  # whatever a library raises, panics too
            if isinstance(error, KeyboardInterrupt):
                raise
            answer = {"error": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
