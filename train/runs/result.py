"""The content of result.json, which makes a run finished; what wrote it and what reads it share these types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict, get_type_hints

from spikebridge.pipeline.base.foreign_json import Count, Range, Sha256

SCHEMA = 2
"""Version of the content; from 2 on it has sums."""


Accuracy = Annotated[float, Range(0, 1)]
NotNegative = Annotated[float, Range(0)]
Threads = Annotated[int, Range(1, 1024)]
"""CPU threads of torch, which starts them all when it is told so."""


class SplitScores(TypedDict):
    """Accuracy (0 to 1) and loss (nats) of splits, with the best weights and with the last; None without samples."""

    test_accuracy: Accuracy | None
    test_loss: NotNegative | None
    validation_accuracy: Accuracy | None
    validation_loss: NotNegative | None
    last_test_accuracy: Accuracy | None
    last_test_loss: NotNegative | None
    last_validation_accuracy: Accuracy | None
    last_validation_loss: NotNegative | None


class Imported(TypedDict):
    """A published checkpoint, and which of its tensors a run took."""

    file: str
    sha256: str
    epoch: int | None
    arch: str | None
    tensors: Count
    fitted: Count
    missing: list[str]
    unexpected: list[str]
    misfits: list[str]


class Environment(TypedDict):
    """The versions and the machine that a run, or its weights, were made with."""

    spikebridge: str
    commit: str | None
    """Of the clone; None where an installed package ran."""
    modified: bool | None
    """Whether files of the clone differed from the commit."""
    finished: str
    """Date and time, UTC, ISO 8601."""
    python: str
    system: str
    packages: dict[str, str]
    processor: str | None
    gpu: str | None
    threads: NotRequired[Threads]
    """Of the CPU."""
    plugins: NotRequired[dict[str, str]]
    """Files and entry points that added to the program: the beginning of the SHA-256, or the version."""


class FramesOfSet(TypedDict):
    """How the frames of a shard set were made: what new recordings need to be shown to its network."""

    settings: dict[str, Any]
    """Of the conversion, as the manifest has them."""
    sensor_size: list[Count]
    """(W, H) in pixels; (0, 0) where the set has none."""


def frames_of(settings: Mapping[str, Any], manifest: Mapping[str, Any]) -> FramesOfSet:
    """Return how the frames of a shard set are made, of its settings and its manifest."""
    return {"settings": dict(settings), "sensor_size": list(manifest.get("sensor_size", (0, 0)))}


class NeuroBench(TypedDict):
    """Cost by the definitions of NeuroBench, see `train.evaluation.neurobench`; operations per recording."""

    version: str
    """Of the definitions."""
    recordings: Count
    """That were measured."""
    footprint: Count
    """Bytes of parameters and buffers."""
    connection_sparsity: Accuracy
    """Share of weights that are 0."""
    activation_sparsity: Accuracy
    """Share of the neurons' outputs that are 0."""
    effective_macs: NotNegative
    """Multiply-accumulates of inputs and weights that are not 0, of layers whose inputs are not all -1, 0 or 1."""
    effective_acs: NotNegative
    """Accumulates, of the other layers."""
    dense: NotNegative
    """Synaptic operations, zeros included."""
    membrane_updates: NotNegative
    """Membrane potentials that a step changed."""
    execution_rate: NotNegative | None
    """Time steps per second of data, Hz; None where the recordings' durations are not known."""


NEUROBENCH = tuple(name for name in NeuroBench.__annotations__ if name not in ("version", "recordings"))
"""Names of the figures."""


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
    frames: NotRequired[FramesOfSet]
    """How those of the shard set were made."""
    simulated: bool
    protocol: str
    selection: str
    """In words."""
    selection_split: str | None
    tested: NotRequired[bool]
    """Whether the test split may be scored; not in runs of `train --no-test`, and of sweeps."""
    best_epoch: Count
    epochs: Count
    steps: Count
    classes: list[str]
    confusion: list[list[Count]] | None
    """[K][K]: row = label, column = prediction."""
    firing_rates: dict[str, float] | None
    """Spikes per neuron and time step, by layer."""
    samples: dict[str, Count]
    """By split."""
    static_images: Count
    """In the pool."""
    parameters: Count
    seed: int
    device: str
    precision: NotRequired[str]
    """That training computed in."""
    tf32: NotRequired[dict[str, bool] | None]
    """Whether `convolutions` and `matrix_products` of fp32 were computed in TF32; None on a CPU."""
    threads: Threads
    processes: Annotated[int, Range(1, 2**20)]
    torch: str
    backend: NotRequired[str]
    training_seconds: NotNegative
    training_cpu_seconds: NotRequired[NotNegative | None]
    energy_nj: NotRequired[NotNegative | None]
    """Per recording, estimated."""
    neurobench: NotRequired[NeuroBench | None]
    """None where nothing was held out."""
    environment: NotRequired[Environment]
    weights_sha256: NotRequired[dict[str, Sha256]]
    """Of the tensors of `best` and `last`, see `checkpoints.tensors_sum`: equal trainings have equal ones."""
    files: NotRequired[dict[str, Sha256]]
    """By name below the run folder."""
    self_sha256: NotRequired[Sha256]
    """Of result.json itself, see `runs.sums`."""


AnyResult = TypedDict("AnyResult", get_type_hints(RunResult, include_extras=True), total=False)  # type: ignore[misc]
"""A result of any version so far: what it has is of the types above, but it may lack anything."""


def accuracy_of(result: SplitScores, split: str) -> float | None:
    """Return the accuracy with the best weights on `test` or `validation`."""
    return result["test_accuracy"] if split == "test" else result["validation_accuracy"]
