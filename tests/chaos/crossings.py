"""Random crossings of verbs, faults and places: nothing silent, nothing different, nothing hung, no traceback.

Command:   make chaos SECONDS=600, or python tests/chaos/crossings.py --seconds 600 --seed 0 [--out FILE.md]
Exit code: 0 when every crossing was good, else 1; each bad one is printed with the options that repeat it.

A crossing runs one verb under one fault, then puts right what the fault broke and gives the same command again. It is
    silent      when the verb ended with exit code 0 and wrote something else than without the fault
    different   when the repeated command failed, or its output is not that of an undisturbed command
    hung        when it did not end in time
    traceback   when Python's own report of an error reached the terminal
Places: folders of their own for home and cache, none of either, a limit on the size of files, as of a full disk, a
/dev/shm of 1 MB (for root alone: left out with a word elsewhere), and recipes and grids under odd paths.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "src"), str(TESTS), *(str(TESTS / room) for room in ("support", "bench", "chaos"))]

import odd_inputs  # noqa: E402
from certificates import make_certificate, server_context  # noqa: E402
from conftest import write_digits_raw  # noqa: E402
from crew import Crew  # noqa: E402
from faulty_http import FAULTS as HTTP_FAULTS  # noqa: E402
from faulty_http import serving  # noqa: E402
from faulty_sftp import FAULTS as SFTP_FAULTS  # noqa: E402
from faulty_sftp import SFTP  # noqa: E402
from program import Ended, Forked, Program, Running, wait_until  # noqa: E402
from rounds import machine  # noqa: E402

from spikebridge.train.config.profile import CameraProfile  # noqa: E402
from spikebridge.train.config.simulation_ranges import PROFILES  # noqa: E402
from spikebridge.train.runs.checkpoints import tensors_sum  # noqa: E402

RECIPE = """
[shards]
dataset = "digits"
time_bins = 4
size = 16
reduction = "sum"
extent = "canvas"
encoding = "v"
protocol = "strict"

[train]
method = "kt"
model = "scnn"
surrogate = "QGateGrad"
width = 0.2
epochs = 4
batch_size = 8
lr = 8e-3
domain_coefficient = 0.5
"""
GRID = """
recipe = "recipe.toml"
seeds = [0]
events_per_class = [2]
steps = 12
validations = 2
reference = "kt"
baselines = ["kt"]
finalist = "kt"

[[rows]]
label = "kt"
method = "kt"
note = "The published method."
"""
CHANGING = ("seconds", "samples_per_second", "cpu", "time", "peak", "duration", "finished", "created", "version")
"""Parts of JSON keys whose values are measured, not computed."""
NAMED = ("recipe_name", "grid", "grid_sha256")
"""JSON keys whose values say what files are called."""


def digests(path: Path, *, but: tuple[str, ...] = ()) -> dict[str, str]:
    """SHA-256 of every file below a folder, or of one file."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    named = {str(p.relative_to(path.parent)): p for p in files}
    hidden = {name: p for name, p in named.items() if any(part.startswith(".") for part in Path(name).parts)}
    return {
        name: hashlib.sha256(p.read_bytes()).hexdigest()
        for name, p in named.items()
        if name not in hidden and p.name not in but and p.suffix not in but
    }


def computed(value: Any) -> Any:
    """JSON without what is measured."""
    if isinstance(value, dict):
        return {k: computed(v) for k, v in value.items() if not any(word in k for word in CHANGING) and k not in NAMED}
    return [computed(one) for one in value] if isinstance(value, list) else value


def json_file(name: str) -> Callable[[Path, Ended], Any]:
    """What a verb wrote into a JSON file."""
    return lambda folder, _: computed(json.loads((folder / name).read_text()))


def answered(folder: Path, ended: Ended) -> Any:
    """What a verb printed as JSON."""
    return computed(json.loads(ended.stdout))


def tree(name: str, *but: str) -> Callable[[Path, Ended], Any]:
    """Files that a verb wrote."""
    return lambda folder, _: digests(folder / name, but=but)


def run_of(name: str) -> Callable[[Path, Ended], Any]:
    """What counts of a run: its weights and its figures."""

    def read(folder: Path, _: Ended) -> Any:
        result = computed(json.loads((folder / name / "result.json").read_text()))
        weights = {path.name: tensors_sum(path) for path in sorted((folder / name / "weights").iterdir())}
        return weights, {k: v for k, v in result.items() if "accuracy" in k or "loss" in k}

    return read


