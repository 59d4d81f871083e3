"""The class of new recordings, and how sure of it a network is after each time step.

Axes: n recordings, T time, B batch, P polarity, H, W, K classes.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spikebridge.models import backends
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.config.settings import evaluation_batch
from spikebridge.train.errors import RunError
from spikebridge.train.evaluation.early_exit import averaged
from spikebridge.train.evaluation.evaluate import open_shards_of
from spikebridge.train.networks.build import choose_device, load_network, require_backend
from spikebridge.train.networks.threads import same_threads
from spikebridge.train.runs.folder import open_run
from spikebridge.train.runs.result import FramesOfSet, frames_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What a network makes of one recording."""

    file: str
    """As given; of a part, with `@start-stop` in microseconds."""
    label: str | None
    """Class; None where there is a problem."""
    probabilities: NDArray[np.float64] | None
    """Softmax of the logits averaged over the first t time steps [T,K]; the last row decides."""
    problem: str = ""
    """Why there is no prediction."""

    @property
    def probability(self) -> float | None:
        """Return the probability of the class after all time steps."""
        return None if self.probabilities is None else float(self.probabilities[-1].max())

    def row(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the prediction for JSON."""
        steps = None if self.probabilities is None else self.probabilities
        return {
            "file": self.file,
            "class": self.label,
            "probability": self.probability,
            "over_time": None if steps is None else [dict(zip(classes, row, strict=True)) for row in steps.tolist()],
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Predictions:
    """What a network makes of new recordings, in the order in which they were given."""

    classes: tuple[str, ...]
    recordings: tuple[Prediction, ...]
    simulated: bool
    """Whether the network was trained on simulated recordings."""


def predict(
    run_dir: str | Path,
    files: Iterable[str | Path],
    *,
    shards: ShardSet | str | Path | None = None,
    weights: str = "best",
    device: str = "auto",
    backend: str = "auto",
) -> Predictions:
    """Classify recordings with the network of a finished run; writes nothing.

    Their frames are made as those of the run's shard set were: format, time bins, filters, resize.

    Args:
        run_dir: the run folder.
        files: recordings, and folders of recordings.
        shards: the run's shard set; needed by runs of versions that did not record how its frames are made.
        weights: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        backend: what computes the neurons, see `models.backends`.

    Raises:
        RunError: unfinished or damaged run, unknown weights, or one of an early version without `shards`.
        ShardMismatchError: another shard set.
        LayoutError: no such file, or a folder without recordings.
        DeviceError: no such device.
        NetworkError: `backend` cannot compute the neurons here.
    """
    from spikebridge.pipeline.prediction.frames import frame_recordings

    (run, result), torch_device = open_run(run_dir), choose_device(device)
    if weights not in ("best", "last"):
        raise RunError(f"weights {weights!r}: expected best or last")
    made: FramesOfSet | None = result.get("frames")
    if shards is not None:
        opened = open_shards_of(run, result, shards)
        made = frames_of(opened.settings, opened.manifest)
    if made is None:
        raise RunError(
            f"{run.path}: does not say how the frames of its shard set were made; give the set with --shards"
        )
    framed = frame_recordings([Path(file) for file in files], made["settings"], made["sensor_size"])
    network, _ = load_network(run.best if weights == "best" else run.last, device=torch_device)
    settings = recipe_from(result["recipe"], name=str(run.config)).train
    if settings.adapt_normalization:
        log.warning("%s was scored with adapted statistics of BatchNorm; predictions are of the trained ones", run.path)
    batch_size = evaluation_batch(settings)
    found: list[Prediction] = []
    with same_threads(result["threads"]), backends.use(backend):
        require_backend(network, precision="fp32", device=torch_device)
        while several := list(itertools.islice(framed, batch_size)):
            frames = [content.frames for _, content in several if not isinstance(content, Exception)]
            rows = iter(_probabilities(network, frames, torch_device) if frames else ())
            for name, content in several:
                if isinstance(content, Exception):
                    found.append(Prediction(name, None, None, str(content)))
                else:
                    steps = next(rows)
                    found.append(Prediction(name, result["classes"][int(steps[-1].argmax())], steps))
    return Predictions(tuple(result["classes"]), tuple(found), result["simulated"])


@torch.no_grad()
def _probabilities(network: Any, frames: Sequence[NDArray[Any]], device: torch.device) -> Iterator[NDArray[np.float64]]:
    """Yield probabilities [T,K] of recordings [T,P,H,W] after each time step."""
    events = torch.from_numpy(np.stack(frames).astype(np.float32)).transpose(0, 1).to(device)  # [T,B,P,H,W]
    logits = averaged(network(None, events).event_logits)  # [T,B,K]
    yield from logits.double().softmax(2).transpose(0, 1).cpu().numpy()  # [B,T,K]
