"""Scores of finished runs and exported networks, computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spikebridge.models import TransferNetwork, backends
from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.config.settings import TrainSettings, evaluation_batch
from spikebridge.train.data.frames import Frames
from spikebridge.train.errors import RunError, ShardMismatchError
from spikebridge.train.evaluation.adaptation import adapt_and_score, norm_layers
from spikebridge.train.evaluation.corruption import CorruptedFrames
from spikebridge.train.evaluation.early_exit import (
    MEASURED,
    EarlyExit,
    OverTime,
    choose_exit,
    energy_over_time,
    step_ms,
)
from spikebridge.train.evaluation.score import ScoredFrames, ScoredNetwork, Scores, split_frames
from spikebridge.train.networks.build import choose_device, load_network, require_backend
from spikebridge.train.networks.threads import same_threads
from spikebridge.train.runs.folder import RunFolder, contents_id, framed_as, framed_for, open_run
from spikebridge.train.runs.result import RunResult

VALIDATION = "validation"
"""Split on which the threshold of an early exit is chosen."""
PRIOR = TrainSettings.adaptation_prior
"""Recordings that the trained statistics count as, where no recipe says how many."""
FOREIGN = "evaluate --foreign scores on another set with the same classes"


def evaluate(
    run_dir: str | Path,
    shards: ShardSet | str | Path,
    *,
    split: str = "test",
    weights: str = "best",
    device: str = "auto",
    trust: bool = False,
    backend: str = "auto",
    foreign: bool = False,
    corrupt: Sequence[tuple[str, float]] = (),
    corrupt_seed: int = 0,
    early_exit: float | None = None,
    adapt_normalization: bool | None = None,
    adaptation_prior: float | None = None,
) -> dict[str, Any]:
    """Score a finished run again; equal to its result.json on the same kind of device and backend. Writes nothing.

    Args:
        run_dir: a run folder, or a file of `train.export.write.export`: see `evaluate_export`.
        shards: the shard set it was trained on, open or as a path, or one that stores the same samples another way;
            with `foreign` any with the same classes and frames of the same shape.
        split: `test`, `validation` or `train`.
        weights: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        trust: open a torch.export program, which can run any code.
        backend: what computes the neurons, see `models.backends`; an exported program brings its own.
        foreign: the shard set may be another one; the result says whether it is.
        corrupt: failures of the camera and their levels, see `train.evaluation.corruption`.
        corrupt_seed: of the failures.
        early_exit: points of accuracy that an exit may lose; its threshold is chosen on the validation split, and keeps
            that promise with 90 % confidence; None for no exit. See `train.evaluation.early_exit`.
        adapt_normalization: score with statistics of BatchNorm that are mixed with those of the recordings, labels
            unused, see `train.evaluation.adaptation`; None: as the run's recipe has it, an exported file does not.
        adaptation_prior: recordings that the trained statistics count as; None: as the recipe has it.

    Returns:
        accuracy (0 to 1), loss, split, samples, confusion [K][K] (row = label), classes, weights, shard_set, simulated,
        foreign (whether the network was trained on another set), the backend that ran, and over_time: a list of step,
        ms (from the beginning, mean over the recordings; None where steps have no duration) and accuracy; with
        `corrupt` also corrupted, a list of name, level, accuracy and loss, and corrupt_seed; with `early_exit` also
        early_exit: points, confidence, thresholds (one, or on the validation split one for each half, chosen on the
        other; None where recordings are too few for the promise), chosen_on and needed (validation recordings that
        chose a threshold, and that one needs), answered, accuracy, lost, mean_step, mean_ms and energy_saved, of which
        answered, accuracy and mean_step also of every failure; with adaptation also adapted: prior, and layers, the
        number of BatchNorm layers.

    Raises:
        RunError: unfinished or damaged run, unknown weights, an empty split, a validation split too small to choose a
            threshold on, or a backend for an exported file.
        ShardMismatchError: another shard set; with `foreign`, other classes or frames of another shape.
        DeviceError: no such device.
        NetworkError: `backend` cannot compute the neurons here.
    """
    if Path(run_dir).is_file():
        if backend != "auto":
            raise RunError(f"{run_dir}: an exported network brings its own code; leave --backend out")
        return evaluate_export(
            run_dir, shards, split=split, device=device, trust=trust, foreign=foreign, corrupt=corrupt,
            corrupt_seed=corrupt_seed, early_exit=early_exit, adapt_normalization=bool(adapt_normalization),
            adaptation_prior=adaptation_prior,
        )  # fmt: skip
    (run, result), torch_device = open_run(run_dir), choose_device(device)
    if weights not in ("best", "last"):
        raise RunError(f"weights {weights!r}: expected best or last")
    if foreign:
        shards = framed_as(open_shards(shards), result["recipe"]["shards"])
    else:
        shards = open_shards_of(run, result, shards)
    network, described = load_network(run.best if weights == "best" else run.last, device=torch_device)
    if foreign:
        _require_fitting(shards, result["classes"], described["network"], source=run.path)
    settings = recipe_from(result["recipe"], name=str(run.config)).train
    prior = _prior(settings, adapt_normalization, adaptation_prior)
    with same_threads(result["threads"]), backends.use(backend), backends.record() as ran:
        require_backend(network, precision="fp32", device=torch_device)
        scored = _Scoring(network, shards, split, result["classes"], evaluation_batch(settings), torch_device, prior)
        found = scored.summary() | scored.asked(corrupt, corrupt_seed, early_exit)
    other = framed_for(shards, result) is None
    return found | {"weights": weights, "backend": "+".join(sorted(ran)), "foreign": other}


def evaluate_export(
    file: str | Path,
    shards: ShardSet | str | Path,
    *,
    split: str = "test",
    device: str = "auto",
    trust: bool = False,
    foreign: bool = False,
    corrupt: Sequence[tuple[str, float]] = (),
    corrupt_seed: int = 0,
    early_exit: float | None = None,
    adapt_normalization: bool = False,
    adaptation_prior: float | None = None,
) -> dict[str, Any]:
    """Score an exported network; its accuracy is that of the run. Writes nothing.

    safetensors gives the same bits; a torch.export program computes the same operations; NIR runs step by step in
    float32 with folded BatchNorm, whose roundings can move a spike that is within 1e-7 of the threshold.

    The file is one of `train.export.write.export`, the other arguments are those of `evaluate`; the shard set may hold
    the same samples in another container.

    Returns:
        As `evaluate`, and `format` and `recorded`: the accuracy that the file states (None for `train`).

    Raises:
        ExportError: the file cannot be opened, or is a torch.export program without `trust`.
        RunError: an empty split, or adaptation of a program or NIR, which hold no statistics.
        ShardMismatchError: a shard set of other samples.
        DeviceError: no such device.
    """
    from spikebridge.train.export.read import open_export

    torch_device, shards = choose_device(device), open_shards(shards)
    network, described, format = open_export(file, device=torch_device, trust=trust)
    prior = _prior(None, adapt_normalization, adaptation_prior)
    if prior is not None and format != "safetensors":
        raise RunError(
            f"{file}: {format} holds no statistics of BatchNorm that could be adapted; export the run as safetensors, "
            "or score the run itself"
        )
    shards = framed_as(shards, described["preprocessing"])
    other = shards.id != described["shard_set"] and contents_id(shards) != described["contents"]
    if other and not foreign:
        raise ShardMismatchError(
            f"{file} belongs to shard set {described['shard_set']}, {shards.path} is {shards.id} with other samples"
            f"; {FOREIGN}"
        )
    classes = described.get("classes", list(shards.classes))
    if other:
        _require_fitting(shards, classes, described["network"], source=Path(file))
    with same_threads(described["threads"]):
        scored = _Scoring(network, shards, split, classes, described["batch_size"], torch_device, prior)
        found = scored.summary() | scored.asked(corrupt, corrupt_seed, early_exit)
    recorded = None if other or prior is not None else described.get(f"{split}_accuracy")
    return found | {"weights": described["weights"], "format": format, "recorded": recorded, "foreign": other}


def _prior(settings: TrainSettings | None, adapt: bool | None, prior: float | None) -> float | None:
    """Return how many recordings the trained statistics count as; None where nothing is adapted.

    Raises:
        RunError: a prior without adaptation, or a negative one.
    """
    adapting = adapt if adapt is not None else settings is not None and settings.adapt_normalization
    if prior is not None and not adapting:
        raise RunError(f"adaptation prior {prior:g}: nothing is adapted; expected --adapt-normalization with it")
    if prior is not None and not prior >= 0:
        raise RunError(f"adaptation prior {prior:g}: expected 0 recordings or more")
    if not adapting:
        return None
    return prior if prior is not None else PRIOR if settings is None else settings.adaptation_prior


class _Scoring:
    """A network on a split of a shard set, and what else is asked of it.

    Raises:
        RunError: the split is empty.
    """

    def __init__(
        self,
        network: ScoredNetwork,
        shards: ShardSet,
        split: str,
        classes: Sequence[str],
        batch_size: int,
        device: torch.device,
        prior: float | None,
    ) -> None:
        self.network, self.shards, self.split, self.classes = network, shards, split, classes
        self.batch_size, self.device, self.prior = batch_size, device, prior
        self.labels = _labels_of(shards, classes)
        self.scores = self._score(self._frames(split))

    def _frames(self, split: str) -> Frames:
        frames = split_frames(self.shards, split, residence="disk")
        frames.labels = self.labels[frames.labels]
        return frames

    def _score(self, frames: ScoredFrames) -> Scores:
        scores = adapt_and_score(
            self.network, frames, prior=self.prior, batch_size=self.batch_size, device=self.device, over_time=True
        )
        if scores is None:
            raise RunError(f"{self.shards.path}: the {self.split} split is empty; nothing to evaluate")
        return scores

    def summary(self) -> dict[str, Any]:
        """Return what every result of `evaluate` has."""
        scores, each = self.scores, self.step_ms
        return {
            "accuracy": scores.accuracy,
            "loss": scores.loss,
            "split": self.split,
            "samples": len(scores.labels),
            "confusion": scores.confusion(),
            "classes": list(self.classes),
            "shard_set": self.shards.id,
            "simulated": self.shards.simulated,
            "protocol": self.shards.settings["protocol"],
            "over_time": [
                {"step": step, "ms": None if each is None else step * each, "accuracy": accuracy}
                for step, accuracy in enumerate(_seen(scores).accuracies.tolist(), 1)
            ],
        } | self._adapted()

    def _adapted(self) -> dict[str, Any]:
        """Return what was adapted; nothing where nothing was asked for."""
        if self.prior is None:
            return {}
        assert isinstance(self.network, TransferNetwork)
        return {"adapted": {"prior": self.prior, "layers": len(norm_layers(self.network))}}

    @cached_property
    def step_ms(self) -> float | None:
        """Return the duration of a time step."""
        return step_ms(self.shards, self.split)

    def asked(
        self, corrupt: Sequence[tuple[str, float]], corrupt_seed: int, early_exit: float | None
    ) -> dict[str, Any]:
        """Return the scores of failing cameras and of an early exit; nothing of what is not asked for.

        Raises:
            RunError: stored frames that cannot show a failure, or no validation recordings to choose a threshold on.
        """
        found: dict[str, Any] = {}
        failing = [
            CorruptedFrames(self.shards, self.split, name=name, level=level, seed=corrupt_seed)
            for name, level in corrupt
        ]
        rule = None if early_exit is None else self._choose_exit(early_exit)
        if corrupt:
            found = {"corrupted": [], "corrupt_seed": corrupt_seed}
        for (name, level), frames in zip(corrupt, failing, strict=True):
            frames.labels = self.scores.labels
            scores = self._score(frames)
            row = {"name": name, "level": level, "accuracy": scores.accuracy, "loss": scores.loss}
            if rule is not None:
                ended = rule.figures(_seen(scores))
                row["early_exit"] = {figure: ended[figure] for figure in ("answered", "accuracy", "mean_step")}
            found["corrupted"].append(row)
        if rule is not None:
            made = rule.figures(_seen(self.scores), self._energy())
            made["mean_ms"] = None if self.step_ms is None else made["mean_step"] * self.step_ms
            found["early_exit"] = rule.described() | made
        return found

    def _choose_exit(self, points: float) -> EarlyExit:
        if (n := len(self.shards.split(VALIDATION))) < 2:
            raise RunError(
                f"{self.shards.path}: an early exit chooses its threshold on the validation split, which holds {n} "
                "recordings; expected at least 2. Preprocess with a table --splits that has some for validation, or "
                "leave --early-exit out"
            )
        if self.split == VALIDATION:
            return choose_exit(_seen(self.scores), points, halves=True)
        return choose_exit(_seen(self._score(self._frames(VALIDATION))), points)

    def _energy(self) -> NDArray[np.float64] | None:
        """Return the estimated energy of a recording after each step, [T]; None of an exported program."""
        if not isinstance(self.network, TransferNetwork):
            return None
        events, _ = next(self._frames(self.split).batches(min(self.batch_size, MEASURED), self.device))
        training = self.network.training
        self.network.eval()
        try:
            return energy_over_time(self.network, events)
        finally:
            self.network.train(training)


def _seen(scores: Scores) -> OverTime:
    assert scores.over_time is not None  # asked for
    return scores.over_time


def _require_fitting(shards: ShardSet, classes: Sequence[str], arguments: Mapping[str, Any], *, source: Path) -> None:
    """Refuse a shard set that a network cannot be scored on.

    Raises:
        ShardMismatchError: other classes, or frames of another shape.
    """
    if set(shards.classes) != set(classes) or len(shards.classes) != len(classes):
        only = sorted(set(shards.classes) ^ set(classes))
        raise ShardMismatchError(
            f"{shards.path} has {len(shards.classes)} classes, {source} {len(classes)}; these are in one of them only: "
            f"{', '.join(show(name) for name in only[:5])}; expected the same classes"
        )
    side = arguments["input_size"]
    wanted = (arguments["time_steps"], arguments["in_channels"], *(side if isinstance(side, list) else (side, side)))
    if tuple(shards.sample_shape) != wanted:
        raise ShardMismatchError(
            f"{shards.path} has frames [T,P,H,W] of {list(shards.sample_shape)}, {source} takes {list(wanted)}; "
            "preprocess the set with the same time bins and size"
        )


def _labels_of(shards: ShardSet, classes: Sequence[str]) -> np.ndarray:
    """Return the network's class index of every class of a shard set, int64 [K]."""
    return np.array([list(classes).index(name) for name in shards.classes], np.int64)


def open_shards(shards: ShardSet | str | Path) -> ShardSet:
    """Return an open shard set, from one, from its path, or from the address where it is published.

    Raises:
        ShardSetError: missing, incomplete, damaged or unreachable.
    """
    if isinstance(shards, str | Path):
        from spikebridge.pipeline.sharing.open import open_set

        return open_set(shards)
    return shards


def open_shards_of(run: RunFolder, result: RunResult, shards: ShardSet | str | Path) -> ShardSet:
    """Open the shard set of a finished run, or one that holds the same samples, such as their events.

    Raises:
        ShardMismatchError: it holds others.
        ShardSetError: as `open_shards`.
    """
    opened = open_shards(shards)
    framed = framed_for(opened, result)
    if framed is None:
        raise ShardMismatchError(
            f"{run.path} was trained on shard set {result['shard_set']}, {opened.path} is {opened.id} with other "
            f"samples; {FOREIGN}"
        )
    return framed