@dataclass(frozen=True)
class Verb:
    """A command to cross."""

    argv: tuple[str, ...]
    inputs: tuple[str, ...]
    """What it reads, below the folder of a crossing."""
    output: Callable[[Path, Ended], Any]
    checked: bool = True
    """Whether every bit of the inputs is covered by a sum; a raw recording with another bit is another recording."""
    makes: str = ""
    """What it writes and continues where it was killed."""
    serves: str = ""
    """Folder that a server gives out; `URL` in argv is its address."""
    by: str = "http"
    """Protocol of the server; `dask` has no folder, and its address is a scheduler's."""


SET = ("preprocess", "--recipe", "recipe.toml", "--events", "raw", "--static", "raw", "--out", "made", "--workers", "1")
TRAIN = ("--recipe", "recipe.toml", "--checkpoint-every", "4", "--run")
OUTSIDE = ("environment.json", "croissant.json")
"""No part of a set; taken along where they are there, as they are."""
UNFINISHED = ".partial"
"""Ending of what a dead publisher left on a server without locks, where it stays for a day."""
MORE = ("--set", "epochs=12")
VERBS = {
    "preprocess": Verb(SET, ("raw",), tree("made"), checked=False, makes="made"),
    "preprocess-workers": Verb((*SET[:-1], "2"), ("raw",), tree("made"), checked=False, makes="made"),
    "preprocess-hdf5": Verb((*SET, "--format", "hdf5"), ("raw",), tree("made"), checked=False),
    "convert": Verb(("convert", "shards", "--out", "made", "--codec", "gzip"), ("shards",), tree("made", *OUTSIDE)),
    "verify": Verb(("verify", "shards", "--json"), ("shards",), answered),
    "inspect": Verb(("inspect", "shards", "--json"), ("shards",), answered),
    "diff": Verb(("diff", "shards", "same", "--json"), ("shards", "same"), answered),
    "push": Verb(("push", "shards", "made"), ("shards",), tree("made", *OUTSIDE)),
    "pull": Verb(("pull", "published", "made"), ("published",), tree("made"), makes="made"),
    "pull-http": Verb(("pull", "URL", "made"), (), tree("made"), serves="published"),
    "pull-https": Verb(("pull", "URL", "made"), (), tree("made"), serves="published", by="https"),
    "push-sftp": Verb(
        ("push", "shards", "URL"), ("shards",), tree("made", *OUTSIDE, UNFINISHED), serves="made", by="sftp"
    ),
    "pull-sftp": Verb(
        ("pull", "URL", "made"), ("published",), tree("made"), makes="made", serves="published", by="sftp"
    ),
    "train": Verb(("train", "--shards", "shards", *TRAIN, "made"), ("shards",), run_of("made"), makes="made"),
    "train-http": Verb(("train", "--shards", "URL", *TRAIN, "made"), (), run_of("made"), serves="published"),
    "resume": Verb(
        ("train", "--shards", "shards", *TRAIN, "half", *MORE), ("shards", "half"), run_of("half"), makes="half"
    ),
    "evaluate": Verb(("evaluate", "run", "--shards", "shards", "--json"), ("run", "shards"), answered),
    "export": Verb(
        ("export", "run", "--format", "nir", "--out", "made.nir", "--overwrite"), ("run",), tree("made.nir")
    ),
    "calibrate": Verb(
        (
            "calibrate",
            "raw",
            "--static",
            "raw",
            "--sensor",
            "34x34",
            "--shown",
            "0.8235",
            "--recordings",
            "12",
            "--sets",
            "20",
            "--out",
            "made.toml",
            "--overwrite",
            "--quiet",
        ),
        ("raw",),
        tree("made.toml"),
        checked=False,
        makes="made.toml",
    ),
    "match": Verb(
        (
            "match",
            "raw",
            "--dataset",
            "digits",
            "--static",
            "raw",
            "--camera",
            "camera.toml",
            "--out",
            "made.csv",
            "--overwrite",
            "--quiet",
        ),
        ("raw",),
        tree("made.csv"),
        checked=False,
        makes="made.csv",
    ),
    "report": Verb(("report", "run", "--out", "made.html", "--overwrite"), ("run",), tree("made.html")),
    "ablate": Verb(
        ("ablate", "--grid", "grid.toml", "--shards", "shards", "--out", "made", "--workers", "1"),
        ("shards",),
        json_file("made/ablation.json"),
    ),
    "ablate-dask": Verb(
        ("ablate", "--grid", "grid.toml", "--shards", "shards", "--out", "made", "--scheduler", "URL"),
        ("shards",),
        json_file("made/ablation.json"),
        serves=".",
        by="dask",
    ),
}
WARM = ("preprocess", "convert", "verify", "inspect", "diff", "pull", "evaluate", "export", "report")
"""Verbs without a backward pass, which the server of forks may run itself."""
RARE = {"ablate": 0.1, "calibrate": 0.1, "match": 0.3, "ablate-dask": 0.3, "preprocess-workers": 0.3, "report": 0.25}
"""Share of the slow verbs, of an equal one."""
ALWAYS = ("killed", "paused", "interrupted", "terminated", "full disk", "little memory", "twice", "homeless")
TOUCHING = ("flipped", "deleted", "replaced")
SERVER_FAULTS = {
    "http": HTTP_FAULTS[1:],
    "https": (*HTTP_FAULTS[1:], "impostor"),
    "sftp": (*SFTP_FAULTS[1:], "impostor"),
    "dask": ("workers killed",),
}
SHARING_MEMORY = ("preprocess-workers", "train", "evaluate", "ablate", "ablate-dask")
"""Verbs that are tried with a /dev/shm of 1 MB."""
WITH_WORKERS = ("preprocess-workers", "ablate")
"""Verbs whose worker processes are tried with little memory."""
INLINE = ("full disk", "homeless", "flipped", *HTTP_FAULTS[1:])
"""Faults that need no process beside the command's."""


