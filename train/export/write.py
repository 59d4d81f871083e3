"""Finished runs in formats that other tools read: NIR, a torch.export program, safetensors; and how to run them here.

What is exported is the event path in evaluation mode, event frames [T,B,P,H,W] to logits [T,B,K], with all that is
needed to use it: network, classes, preprocessing settings, ID of the shard set, time step, selection, scores.

Axes: T time, B batch, P polarity, H, W, K classes.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from spikebridge.models import ModelError, TransferNetwork
from spikebridge.models.backends import use
from spikebridge.pipeline.base.installation import install_command
from spikebridge.pipeline.base.places import in_the_way
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.config.settings import evaluation_batch
from spikebridge.train.errors import ExportError
from spikebridge.train.export.card import model_card
from spikebridge.train.networks.build import encode_network, load_network
from spikebridge.train.runs.checkpoints import write_atomic
from spikebridge.train.runs.folder import open_run
from spikebridge.train.runs.result import RunResult
from spikebridge.train.runs.sums import BLANK, SEAL, seal_file

SCHEMA = 1
"""Version of the description inside an exported file."""
DESCRIPTION = "spikebridge"
"""Key of the description in the metadata of NIR and safetensors; in a torch.export program the file NAME.json."""
SUM = "self_sha256"
"""Member of a torch.export program with the sum of the others."""
UNSUMMED = (f"/{SUM}", "/.data/serialization_id")
"""Members without part in the sum: itself, and torch's number for the names of all."""
TRACED_BATCH = 2
"""Samples of the batch that a program is traced with; it runs with any number."""
ENDINGS = {"nir": "nir", "torch": "pt2", "safetensors": "safetensors"}
"""Of the file's name in a folder."""
FIGURES = ("test_accuracy", "test_loss", "validation_accuracy", "validation_loss")
SETTINGS = (
    *("dataset", "simulated", "protocol", "method", "seed", "shard_set", "contents", "samples"),
    *("device", "threads", "environment"),
)
"""What the description takes over from result.json."""
ADAPTED = (
    "No scores: the run's are of statistics of BatchNorm that were adapted to the recordings scored; the file has the "
    "trained ones"
)
TARGETS = {"speck": "nir"}
"""Chips that are exported for, and the format that each is in."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    file: Path
    card: Path
    vectors: Path | None
    """Frames and answers to check another reader of NIR by; see `train.export.vectors`."""
    notes: tuple[str, ...]
    """What became of parts of the network for which the format has no word, a sentence each."""
    description: dict[str, Any]
    """What the file says about itself; of a chip also `cores`, and `float_accuracy` by split where it was scored."""


def export(
    run_dir: str | Path,
    out: str | Path,
    *,
    format: str,
    weights: str = "best",
    licence: str = "other",
    overwrite: bool = False,
    convention: str | None = None,
    threshold_nudge: bool = False,
    target: str | None = None,
    scored: Mapping[str, Mapping[str, float]] | None = None,
) -> Exported:
    """Write the network of a finished run, and a model card beside it: its name and `.md`, in a folder README.md.

    Beside NIR stand test vectors, `NAME.vectors.nir`.

    Args:
        run_dir: a finished run, trained or imported.
        out: the file; `.pt2` for a program. Or a folder, one that exists or a text that ends in `/`.
        format: `nir`, `torch` (a torch.export program) or `safetensors`.
        weights: `best`, which the figures in the file belong to, or `last`.
        licence: identifier for the card, as hubs list them.
        overwrite: replace a file that is there.
        convention: of NIR, how neurons and pools are written: a key of `CONVENTIONS` in `models.nir_conventions`;
            None: its default.
        threshold_nudge: of NIR, thresholds are the next float32 above, for readers that fire AT the threshold.
        target: `speck`: for this chip, see `models.to_speck`; in NIR.
        scored: how the target scores, from `train.evaluation.chip`: figures of the file and its card.

    Raises:
        ExportError: the file exists, an unknown format, a package is missing, an option of another format, the format
            or convention cannot say what the network computes, or a layer does not fit the chip; names what.
        RunError: no finished run, or the file cannot be written.
    """
    run, result = open_run(run_dir)
    if format not in WRITERS:
        raise ExportError(f"format {format!r} is not known; expected {', '.join(WRITERS)}")
    if weights not in ("best", "last"):
        raise ExportError(f"weights {weights!r}: expected best or last")
    if format != "nir" and (convention is not None or threshold_nudge):
        raise ExportError(f"convention and threshold nudge are of NIR; leave them out of {format}, or export nir")
    if target is not None and (target not in TARGETS or format != TARGETS[target]):
        raise ExportError(f"target {target!r} in format {format}; expected one of {TARGETS}")
    if target is not None and (convention is not None or threshold_nudge):
        raise ExportError(f"convention and threshold nudge are for other readers; leave them out for target {target!r}")
    out, card, vectors = files_of(out, format=format, overwrite=overwrite)
    if format == "torch" and out.suffix != ".pt2":
        raise ExportError(f"{out}: torch opens programs in files named .pt2 alone; choose {out.with_suffix('.pt2')}")
    network, _ = load_network(run.best if weights == "best" else run.last, device=torch.device("cpu"))
    described = describe(network, result, weights=weights)
    write, spelling = WRITERS[format], {}
    if target:
        described |= {"target": target, **_scored(described, scored or {})}
        write = _speck
    elif format == "nir":
        spelling = {"convention": convention, "nudge": threshold_nudge}
    try:
        content, notes, beside = write(network, described, **spelling)
    except ModelError as error:
        raise ExportError(f"{run.path}: {error}") from error
    if recipe_from(result["recipe"], name=result["recipe_name"]).train.adapt_normalization:
        notes = (*notes, ADAPTED)
    if vectors:
        write_atomic(vectors, beside)
    write_atomic(out, content)
    write_atomic(card, model_card(described, out.name, format=format, notes=notes, licence=licence).encode())
    return Exported(out, card, vectors, notes, described)


def files_of(out: str | Path, *, format: str, overwrite: bool) -> tuple[Path, Path, Path | None]:
    """Return the files that an export writes: the network, its card, and test vectors of NIR.

    Raises:
        ExportError: one is there and not `overwrite`, or could not be written.
    """
    as_folder, out = str(out).endswith("/") or Path(out).is_dir(), Path(out)
    out = out / f"model.{ENDINGS[format]}" if as_folder else out
    card = out.with_name("README.md" if as_folder else f"{out.name}.md")
    vectors = out.with_name(f"{out.stem}.vectors.nir") if format == "nir" else None
    for path in filter(None, (out, card, vectors)):
        if reason := in_the_way(path, overwrite=overwrite):
            raise ExportError(f"{path} {reason}")
    return out, card, vectors


def describe(network: TransferNetwork, result: RunResult, *, weights: str) -> dict[str, Any]:
    """Return all that is needed to use an exported network, as plain JSON without any path."""
    best = weights == "best"
    values: Mapping[str, object] = result
    recipe = recipe_from(result["recipe"], name=result["recipe_name"])
    return {
        "schema": SCHEMA,
        "network": network.config,
        "classes": result["classes"],
        "input": "event frames [T,B,P,H,W], P: 0 = OFF, 1 = ON, in the unit of the preprocessing",
        "output": "logits [T,B,K]; their mean over T decides",
        "preprocessing": result["recipe"]["shards"],
        "weights": weights,
        "epoch": result["best_epoch"] if best else result["epochs"],
        "selection": result["selection"] if best else "the last epoch, whatever its score",
        **{name: values.get(name) for name in SETTINGS},
        **{
            name: None if recipe.train.adapt_normalization else values[name if best else f"last_{name}"]
            for name in FIGURES
        },
        "batch_size": evaluation_batch(recipe.train),
    }


def _scored(described: dict[str, Any], scored: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the figures of a chip in place of the network's, which it has under another name; None: not scored.

    Raises:
        ExportError: frames that do not count events.
    """
    if (reduction := described["preprocessing"].get("reduction", "sum")) != "sum":
        raise ExportError(
            f'frames are made by reduction {reduction!r}, and a chip counts events; preprocess with reduction = "sum"'
        )
    figures = {name: scored.get(name.partition("_")[0], {}).get(name.partition("_")[2]) for name in FIGURES}
    splits = ("test", "validation")
    trained = {f"trained_{split}_accuracy": described[f"{split}_accuracy"] for split in splits}
    return {**figures, **trained, "float_accuracy": {split: values["float"] for split, values in scored.items()}}


