"""The content of result.json, which makes a run finished; what wrote it and what reads it share these types."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

SCHEMA = 2
"""Version of the content; from 2 on it has sums."""


class SplitScores(TypedDict):
    """Accuracy (0 to 1) and loss (nats) of splits, with the best weights and with the last; None without samples."""

    test_accuracy: float | None
    test_loss: float | None
    validation_accuracy: float | None
    validation_loss: float | None
    last_test_accuracy: float | None
    last_test_loss: float | None
    last_validation_accuracy: float | None
    last_validation_loss: float | None


class Imported(TypedDict):
    """A published checkpoint, and which of its tensors a run took."""

    file: str
    sha256: str
    epoch: int | None
    arch: str | None
    tensors: int
    fitted: int
    missing: list[str]
    unexpected: list[str]
    misfits: list[str]


class RunResult(SplitScores):
    """The content of result.json; keys that runs of earlier versions lack are not required."""

    schema: int
    method: str
    recipe_name: str
    recipe: dict[str, dict[str, Any]]
    """Tables of the recipe."""
    changed_by_method: dict[str, Any]
    """Settings that the method sets itself."""
    init: NotRequired[dict[str, Any] | None]
    """The run whose weights it began with, see `train.networks.initial_weights`."""
    imported: NotRequired[Imported]
    """Of a run made from a published checkpoint."""
    shard_set: str
    """ID."""
    contents: str
    """See `contents_id`."""
    dataset: str
    simulated: bool
    protocol: str
    selection: str
    """In words."""
    selection_split: str | None
    best_epoch: int
    epochs: int
    steps: int
    classes: list[str]
    confusion: list[list[int]] | None
    """[K][K]: row = label, column = prediction."""
    firing_rates: dict[str, float] | None
    """Spikes per neuron and time step, by layer."""
    samples: dict[str, int]
    """By split."""
    static_images: int
    """In the pool."""
    parameters: int
    seed: int
    device: str
    precision: NotRequired[str]
    """That training computed in."""
    tf32: NotRequired[dict[str, bool] | None]
    """Whether `convolutions` and `matrix_products` of fp32 were computed in TF32; None on a CPU."""
    threads: int
    processes: int
    torch: str
    backend: NotRequired[str]
    training_seconds: float
    training_cpu_seconds: NotRequired[float | None]
    energy_nj: NotRequired[float | None]
    """Per recording, estimated."""
    files: NotRequired[dict[str, str]]
    """SHA-256 by name below the run folder."""
    self_sha256: NotRequired[str]
    """Of result.json itself, see `runs.sums`."""


def accuracy_of(result: SplitScores, split: str) -> float | None:
    """Return the accuracy with the best weights on `test` or `validation`."""
    return result["test_accuracy"] if split == "test" else result["validation_accuracy"]
