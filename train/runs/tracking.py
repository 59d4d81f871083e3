"""Runs in the trackers of others: Weights & Biases, MLflow, Trackio, on top of metrics.jsonl.

Each gets the recipe, every line of metrics.jsonl and, at the end, the figures of result.json. `tracking.json` keeps the
run's name there and how much was told, so that a run that continues, or one that is told of afterwards, goes on as the
same run and no epoch comes twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypedDict

from spikebridge.pipeline.base.files import real_path
from spikebridge.pipeline.base.foreign_json import Count
from spikebridge.pipeline.base.installation import command, install_command
from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.errors import ReportError, RunError
from spikebridge.train.runs.checkpoints import read_json, write_json
from spikebridge.train.runs.folder import RunFolder, read_metrics, read_result
from spikebridge.train.runs.listing import recipe_name
from spikebridge.train.runs.state import flatten_numbers

log = logging.getLogger(__name__)

PROJECT = "spikebridge"
"""Where the tracker's own environment variable names none."""
FIGURES = (
    *("test_accuracy", "validation_accuracy", "last_test_accuracy", "last_validation_accuracy", "best_epoch"),
    *("parameters", "training_seconds", "energy_nj", "neurobench"),
)
"""Of result.json, told as result/NAME."""


class Told(TypedDict):
    """What a tracker knows of a run."""

    id: str
    place: str
    """Where the tracker keeps it: a folder, a database, a server."""
    epochs: Count
    finished: bool


class Tracker(Protocol):
    """One run in a tracker."""

    id: str

    def __init__(self, run: RunFolder, identity: str | None, settings: Mapping[str, Any], place: str) -> None: ...

    @staticmethod
    def place() -> str:
        """Return where the tracker keeps runs, as its environment variables say."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Add figures at a step."""

    def close(self, *, finished: bool) -> None:
        """Say whether the run is finished, and wait until all is kept."""


class WeightsAndBiases:
    """A run of Weights & Biases: offline, in the run folder, unless WANDB_MODE says otherwise."""

    def __init__(self, run: RunFolder, identity: str | None, settings: Mapping[str, Any], place: str) -> None:
        import wandb

        self.id = identity or uuid.uuid4().hex[:12]
        run.wandb.mkdir(exist_ok=True)  # else it takes the temporary folder
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self.id,
            name=real_path(run.path).name,
            config=dict(settings),
            resume=None if place == "offline" else "allow",
            mode=place,
            dir=str(run.path),
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Add figures at a step."""
        self._run.log(dict(numbers), step=step)

    def close(self, *, finished: bool) -> None:
        """Say whether the run is finished, and wait until all is kept."""
        self._run.finish(exit_code=0 if finished else 1)

    @staticmethod
    def place() -> str:
        """Return the mode."""
        return os.environ.get("WANDB_MODE", "offline")


class MLflow:
    """A run of MLflow, in the store of MLFLOW_TRACKING_URI, else where MLflow keeps it in the working directory."""

    def __init__(self, run: RunFolder, identity: str | None, settings: Mapping[str, Any], place: str) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=place)
        if identity is None:
            project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self._client.get_experiment_by_name(project)
            where = experiment.experiment_id if experiment else self._client.create_experiment(project)
            identity = self._client.create_run(where, run_name=real_path(run.path).name).info.run_id
            for name, value in flatten_settings(settings).items():
                self._client.log_param(identity, name, value)
        self.id: str = identity
        self._client.update_run(self.id, status="RUNNING")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Add figures at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.id, [Metric(name, float(value), now, step) for name, value in numbers.items()])

    def close(self, *, finished: bool) -> None:
        """Say whether the run is finished."""
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")

    @staticmethod
    def place() -> str:
        """Return the address of the store."""
        from mlflow import get_tracking_uri

        return str(get_tracking_uri())


class Trackio:
    """A run of Trackio, in its local database (TRACKIO_DIR), or in the space of TRACKIO_SPACE_ID."""

    def __init__(self, run: RunFolder, identity: str | None, settings: Mapping[str, Any], place: str) -> None:
        import trackio

        self.id = identity or f"{real_path(run.path).name}-{uuid.uuid4().hex[:6]}"
        with contextlib.redirect_stdout(sys.stderr):
            self._run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=self.id,
                config=flatten_settings(settings),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Add figures at a step."""
        self._run.log(dict(numbers), step=step)

    def close(self, *, finished: bool) -> None:
        """Wait until all is kept."""
        import trackio

        with contextlib.redirect_stdout(sys.stderr):
            trackio.finish()

    @staticmethod
    def place() -> str:
        """Return the space, or the folder."""
        return os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_DIR") or "the default folder"


TRACKERS: dict[str, type[Tracker]] = {"wandb": WeightsAndBiases, "mlflow": MLflow, "trackio": Trackio}
"""By the name of its package."""