@dataclass
class Ground:
    """What all crossings begin from, and what their verbs write when nothing disturbs them."""

    folder: Path
    program: Program
    expected: dict[str, Any] = field(default_factory=dict)
    of_other: dict[str, Any] = field(default_factory=dict)
    """What a verb writes of the set that takes the place of `shards` under the fault `replaced`."""
    seconds: dict[str, float] = field(default_factory=dict)
    largest: dict[str, int] = field(default_factory=dict)
    certificates: dict[str, Path] = field(default_factory=dict)
    sftp: SFTP | None = None
    crew: Crew | None = None

    def copy(self, target: Path) -> Path:
        """Lay a fresh folder."""
        shutil.copytree(self.folder, target)
        return target

    def do(self, *argv: str) -> Ended:
        """Run a command on the ground itself."""
        ended = self.program.start(list(argv), self.folder).wait()
        assert ended.code == 0, (argv, ended)
        return ended

    def prepare(self, work: Path, names: list[str]) -> None:
        """Make the ground, and run each verb once undisturbed."""
        self.folder.mkdir(parents=True)
        self._open_servers(work, {VERBS[name].by for name in names if VERBS[name].serves})
        (self.folder / "recipe.toml").write_text(RECIPE)
        (self.folder / "grid.toml").write_text(GRID)
        camera = CameraProfile(PROFILES["saccades"], (34, 34), 300_000, (), {})
        (self.folder / "camera.toml").write_text(camera.dump())
        write_digits_raw(self.folder / "raw", train=6, test=2)
        write_digits_raw(self.folder / "other-raw", train=7, test=2)
        raw = ["preprocess", "--recipe", "recipe.toml", "--workers", "1", "--samples-per-shard", "4"]
        self.do(*raw, "--events", "raw", "--static", "raw", "--out", "shards")
        self.do(*raw, "--events", "other-raw", "--static", "other-raw", "--out", "other")
        shutil.copytree(self.folder / "shards", self.folder / "same")
        self.do("push", "shards", "published")
        needed = {source for name in names for source in VERBS[name].inputs}
        if "run" in needed:
            self.do("train", "--shards", "shards", *TRAIN, "run")
        if "half" in needed:
            self._train_half()
        if isinstance(self.program, Forked):
            warming = self.copy(work / "warming")
            for name in set(WARM) & set(names):
                self.program.warm(command_of(name, ""), warming)
            self.do("--version")  # answered when all that is done: it is no part of what a verb takes
        for name in names:
            folder = self.copy(work / f"undisturbed-{name}")
            before = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
            with self.served(folder, name, "none", "0") as address:
                began = time.monotonic()
                ended = self.program.start(command_of(name, address), folder, **places(folder)).wait()
                self.seconds[name] = time.monotonic() - began
            assert ended.code == 0, (name, ended)
            self.expected[name] = VERBS[name].output(folder, ended)
            made = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path not in before]
            self.largest[name] = max(made, default=0)
            shutil.rmtree(folder)
            if "shards" in VERBS[name].inputs and isinstance(self.program, Forked):
                self._see_other(self.copy(work / f"other-{name}"), name)

    def _open_servers(self, work: Path, kinds: set[str]) -> None:
        """Open the servers that last for all crossings."""
        self.certificates = {name: work / f"{name}.pem" for name in ("own", "impostor")}
        if "https" in kinds:
            for name in self.certificates:
                make_certificate(work / f"{name}.pem")
        if "sftp" in kinds:
            self.sftp = SFTP(work / "sftp")
            self.sftp.write_home(self.folder / "home")
        if "dask" in kinds:
            assert isinstance(self.program, Forked)
            self.crew = Crew(self.program, work / "crew")

    def close(self) -> None:
        """Close the servers."""
        if self.sftp:
            self.sftp.close()
        if self.crew:
            self.crew.close()

    @contextmanager
    def served(self, folder: Path, name: str, fault: str, seed: str) -> Iterator[str]:
        """Serve what a verb reads or writes at an address, where it does."""
        verb = VERBS[name]
        if not verb.serves:
            yield ""
        elif verb.by == "dask":
            assert self.crew
            yield self.crew.address
        elif verb.by == "sftp":
            assert self.sftp
            self.sftp.fault, self.sftp.rng = fault, random.Random(seed)
            config = folder / "home" / ".ssh" / "config"
            if fault == "impostor":
                (config.parent / "others").write_text(OTHER_HOST.format(self.sftp.port))
                config.write_text(config.read_text().replace(str(self.sftp.known_hosts), str(config.parent / "others")))
            yield f"sftp://shelf{folder / verb.serves}"
            self.sftp.fault = "none"
            shutil.copy(self.folder / "home" / ".ssh" / "config", config)
        else:
            mine = "impostor" if fault == "impostor" else "own"
            context = server_context(self.certificates[mine]) if verb.by == "https" else None
            with serving(folder / verb.serves, fault, seed, context=context) as address:
                yield address

    def _see_other(self, folder: Path, name: str) -> None:
        """Run a verb with the other set in the place of its own; some refuse it."""
        replace(folder)
        with self.served(folder, name, "none", "0") as address:
            ended = self.program.start(command_of(name, address), folder, **places(folder)).wait()
        if ended.code == 0:
            self.of_other[name] = VERBS[name].output(folder, ended)
        shutil.rmtree(folder)

    def _train_half(self) -> None:
        """Begin a run and stop it behind its second checkpoint."""
        half = self.program.start(["train", "--shards", "shards", *TRAIN, "half", *MORE], self.folder)
        wait_until((self.folder / "half" / "checkpoint" / "before.json").exists)
        half.signal(signal.SIGTERM)
        half.wait()