Written = tuple[bytes, tuple[str, ...], bytes]
"""Content of the file, notes, and what stands beside it."""


def _nir(network: TransferNetwork, described: dict[str, Any], *, convention: str | None, nudge: bool) -> Written:
    try:
        from spikebridge.models.nir_conventions import CONVENTIONS, DEFAULT
        from spikebridge.models.to_nir import nir_file, to_nir
        from spikebridge.train.export.vectors import encode_vectors
    except ImportError as error:
        raise ExportError(
            f"NIR needs the package nir, which is not installed ({error}); {install_command('export')}"
        ) from error
    convention = convention or DEFAULT
    if convention not in CONVENTIONS:
        raise ExportError(f"convention {convention!r} is not known; expected {', '.join(CONVENTIONS)}")
    graph, notes = to_nir(network, convention=convention, nudge=nudge)
    # The graph's own metadata say it, too, for a reader without JSON.
    said = {name: graph.metadata[name] for name in ("convention", "integration", "fires")}
    described |= {"time_step_seconds": graph.metadata["dt"], **said, "notes": notes}
    text = json.dumps({**described, SEAL: BLANK})
    time_steps = network.settings.time_steps
    vectors = encode_vectors(graph, time_steps=time_steps)
    return seal_file(nir_file(graph, {DESCRIPTION: text, "time_steps": time_steps})), notes, vectors