def require_tracker(name: str) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        ReportError: says what to install.
    """
    if find_spec(name) is None:
        raise ReportError(
            f"the tracker {name} needs the package {name}, which is not installed: {install_command(name)}. "
            "metrics.jsonl holds the same figures, and `track` sends them afterwards"
        )


def flatten_settings(settings: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return tables of settings as one, `train.lr`; lists become JSON."""
    flat: dict[str, str | int | float | bool] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": item for key, item in flatten_settings(value).items()}
        else:
            flat[name] = value if isinstance(value, str | int | float) else json.dumps(value)
    return flat


class TrackedRun:
    """A run that one tracker is told of, from the epoch on that it does not know yet.

    Args:
        run: with its config.toml.
        name: of `TRACKERS`.

    Raises:
        ReportError: the package is not installed, or the tracker refuses.
        RunError: a file of the run is damaged.
    """

    def __init__(self, run: RunFolder, name: str) -> None:
        require_tracker(name)
        self.name, self._run = name, run
        recipe, place = load_recipe(run.config), TRACKERS[name].place()
        known = read_told(run).get(name)
        if known is not None and known["place"] != place:
            log.warning("%s: %s knew this run in %s; in %s it begins anew", run.path, name, known["place"], place)
            known = None
        try:
            settings = {"recipe": recipe_name(run) or "", **recipe.tables()}
            self._tracker: Tracker | None = TRACKERS[name](run, known["id"] if known else None, settings, place)
        except Exception as error:  # of a foreign library, whose errors are of any kind
            raise ReportError(
                f"{name}: {_sentence(error)}. Train without --track; `track` can tell it later"
            ) from error
        self._told: Told = known or {"id": self._tracker.id, "place": place, "epochs": 0, "finished": False}
        self._keep()
        for line in read_metrics(run.path):
            self.add(line)

    @property
    def works(self) -> bool:
        """Return whether the tracker took all that it was told."""
        return self._tracker is not None

    @property
    def told(self) -> Told:
        """Return what the tracker knows."""
        return self._told

    def add(self, line: Mapping[str, Any]) -> None:
        """Tell a line of metrics.jsonl, unless the tracker knows it; one that fails is told no more."""
        if line["epoch"] > self._told["epochs"]:
            numbers = {key: value for key, value in flatten_numbers(line).items() if key not in ("step", "epoch")}
            if self._tell(numbers, line["step"]):
                self._told["epochs"] = line["epoch"]
                self._keep()

    def close(self) -> None:
        """Tell the result where there is one, and end."""
        finished = self._run.result.exists()
        if finished and not self._told["finished"]:
            result = read_result(self._run.path)
            self._tell(flatten_numbers({f"result/{name}": result.get(name) for name in FIGURES}), result["steps"])
        if self._do(lambda tracker: tracker.close(finished=finished)):
            self._told["finished"] = finished
            self._keep()

    def _tell(self, numbers: Mapping[str, float], step: int) -> bool:
        return self._do(lambda tracker: tracker.log(numbers, step))

    def _do(self, act: Callable[[Tracker], None]) -> bool:
        """Return whether the tracker did something; one that fails is not asked again, and training goes on."""
        if self._tracker is None:
            return False
        try:
            act(self._tracker)
        except Exception as error:
            rest = command("track", self._run.path, "--to", self.name)
            log.warning("%s takes no more figures (%s); tell it the rest with %s", self.name, _sentence(error), rest)
            self._tracker = None
        return self._tracker is not None

    def _keep(self) -> None:
        write_json(self._run.tracking, {**read_told(self._run), self.name: self._told})


def track_run(run_dir: str | Path, name: str) -> Told:
    """Tell a tracker what it does not know yet of a run that no process works on; return what it knows.

    Raises:
        RunError: no run there, a damaged one, or one that a process works on.
        ReportError: the tracker's package is not installed, or it takes nothing.
    """
    require_tracker(name)
    run = RunFolder(run_dir)
    if not run.config.exists():
        raise RunError(f"{run.path}: no run here; expected a folder written by train")
    with run.lock():
        return tell_rest(run, name)


def tell_rest(run: RunFolder, name: str) -> Told:
    """Tell a tracker what it does not know yet of a run, see `track_run`."""
    known = read_told(run).get(name)
    if known is not None and known["place"] == TRACKERS[name].place():
        rest = len(read_metrics(run.path)) - known["epochs"]
        if rest <= 0 and (known["finished"] or not run.result.exists()):
            return known
    tracked = TrackedRun(run, name)
    tracked.close()
    if not tracked.works:
        raise ReportError(f"{run.path}: {name} did not take all; once that is mended, the same command goes on")
    return tracked.told


def read_told(run: RunFolder) -> dict[str, Told]:
    """Read what trackers know of a run, by their names.

    Raises:
        RunError: damaged.
    """
    return read_json(run.tracking, dict[str, Told]) if run.tracking.exists() else {}


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
