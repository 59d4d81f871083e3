"""What a chip's neurons and its 8 bits cost: a run, scored as the chip computes it, with whole numbers and without.

Axes: T time, B batch, K classes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from spikebridge.models import ModelError
from spikebridge.pipeline.base.installation import install_command
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.config.settings import evaluation_batch
from spikebridge.train.errors import ExportError
from spikebridge.train.evaluation.evaluate import open_shards_of
from spikebridge.train.evaluation.score import score, split_frames
from spikebridge.train.export.read import ExportedNetwork
from spikebridge.train.networks.build import load_network
from spikebridge.train.networks.threads import same_threads
from spikebridge.train.runs.folder import open_run


def score_on_speck(
    run_dir: str | Path, shards: ShardSet | str | Path, *, weights: str = "best"
) -> dict[str, dict[str, float]]:
    """Score a finished run as `export --target speck` writes it, on the test and the validation split.

    Args:
        run_dir: the run.
        shards: the shard set it was trained on.
        weights: `best` or `last`.

    Returns:
        For every split that is not empty: `accuracy` (0 to 1) and `loss` with whole numbers, and `float`, the accuracy
        of the chip's neurons with the weights as trained.

    Raises:
        ExportError: a layer that does not fit, or a package is missing.
        RunError, ShardMismatchError: as `evaluate`.
    """
    try:
        from spikebridge.models.run_nir import NIRProgram
        from spikebridge.models.to_speck import to_speck
    except ImportError as error:
        raise ExportError(
            f"NIR needs the package nir, which is not installed ({error}); {install_command('export')}"
        ) from error
    (run, result), cpu = open_run(run_dir), torch.device("cpu")
    shards = open_shards_of(run, result, shards)
    network, _ = load_network(run.best if weights == "best" else run.last, device=cpu)
    batch_size = evaluation_batch(recipe_from(result["recipe"], name=str(run.config)).train)
    try:
        graphs = {whole: to_speck(network, whole=whole).graph for whole in (True, False)}
    except ModelError as error:
        raise ExportError(f"{run.path}: {error}") from error
    found: dict[str, dict[str, float]] = {}
    for split in ("test", "validation"):
        frames = split_frames(shards, split, residence="disk")
        for whole, graph in graphs.items():
            program = ExportedNetwork(NIRProgram(graph, time_step=graph.metadata["dt"], fires="counts"))
            with same_threads(result["threads"]):
                scores = score(program, frames, batch_size=batch_size, device=cpu)
            if scores is not None:
                figures = {"accuracy": scores.accuracy, "loss": scores.loss} if whole else {"float": scores.accuracy}
                found.setdefault(split, {}).update(figures)
    return found