def _speck(network: TransferNetwork, described: dict[str, Any]) -> Written:
    try:
        from spikebridge.models.to_speck import speck_file, to_speck
        from spikebridge.train.export.vectors import encode_vectors
    except ImportError as error:
        raise ExportError(
            f"NIR needs the package nir, which is not installed ({error}); {install_command('export')}"
        ) from error
    speck, T = to_speck(network), network.settings.time_steps
    described |= {
        "output": "spikes [T,B,K] of the classes' neurons, whole numbers; their sum over T decides",
        "time_step_seconds": speck.graph.metadata["dt"],
        "fires": speck.graph.metadata["fires"],
        "cores": [core.facts() for core in speck.cores],
        "notes": speck.notes,
    }
    text = json.dumps({**described, SEAL: BLANK})
    vectors = encode_vectors(speck.graph, time_steps=T)
    content = speck_file(speck.graph, {DESCRIPTION: text, "time_steps": T})
    return seal_file(content), speck.notes, vectors


class EventPath(nn.Module):
    """A network as a function of event frames alone, of which a program refuses any type but float32."""

    def __init__(self, network: TransferNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, events: Tensor) -> Tensor:
        """Compute logits [T,B,K] of event frames [T,B,P,H,W]."""
        # Tracing puts a check of the type before a conversion, and keeps none of a check that is written here.
        logits: Tensor = self.network(None, events.to(torch.float32)).event_logits
        return logits


def _program(network: TransferNetwork, described: dict[str, Any]) -> Written:
    settings = network.settings
    frames = torch.zeros(settings.time_steps, TRACED_BATCH, settings.in_channels, *settings.input_size)
    batch = {1: torch.export.Dim("batch", min=1)}
    with torch.no_grad(), use("torch"):
        program = torch.export.export(EventPath(network).eval(), (frames,), dynamic_shapes=(batch,))
    for node in program.graph.nodes:  # where this machine keeps its source files is nobody's business
        for trace in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
            node.meta.pop(trace, None)
    channels, sides = settings.in_channels, ",".join(map(str, settings.input_size))
    notes = (
        "plain torch operations, unrolled over the time steps",
        f"takes float32 frames [{settings.time_steps},B,{channels},{sides}] and any batch size B; another type, number "
        "of time steps or size is an error",
    )
    described |= {"notes": notes, "torch": str(torch.__version__)}
    text = json.dumps(described)
    sums: dict[str, str] = {}
    for _ in range(2):  # the second file holds the sum of the first one's other members, which are the same
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={f"{DESCRIPTION}.json": text, **sums})
        sums = {SUM: hash_members(file)}
    return file.getvalue(), notes, b""


def hash_members(file: str | Path | IO[bytes]) -> str:
    """Return the SHA-256 of names and contents of a program's members, but for `UNSUMMED`."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(file) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith(UNSUMMED):
                content = archive.read(name)
                digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def _safetensors(network: TransferNetwork, described: dict[str, Any]) -> Written:
    notes = ("all parameters and buffers, those of the static stream included; the network is built from `network`",)
    described |= {"notes": notes}
    text = {"format": "pt", DESCRIPTION: json.dumps(described), SEAL: BLANK}
    content = encode_network(network, epoch=described["epoch"], shard_set=described["shard_set"], **text)
    return seal_file(content), notes, b""


WRITERS: dict[str, Callable[..., Written]] = {
    "nir": _nir,
    "torch": _program,
    "safetensors": _safetensors,
}
"""What is written, by format; each completes the description."""
FORMATS = tuple(WRITERS)
