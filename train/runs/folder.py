"""The run folder: what it holds, who may continue it, and how lines are added to its log.

A run folder holds

    config.toml                      the complete recipe; `train --recipe RUN/config.toml` repeats the run
    camera.toml                      the whole profile of the camera that it simulates, whose deciding part is in
                                     config.toml; absent in runs with a shipped profile or none
    init.json                        the run whose weights it began from; absent where they were fresh
    metrics.jsonl                    one line per epoch
    prepared.safetensors             what the method made before the first step (a teacher); absent for most methods
    metrics.csv                      the same as a table, up to the last checkpoint that ended an epoch
    checkpoint/                      only while the run is unfinished; the last two
    weights/{best,last}.safetensors  parameters and buffers; the header names the network
    predictions.csv                  test samples: key, label, prediction, one score per class
    evaluation.json                  of `evaluate --keep`: accuracy over time, under failures of the camera; not needed
    result.json                      written last: its presence means finished; has the sums of all of the above
    diverged.json                    where it stopped at a loss or weight that is not finite; absent in other runs
    tensorboard/                     on request
    tracking.json, wandb/            of `--track`: what trackers know of the run; what Weights & Biases keeps offline
    .lock                            while a process works there; whoever finds it locked is refused
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from spikebridge.pipeline.base.display import csv_cell, show
from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.base.files import FileLock, sha256_once
from spikebridge.pipeline.base.foreign_json import Count, Sha256, parse_json
from spikebridge.pipeline.base.installation import command
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import FRAMING
from spikebridge.pipeline.shards.writer import EVENTS
from spikebridge.train.config.profile import AUTO, CAMERA_FILE, INLINE
from spikebridge.train.config.recipes import Recipe, differences, dump_recipe, load_recipe
from spikebridge.train.config.settings import ShardSettings
from spikebridge.train.errors import RunError, ShardMismatchError
from spikebridge.train.runs.checkpoints import (
    AGAIN,
    BEFORE_FILE,
    STATE_FILE,
    check_form,
    read_file,
    read_json,
    read_state,
    write_atomic,
    write_json,
)
from spikebridge.train.runs.result import SCHEMA, AnyResult, RunResult
from spikebridge.train.runs.state import StoredState, flatten_numbers
from spikebridge.train.runs.sums import require_file, require_seal, seal, sha256_start

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"
CONTAINER_SETTINGS = ("format", "codec", "samples_per_shard", "min_shards", "store", "preview")
"""Settings of a shard set that change its files but neither samples nor their order."""
RESTORE = "Put the file back from a copy, or train the run again with --overwrite."
MetricsLine = dict[str, float | bool | list[float | None] | dict[str, float | None] | None]
"""A line of metrics.jsonl."""


class _Home(TypedDict):
    """What says which shard set a run belongs to."""

    shard_set: str


class Divergence(TypedDict):
    """The content of diverged.json: where a run stopped, and why."""

    schema: int
    epoch: Count
    """Finished epochs."""
    step: Count
    """Finished steps."""
    message: str
    """With what to do."""
    self_sha256: Sha256


class RunFolder:
    """Paths and files of one run; the folder need not exist."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.camera = self.path / CAMERA_FILE
        self.init = self.path / "init.json"
        self.metrics = self.path / "metrics.jsonl"
        self.prepared = self.path / "prepared.safetensors"
        self.table = self.path / "metrics.csv"
        self.checkpoint = self.path / "checkpoint"
        self.best = self.path / "weights" / "best.safetensors"
        self.last = self.path / "weights" / "last.safetensors"
        self.predictions = self.path / "predictions.csv"
        self.evaluation = self.path / "evaluation.json"
        self.result = self.path / "result.json"
        self.diverged = self.path / "diverged.json"
        self.tensorboard = self.path / "tensorboard"
        self.tracking = self.path / "tracking.json"
        self.wandb = self.path / "wandb"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process out of this folder, which is made where it is missing; a kill frees it at once.

        Raises:
            RunError: another process works there, or the folder cannot be written.
        """
        path = self.path / LOCK_FILE
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held = FileLock(path, wait=False)
        except BlockingIOError:
            raise RunError(
                f"{self.path}: another process is working on this run; wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
        with held:
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def status(self, recipe: Recipe, shard_set: str, *, contents: str = "", overwrite: bool = False) -> str:
        """Check that a recipe on a shard set may use this folder; return how far its run is and change nothing.

        Args:
            recipe: what is to be done.
            shard_set: ID of the shard set.
            contents: of the shard set, see `contents_id`; the same samples in another container are welcome.
            overwrite: whether a run that is there may go.

        Returns:
            `new` (also for a run that is to be overwritten), `unfinished` (has a checkpoint) or `finished`.

        Raises:
            RunError: the folder holds something else, or a run with another recipe.
            ShardMismatchError: the run there used another shard set.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; choose a folder for the run")
        entries = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        if not self.config.exists():
            # What a kill before the recipe is there leaves behind is ours.
            own = {LOCK_FILE} | ({CAMERA_FILE} if self._holds_camera(recipe) else set())
            foreign = sorted(name for name in entries if name not in own and not name.endswith(".partial"))
            if foreign:
                raise RunError(
                    f"{self.path} is not empty and holds no run (found {', '.join(foreign[:3])}); choose a new folder"
                )
            return "new"
        if overwrite:
            return "new"
        other = differences(load_recipe(self.config), self.settled(recipe))
        if other:
            raise RunError(
                f"{self.path} holds a run with another recipe:\n"
                + "\n".join(f"  - {line}" for line in other)
                + "\nchoose a new folder, give the same settings to continue it, or pass --overwrite to start again"
            )
        finished = self.result.exists()
        record: Any = read_result(self.path) if finished else self._newest_state()
        if record is None:
            return "new"
        check_form(record, _Home, self.result if finished else self.checkpoint)
        if record["shard_set"] != shard_set and (not contents or record.get("contents") != contents):
            raise ShardMismatchError(
                f"{self.path} holds a run on another shard set:\n  - there {record['shard_set']}\n"
                f"  - given {shard_set}\nchoose a new folder, give that shard set, or pass --overwrite to start again"
            )
        return "finished" if finished else "unfinished"

    def settled(self, recipe: Recipe) -> Recipe:
        """Return a recipe that asks for a calibrated camera with that of the run that is here, if any."""
        if recipe.train.simulation != AUTO or not self.config.exists():
            return recipe
        there = load_recipe(self.config).train.simulation
        return replace(recipe, train=replace(recipe.train, simulation=there)) if there.startswith(INLINE) else recipe

    def claim(self, recipe: Recipe, *, overwrite: bool = False) -> None:
        """Write config.toml into a folder whose status is not `finished`; `overwrite` first removes the run there.

        A run that goes on is no diverged one any more. The camera's profile comes before: nothing of a begun run
        depends on where it was read from.

        Raises:
            RunError: the folder cannot be written.
        """
        if overwrite and self.config.exists():
            self.result.unlink(missing_ok=True)  # first: a half-cleared run must not look finished
            own = (self.config, self.camera, self.init, self.metrics, self.prepared, self.table, self.checkpoint)
            results = (self.best.parent, self.predictions, self.evaluation, self.path / "report.html")
            for entry in (*own, *results, self.tensorboard, self.tracking):
                if entry.is_dir():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)
        self.diverged.unlink(missing_ok=True)
        if not self.config.exists():
            from spikebridge.train.runs.environment import (
                describe_environment,
                machine_words,
                origin_words,
                packages_words,
            )

            name = show(recipe.name, most=len(recipe.name))  # a file name may hold a line feed, or no text at all
            made = describe_environment()
            begun = {"begun with": origin_words(made), "packages": packages_words(made), "on": machine_words(made)}
            head = "".join(f"# {key}: {show(words, most=300)}\n" for key, words in begun.items())
            head = f"# recipe: {name}\n{head}"
            if recipe.camera and not self._holds_camera(recipe):
                write_atomic(self.camera, recipe.camera.encode())
            write_atomic(self.config, f"{head}\n{dump_recipe(recipe)}".encode())

    def _holds_camera(self, recipe: Recipe) -> bool:
        """Return whether the profile here is that of a recipe, byte for byte."""
        profile = recipe.camera.encode()
        if not profile or not self.camera.is_file() or self.camera.stat().st_size != len(profile):
            return False
        return read_file(self.camera) == profile

    def _newest_state(self) -> StoredState | None:
        """Return the state of the last checkpoint, or of the one before where it cannot be read."""
        try:
            return read_state(self.checkpoint) or read_state(self.checkpoint, BEFORE_FILE)
        except RunError:
            if state := read_state(self.checkpoint, BEFORE_FILE):
                return state
            raise

    def open_checkpoint(self) -> StoredState | None:
        """Return the state of the last checkpoint, all of whose files are as they were written; None without one.

        Where the last one is damaged, the one before takes its place, with a warning.

        Raises:
            RunError: damaged, and so is the one before, or there is none.
        """
        damage = ""
        for name in (STATE_FILE, BEFORE_FILE):
            path = self.checkpoint / name
            try:
                if (state := read_state(self.checkpoint, name)) is None:
                    damage = damage or f"{path}: missing"
                    continue
                self._require_committed(state)
            except RunError as error:
                damage = damage or str(error).removesuffix(AGAIN).rstrip(". ")
                continue
            if damage:
                log.warning("%s. The run continues from the checkpoint before, at step %d", damage, state["step"])
                write_atomic(self.checkpoint / STATE_FILE, read_file(path))
            return state
        if any(self.checkpoint.glob("*.json")):
            raise RunError(f"{damage}. No whole checkpoint is left; start again with --overwrite")
        return None

    def _require_committed(self, state: StoredState) -> None:
        """Refuse a checkpoint of which a file is not what it was; one without sums passes."""
        own = {f"{self.checkpoint.name}/{name}" for name in (state["tensors"], state["best_tensors"]) if name}
        for name, expected in state.get("files", {}).items():
            if name == self.metrics.name:
                if sha256_start(self.metrics, state["metrics_bytes"]) != expected:
                    raise RunError(f"{self.metrics}: changed in the epochs that the checkpoint knows of")
            elif name in own or name in (self.config.name, self.init.name, self.prepared.name):
                require_file(self.path / name, expected)
            else:
                raise RunError(f"{self.checkpoint}: names {show(name)}, which no checkpoint relies on")

    def committed_sums(self, metrics_bytes: int) -> dict[str, str]:
        """Return the SHA-256 of what a checkpoint relies on besides its own files, by name below the folder."""
        sums = {path.name: sha256_once(path) for path in (self.config, self.init, self.prepared) if path.exists()}
        return sums | {self.metrics.name: sha256_start(self.metrics, metrics_bytes)}

    @property
    def _lasting(self) -> tuple[Path, ...]:
        """Return the files that a finished run consists of, but for its result."""
        logs = self.config, self.camera, self.init, self.metrics, self.prepared, self.table
        return *logs, self.best, self.last, self.predictions

    def require_unchanged(self, result: RunResult) -> None:
        """Refuse a finished run of which a file is not what it was; absent ones, and a run without sums, pass.

        Raises:
            RunError: names the file.
        """
        sums = result.get("files", {})
        for path in self._lasting:
            expected = sums.get(str(path.relative_to(self.path)))
            if expected is not None and path.exists():
                try:
                    require_file(path, expected)
                except RunError as error:
                    raise RunError(f"{error}. {RESTORE}") from error

    def append_metrics(self, line: dict[str, Any]) -> int:
        """Add one line to metrics.jsonl; returns the file's new length in bytes. `sync_metrics` makes it durable.

        Raises:
            RunError: the disk is full; no half line is left.
        """
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        try:
            length = self.metrics.stat().st_size if self.metrics.exists() else 0
            try:
                with self.metrics.open("ab", buffering=0) as file:
                    written = file.write(data)
                    while written < len(data):  # what a full disk lets through; the next try says why
                        written += file.write(data[written:])
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(self.metrics, length)
                raise
            return length + len(data)
        except OSError as error:
            raise RunError(
                f"cannot write {self.metrics}: {error.strerror}; the last checkpoint is unharmed: make room, then give "
                "the same command again"
            ) from error

    def sync_metrics(self) -> None:
        """Wait until metrics.jsonl is on the disk.

        Raises:
            RunError: the disk is full.
        """
        if not self.metrics.exists():
            return
        try:
            with self.metrics.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self.metrics}: {error.strerror}; the last checkpoint is unharmed") from error

    def truncate_metrics(self, length: int) -> None:
        """Drop what was logged after the last checkpoint: a half line, or an epoch that will be run again.

        Raises:
            RunError: the file is shorter than the checkpoint says.
        """
        size = self.metrics.stat().st_size if self.metrics.exists() else 0
        if size < length:
            raise RunError(f"{self.metrics}: {size} bytes, the checkpoint knows of {length}; start with --overwrite")
        if size > length:
            os.truncate(self.metrics, length)

    def mark_diverged(self, *, epoch: int, step: int, message: str) -> None:
        """Write diverged.json.

        Raises:
            RunError: the disk is full.
        """
        write_json(self.diverged, seal({"schema": 1, "epoch": epoch, "step": step, "message": message}))

    def write_table(self) -> None:
        """Write metrics.csv: a row per epoch, the numbers of metrics.jsonl digit for digit, an absent one left empty.

        A checkpoint writes it, so that an interrupted run has it, too.

        Columns are named as in `runs.state.flatten_numbers` and come in the order of the log.
        """
        columns: dict[str, dict[str, None]] = {}  # by the name in the log, so that a late list takes its place
        rows = []
        for line in read_metrics(self.path):
            rows.append(flatten_numbers(line))
            for name, value in line.items():
                columns.setdefault(name, {}).update(dict.fromkeys(flatten_numbers({name: value})))
        text = io.StringIO()
        writer = csv.DictWriter(text, [column for group in columns.values() for column in group], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.table, text.getvalue().encode())

    def write_predictions(
        self, keys: Sequence[str], labels: np.ndarray, logits: np.ndarray, classes: Sequence[str]
    ) -> None:
        """Write predictions.csv: key, label, prediction (class names), then the time-averaged logits [n,K]."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["key", "label", "prediction", *(csv_cell(f"score_{name}") for name in classes)])
        cells = [csv_cell(name) for name in classes]
        for key, label, row in zip(keys, labels, logits, strict=True):
            scores = [f"{value:.9g}" for value in row]  # nine digits tell all float32 numbers apart
            writer.writerow([csv_cell(key), cells[label], cells[int(np.argmax(row))], *scores])
        write_atomic(self.predictions, text.getvalue().encode())

    def finish(self, result: RunResult) -> RunResult:
        """Write result.json with the sums of all files, which makes the run finished, and drop the checkpoint.

        Returns:
            What it holds.
        """
        sums = {str(path.relative_to(self.path)): sha256_once(path) for path in self._lasting if path.exists()}
        sealed: RunResult = seal({**result, "files": sums})  # type: ignore[assignment]
        write_json(self.result, sealed)
        shutil.rmtree(self.checkpoint, ignore_errors=True)
        return sealed


def read_result(run_dir: str | Path) -> RunResult:
    """Read the result of a finished run.

    Raises:
        RunError: no run there, an unfinished or diverged one, or a result that is not as it was written.
    """
    run = RunFolder(run_dir)
    if not run.result.exists():
        if run.config.exists():
            if mark := read_divergence(run.path):
                raise RunError(f"{run.path}: this run diverged and has no result: {mark['message']}")
            raise RunError(f"{run.path}: this run is unfinished; give its train command again to continue it")
        if not run.path.exists():
            raise RunError(f"{run.path}: no such file or folder; expected a run, a folder written by train")
        raise RunError(f"{run.path}: no run here; expected a folder written by train")
    result = read_json(run.result, dict[str, Any], remedy=RESTORE)
    require_seal(run.result, read_file(run.result), result, schema=SCHEMA)
    if result.get("schema", SCHEMA) not in range(1, SCHEMA + 1):
        raise RunError(f"{run.result}: not of a schema that this version reads (1 to {SCHEMA}). {RESTORE}")
    check_form(result, AnyResult, run.result, remedy=RESTORE)
    confusion, classes = result.get("confusion"), result.get("classes", [])
    if confusion and {len(classes)} != {len(confusion), *map(len, confusion)}:
        raise RunError(f"{run.result}: confusion has not {len(classes)} rows and columns, one a class. {RESTORE}")
    return cast(RunResult, result)


def open_run(run_dir: str | Path, *, complete: bool = True) -> tuple[RunFolder, RunResult]:
    """Open a finished run, all of whose files are as they were written.

    Args:
        run_dir: the run folder.
        complete: refuse a result of an early version, which lacks something.

    Raises:
        RunError: as `read_result`, or a file of the run has changed.
    """
    run, result = RunFolder(run_dir), read_result(run_dir)
    if complete:
        check_form(result, RunResult, run.result, remedy=RESTORE)
    run.require_unchanged(result)
    return run, result


def read_divergence(run_dir: str | Path) -> Divergence | None:
    """Read where a run stopped at what is not finite; None where it did not.

    Raises:
        RunError: damaged.
    """
    path = RunFolder(run_dir).diverged
    if not path.exists():
        return None
    mark = read_json(path, Divergence)
    require_seal(path, read_file(path), mark, schema=1)
    return mark


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """Read the finished epochs of a run, in order; empty before the first.

    Raises:
        RunError: damaged.
    """
    path = RunFolder(run_dir).metrics
    if not path.exists():
        return []
    lines = read_file(path).split(b"\n")[:-1]  # a line being written has no end yet
    return [
        parse_json(line, MetricsLine, source=f"{path}, line {number}", error=RunError, remedy=RESTORE)
        for number, line in enumerate(lines, 1)
    ]


def contents_id(shards: ShardSet) -> str:
    """Hash what a shard set holds, whatever its container: settings, source, keys, labels and their order."""
    settings = {name: value for name, value in shards.settings.items() if name not in CONTAINER_SETTINGS}
    sample = {"axes": shards.manifest["sample"]["axes"], "shape": list(shards.sample_shape), "dtype": shards.dtype.str}
    source = {**{name: shards.manifest.get(name) for name in ("listing_sha256", "pairing")}, "sample": sample}
    digest = hashlib.sha256(json.dumps([settings, source, list(shards.classes)], sort_keys=True).encode())
    for name in ("train", "validation", "test"):
        split = shards.split(name)
        digest.update("\n".join([name, *split.keys, ""]).encode())
        digest.update(np.ascontiguousarray(split.labels, dtype="<i8").tobytes())
    return digest.hexdigest()


def framed_for(shards: ShardSet, result: Mapping[str, Any]) -> ShardSet | None:
    """Return a set with the frames that a run was trained on, whatever its container; None where it holds others."""
    try:
        framed = framed_as(shards, result.get("recipe", {}).get("shards", {}))
    except (SettingsError, ShardSetError):
        return None
    same = shards.id == result.get("shard_set") or contents_id(framed) == result.get("contents")
    return framed if same else None


def framed_as(shards: ShardSet, table: Mapping[str, Any]) -> ShardSet:
    """Return a set with frames as a `[shards]` table asks for, where they are made of events; else the set as it is."""
    if EVENTS not in shards.arrays:
        return shards
    return shards.with_frames(**{name: value for name, value in table.items() if name in FRAMING})


def require_shards(shards: ShardSet, expected: ShardSettings, *, expect: str | None = None) -> ShardSet:
    """Return the shard set with frames as the recipe asks for.

    Refuses one that the recipe is not made for, or whose ID does not begin with `expect` (12 digits or more).

    Raises:
        ShardMismatchError: with the differences and the command that makes the right set.
    """
    if expect is not None and not (len(expect) >= 12 and shards.id.startswith(expect.lower())):
        raise ShardMismatchError(f"{shards.path}: shard set {shards.id}, expected {expect}")
    settings = expected.given()
    try:
        framed = framed_as(shards, settings)
    except SettingsError as error:
        raise ShardMismatchError(f"{shards.path}: no frames can be made as the recipe asks: {error}") from error
    other = [
        f"  - {name}: {framed.settings.get(name, 'absent')} there, {value} in the recipe"
        for name, value in settings.items()
        if name not in ("store", "preview")
        and framed.settings.get(name) != (list(value) if isinstance(value, tuple) else value)
    ]
    if other:
        raise ShardMismatchError(
            f"{shards.path} is not the shard set that the recipe is made for:\n"
            + "\n".join(other)
            + f"\nmake it with\n  {command('preprocess', *_options(settings))} --events DIR --static DIR --out SHARDS"
        )
    return framed


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Return the options of `preprocess` for settings of a recipe."""
    words = []
    for name, value in settings.items():
        window = name == "time_window_us"
        option = "--time-window" if window else f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
            continue
        words += [option, ":".join(map(str, value)) if window else str(value)]
    return words