def replace(folder: Path) -> None:
    """Put the other set in the place of `shards`."""
    (folder / "shards").rename(folder / "away")
    shutil.copytree(folder / "other", folder / "shards")


OTHER_HOST = "[127.0.0.1]:{} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ\n"
"""Line of known hosts with a key that the server does not have."""


def places(folder: Path) -> dict[str, str]:
    """Home and cache of a crossing."""
    return {"HOME": str(folder / "home"), "SPIKEBRIDGE_CACHE": str(folder / "cache")}


def command_of(name: str, address: str) -> list[str]:
    """Words of a verb's command."""
    return [address if word == "URL" else word for word in VERBS[name].argv]


class Crossing:
    """One verb under one fault."""

    def __init__(self, ground: Ground, work: Path, number: int, name: str, fault: str, seed: int) -> None:
        self.ground, self.number, self.name, self.fault = ground, number, name, fault
        self.verb, self.rng = VERBS[name], random.Random(f"{seed}-{number}")
        self.folder = ground.copy(work / f"{number:06d}" / "place")
        self.problems: list[str] = []
        self.notes: list[str] = []

    def start(self, address: str, **more: Any) -> Running:
        """Start the verb."""
        environment = places(self.folder) | more.pop("environment", {})
        argv = more.pop("argv", command_of(self.name, address))
        return self.ground.program.start(argv, self.folder, **more, **environment)

    def judge(self, ended: Ended, *, last: bool = False) -> None:
        """Hold what came of a command against what should have."""
        self.notes.append(f"exit {ended.code}: {(ended.stderr.strip().splitlines() or [''])[-1][:160]}")
        if ended.hung:
            self.problems.append("hung")
        if "Traceback (most recent call last)" in ended.stderr:
            self.problems.append("traceback")
            places = [line.strip() for line in ended.stderr.splitlines() if line.startswith("  File ")]
            self.notes.append(" < ".join(reversed(places[-4:])))
        if ended.code == 0 and self.fault == "impostor" and not last:
            self.problems.append("silent")
        if ended.code == 0 or last:
            try:
                output = self.verb.output(self.folder, ended)
                right = ended.code == 0 and output == self.ground.expected[self.name]
                if self.fault == "replaced" and not last:  # one set or the other, and nothing between them
                    right = right or (self.name in self.ground.of_other and output == self.ground.of_other[self.name])
            except (OSError, ValueError):
                right = False
            if not right:
                self.problems.append("different" if last else "silent")

    def victim(self) -> Path:
        """Choose a file that the verb reads."""
        files = [p for name in self.verb.inputs for p in sorted((self.folder / name).rglob("*")) if p.is_file()]
        files = [p for p in files if not any(part.startswith(".") for part in p.relative_to(self.folder).parts)]
        return self.rng.choice(files)

    def flip(self, path: Path) -> None:
        """Change a bit of a file."""
        if content := bytearray(path.read_bytes()):
            place = self.rng.randrange(len(content) * 8)
            content[place // 8] ^= 1 << place % 8
            path.chmod(0o644)
            path.write_bytes(content)
            self.notes.append(f"bit {place} of {path.relative_to(self.folder)}")

    def spoil(self, path: Path) -> None:
        """Change a bit of a file, or a value where it is JSON."""
        if path.suffix != ".json" or not path.stat().st_size or self.rng.random() < 0.25:
            return self.flip(path)
        path.write_bytes(odd_inputs.change_json(path.read_bytes(), self.rng))
        return self.notes.append(f"a value of {path.relative_to(self.folder)}")

    def go_astray(self, address: str) -> None:
        """Run the verb with its recipe or grid under an odd path, or with one that is none."""
        argv = command_of(self.name, address)
        given = next(word for word in argv if word in ("recipe.toml", "grid.toml"))
        kind = self.rng.choice(odd_inputs.NONE if self.rng.random() < 0.4 else odd_inputs.NAMES)
        self.notes.append(repr(kind))
        good = kind in odd_inputs.NAMES
        if good:
            (self.folder / kind).mkdir(parents=True)
            for name in ("recipe.toml", "grid.toml"):
                shutil.copy(self.folder / name, self.folder / kind)
            path = f"{kind}/{given}"
        else:
            path = odd_inputs.lay_none(self.folder, kind)
        if given == "grid.toml" and self.rng.random() < 0.5 and "\udcff" not in path:
            grid = GRID.replace('"recipe.toml"', json.dumps(path.replace(given, "recipe.toml")))
            (self.folder / "odd.toml").write_text(grid)
            path = "odd.toml"
        ended = self.start(address, argv=[path if word == given else word for word in argv], most_memory=2**31).wait()
        self.judge(ended, last=good)
        if (self.folder / "MARK").exists():
            self.problems.append("silent")
        if good:
            shutil.rmtree(self.folder / "made", ignore_errors=True)

    def pause(self) -> None:
        """Wait for a random moment of the verb's usual time."""
        time.sleep(self.rng.random() * 1.1 * self.ground.seconds[self.name])

    def disturb(self, address: str) -> None:  # noqa: PLR0911  (a fault each)
        """Run the verb under the fault."""
        if self.fault in ("killed", "interrupted", "terminated", "paused"):
            running = self.start(address)
            self.pause()
            signals = {"killed": signal.SIGKILL, "interrupted": signal.SIGINT, "terminated": signal.SIGTERM}
            running.signal(signals.get(self.fault, signal.SIGSTOP))
            if self.fault == "paused":
                self.pause()
                running.signal(signal.SIGCONT)
            return self.judge(running.wait())
        if self.fault == "full disk":
            limit = self.rng.randrange(self.ground.largest[self.name] + 2)
            return self.judge(self.start(address, largest_file=limit).wait())
        if self.fault == "homeless":
            away = {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/proc/nowhere", "NUMBA_CACHE_DIR": "/proc/nowhere"}
            return self.judge(self.start(address, environment=away).wait())
        if self.fault == "little memory":
            limit = self.rng.randrange(2**22, 2**28)
            return self.judge(self.start(address, most_memory=limit).wait())
        if self.fault == "tampered":
            running = self.start(address)
            self.pause()
            running.signal(signal.SIGKILL)
            running.wait()
            folder = self.folder / self.verb.makes
            made = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            whole = (folder / "manifest.json").exists() and "pull" not in self.name  # a whole set is for `verify`
            if made and not whole:
                self.spoil(self.rng.choice(made))
            return self.judge(self.start(address).wait())
        if self.fault == "small shm":
            return self.judge(self.start(address, small_shm=True).wait())
        if self.fault == "poor workers":
            running = self.start(address)
            running.limit_workers(self.rng.randrange(2**26, 2**32))
            return self.judge(running.wait())
        if self.fault == "workers killed":
            assert self.ground.crew
            running = self.start(address)
            for _ in range(self.rng.randrange(1, 4)):
                self.pause()
                self.ground.crew.kill_workers()
            return self.judge(running.wait())
        if self.fault == "odd path":
            return self.go_astray(address)
        if self.fault == "twice":
            both = [self.start(address)]
            if self.rng.random() < 0.5:
                self.pause()
            both.append(self.start(address))
            for ended in [running.wait() for running in both]:
                self.judge(ended)
            return None
        if self.fault == "flipped":
            self.flip(self.victim())
            return self.judge(self.start(address).wait())
        if self.fault in ("deleted", "replaced"):
            path, running = self.victim(), self.start(address)
            self.pause()
            if self.fault == "deleted":
                path.unlink(missing_ok=True)
                self.notes.append(f"deleted {path.relative_to(self.folder)}")
            elif "shards" in self.verb.inputs:
                replace(self.folder)
            return self.judge(running.wait())
        return self.judge(self.start(address).wait())  # the server's own fault

    def restore(self) -> None:
        """Put right what the fault broke: inputs as they were; what the verb wrote stays."""
        if self.fault == "tampered":
            shutil.rmtree(self.folder / self.verb.makes, ignore_errors=True)
        if self.fault == "replaced":  # of the other set, which the repeated command rightly refuses
            shutil.rmtree(self.folder / "made", ignore_errors=True)
        for name in self.verb.inputs:
            if name == "half" and self.fault not in (*TOUCHING, "tampered"):
                continue  # what the verb writes is to be continued
            shutil.rmtree(self.folder / name, ignore_errors=True)
            shutil.copytree(self.ground.folder / name, self.folder / name)

    def run(self) -> list[str]:
        """Cross, restore and repeat; returns what was bad."""
        fault = self.fault if self.verb.serves and self.fault in SERVER_FAULTS[self.verb.by] else "none"
        with self.ground.served(self.folder, self.name, fault, str(self.number)) as address:
            self.disturb(address)
        self.restore()
        with self.ground.served(self.folder, self.name, "none", "0") as address:
            self.judge(self.start(address).wait(), last=True)
        shutil.rmtree(self.folder.parent, ignore_errors=self.verb.by == "dask")
        return sorted(set(self.problems))


@cache
def shm_shrinks() -> bool:
    """Return whether this machine lets a process mount a /dev/shm of its own."""
    code = "import fork_server; fork_server.shrink_shm()"
    here = str(Path(__file__).parent)
    return not subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, check=False).returncode


def faults_of(name: str) -> tuple[str, ...]:
    """Faults that make sense for a verb."""
    verb = VERBS[name]
    faults = [*ALWAYS, *(SERVER_FAULTS[verb.by] if verb.serves else ())]
    if {"recipe.toml", "grid.toml"} & {*verb.argv} and "half" not in verb.inputs:
        faults.append("odd path")
    if name in SHARING_MEMORY and shm_shrinks():
        faults.append("small shm")
    if name in WITH_WORKERS:
        faults.append("poor workers")
    if verb.makes:
        faults.append("tampered")
    if verb.inputs and verb.checked:
        faults += TOUCHING
    return tuple(faults)


@dataclass
class Tally:
    """What crossings came to."""

    tried: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    bad: list[str] = field(default_factory=list)

    def add(self, crossing: Crossing, problems: list[str], seed: int) -> None:
        """Count a crossing, and print a bad one with the options that repeat it."""
        self.tried[crossing.name, crossing.fault] += 1
        self.kinds.update(problems)
        if not sum(self.tried.values()) % 50:
            print(f"{sum(self.tried.values()):,} crossings, {len(self.bad)} bad", flush=True)
        if problems:
            what = f"{crossing.name}, {crossing.fault}: {', '.join(problems)}; {'; '.join(crossing.notes)}"
            self.bad.append(f"--seed {seed} --only {crossing.number}: {what}")
            print(self.bad[-1], flush=True)

    def lines(self, names: list[str], seed: int) -> list[str]:
        """Return a table of what was tried and what was bad."""
        counts = ", ".join(f"{self.kinds[kind]} {kind}" for kind in ("silent", "different", "hung", "traceback"))
        head = f"{sum(self.tried.values()):,} crossings with seed {seed}: {counts}."
        lines = [head, "", "| verb | tried | by fault |", "|---|---|---|"]
        for name in names:
            row = {fault: count for (verb, fault), count in sorted(self.tried.items()) if verb == name}
            lines.append(f"| {name} | {sum(row.values())} | {', '.join(f'{f} {c}' for f, c in row.items())} |")
        return [*lines, "", *(f"- {line}" for line in self.bad)]


def cross_all(ground: Ground, work: Path, tally: Tally, given: argparse.Namespace) -> None:
    """Run crossings, several at a time, until the time is up or all numbers are taken."""
    names, began = given.verbs.split(","), time.monotonic()
    first = given.first if given.only is None else given.only
    last = first + 1 if given.only is not None else first + given.count if given.count else sys.maxsize
    numbers, taking, adding = iter(range(first, last)), Lock(), Lock()
    alone = {"sftp": Lock(), "dask": Lock()}  # one server for all crossings, and its fault is that of one

    def cross() -> None:
        while time.monotonic() - began < given.seconds:
            with taking:
                number = next(numbers, None)
            if number is None:
                return
            chooser = random.Random(f"{given.seed}:{number}")
            name = chooser.choices(names, [RARE.get(name, 1.0) for name in names])[0]
            fault = chooser.choice(given.faults.split(",") if given.faults else faults_of(name))
            with alone.get(VERBS[name].by, nullcontext()):
                crossing = Crossing(ground, work, number, name, fault, given.seed)
                problems = crossing.run()
            with adding:
                tally.add(crossing, problems, given.seed)

    with ThreadPoolExecutor(given.at_once) as pool:
        for done in [pool.submit(cross) for _ in range(given.at_once)]:
            done.result()


def main() -> None:
    """Cross until the time is up, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="begin no crossing after so long (default: 60)")
    parser.add_argument("--at-once", type=int, default=1, help="crossings that run at the same time (default: 1)")
    parser.add_argument("--count", type=int, help="end after so many crossings")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of crossings (default: 0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first crossing (default: 0)")
    parser.add_argument("--only", type=int, help="run the crossing of this number alone")
    parser.add_argument("--verbs", default=",".join(VERBS), help="verbs to cross, separated by commas")
    parser.add_argument("--faults", help="faults to cross, separated by commas (default: all that make sense)")
    parser.add_argument("--out", type=Path, help="summary, a .md file")
    given = parser.parse_args()
    names, tally = given.verbs.split(","), Tally()
    facts = machine(("numpy", "torch"))
    with tempfile.TemporaryDirectory(prefix="crossings-") as temporary:
        work = Path(temporary)
        program = Forked(SSL_CERT_FILE=str(work / "own.pem"))
        ground = Ground(work / "ground", program)
        started = time.monotonic()
        ground.prepare(work, names)
        slowest = ", ".join(f"{name} {seconds:.1f}" for name, seconds in ground.seconds.items())
        print(f"prepared in {time.monotonic() - started:.0f} s; undisturbed, in seconds: {slowest}", flush=True)
        cross_all(ground, work, tally, given)
        ground.close()
        program.close()
    if not shm_shrinks():
        print("left out: a /dev/shm of 1 MB, which only root may mount")
    lines = tally.lines(names, given.seed)
    print("\n".join(lines))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        head = ["# make chaos", "", "; ".join(f"{name} {value}" for name, value in facts.items()), ""]
        given.out.write_text("\n".join([*head, *lines]).rstrip() + "\n")
    sys.exit(1 if tally.bad else 0)


if __name__ == "__main__":
    main()
