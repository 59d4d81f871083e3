"""Exported networks, opened to be scored: each format behind the same call as a network.

Axes: T time, B batch, P polarity, H, W, K classes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from spikebridge.models import ModelError, TransferNetwork, TransferOutput
from spikebridge.pipeline.base.foreign_json import Range, check_json, parse_json
from spikebridge.pipeline.base.installation import command, install_command
from spikebridge.train.errors import ExportError
from spikebridge.train.export.write import DESCRIPTION, SCHEMA, SUM, hash_members
from spikebridge.train.networks.build import load_network
from spikebridge.train.runs.checkpoints import read_weights
from spikebridge.train.runs.result import Accuracy, Threads
from spikebridge.train.runs.sums import SEAL, require_digest

MAX_DESCRIPTION = 2**24
"""Bytes that a description may have."""


class ExportedNetwork(nn.Module):
    """A function from event frames [T,B,P,H,W] to logits [T,B,K] that is scored as a network is."""

    record_firing_rates = False  # set while scoring; an exported function reports no rates

    def __init__(self, function: Callable[[Tensor], Tensor], *, frames: Sequence[int] = ()) -> None:
        super().__init__()
        self.function, self.frames = function, tuple(frames)
        """The only [T,P,H,W] that it takes, as float32; empty for any."""

    def forward(self, static: None, event: Tensor) -> TransferOutput:
        """Compute event logits; there is no static stream.

        Raises:
            ExportError: frames of another type or shape than it takes.
        """
        if self.frames and (event.dtype != torch.float32 or (len(event), *event.shape[2:]) != self.frames):
            T, *others = self.frames
            raise ExportError(
                f"found {event.dtype} frames {list(event.shape)}; this program takes torch.float32 frames "
                f"[{T},B,{','.join(map(str, others))}], whatever B. Bin the recordings so, or export another run"
            )
        return TransferOutput(None, self.function(event), None)


class Description(TypedDict):
    """What scoring takes from the description in a file."""

    schema: Literal[1]
    shard_set: str
    contents: str
    preprocessing: dict[str, Any]
    """Table `[shards]` of the recipe."""
    weights: Literal["best", "last"]
    threads: Threads
    batch_size: Annotated[int, Range(1, 2**16)]
    test_accuracy: Accuracy | None
    validation_accuracy: Accuracy | None
    time_step_seconds: NotRequired[Annotated[float, Range(1e-9, 1e3)]]
    integration: NotRequired[Literal["euler", "exponential"]]
    fires: NotRequired[Literal["above", "at", "counts"]]
    """Of NIR; older files say neither and mean Euler and above."""


Opened = tuple[TransferNetwork | ExportedNetwork, dict[str, Any]]
"""A network, and what its file says about itself."""


def format_of(path: Path) -> str:
    """Return `nir`, `torch` or `safetensors`, by the first bytes of the file.

    Raises:
        ExportError: missing, or none of them.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror})") from error
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "nir"
    if start.startswith(b"PK\x03\x04"):
        return "torch"
    if start[8:] == b"{":
        return "safetensors"
    raise ExportError(f"{path}: no exported network; expected NIR, a torch.export program or safetensors")


def open_export(
    path: str | Path, *, device: torch.device, trust: bool = False
) -> tuple[TransferNetwork | ExportedNetwork, dict[str, Any], str]:
    """Open an exported network, ready to be scored.

    NIR (HDF5) and safetensors hold numbers alone. A torch.export program is unpickled by torch and can run any code
    while it is opened: torch warns of files from others, and without `trust` it is refused.

    Args:
        path: a file written by `export`.
        device: where to run it.
        trust: open a torch.export program.

    Returns:
        The network, what the file says about itself, and its format.

    Raises:
        ExportError: unreadable, not exported by this project, or a program without `trust`.
        RunError: weights that do not fit the network that the file names.
    """
    path = Path(path)
    format = format_of(path)
    network, described = {"nir": _open_nir, "torch": _open_program, "safetensors": _open_weights}[format](
        path, device, trust
    )
    return network, described, format


def _described(path: Path, text: Any) -> dict[str, Any]:
    """Return the description in an exported file."""
    missing = f"{path}: no description of schema {SCHEMA} inside; expected a file of `{command('export')}`"
    if not isinstance(text, str | bytes):
        raise ExportError(missing)
    source, remedy = f"{path}, its description", "Export the run again."
    described = parse_json(
        text, dict[str, Any], source=source, error=ExportError, remedy=remedy, most_bytes=MAX_DESCRIPTION
    )
    if described.get("schema") != SCHEMA:
        raise ExportError(missing)
    check_json(described, Description, source=source, error=ExportError, remedy=remedy)
    return described


def _open_nir(path: Path, device: torch.device, trust: bool) -> Opened:
    try:
        from spikebridge.models.run_nir import NIRProgram, read_graph
    except ImportError as error:
        raise ExportError(
            f"{path}: NIR needs the package nir, which is not installed ({error}); {install_command('export')}"
        ) from error
    try:
        graph = read_graph(path)
    except ModelError as error:
        raise ExportError(str(error)) from error
    try:
        described = _described(path, graph.metadata.get(DESCRIPTION))
        if (digest := described.pop(SEAL, None)) is not None:
            require_digest(path, path.read_bytes(), digest)
        if "time_step_seconds" not in described:
            raise ExportError("the description inside names no time step; export the run again")
        how = {name: described[name] for name in ("integration", "fires") if name in described}
        program = NIRProgram(graph, time_step=described["time_step_seconds"], **how, device=device)
    except (ModelError, LookupError, ArithmeticError, TypeError, ValueError) as error:
        raise ExportError(f"{path}: {error}") from error
    return ExportedNetwork(program), described


def _open_program(path: Path, device: torch.device, trust: bool) -> Opened:
    if not trust:
        raise ExportError(
            f"{path}: a torch.export program, which can run any code while torch opens it; if you know who wrote it, "
            "pass --trust (NIR and safetensors need no trust)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{DESCRIPTION}.json")]
            if not names or archive.getinfo(names[0]).file_size > MAX_DESCRIPTION:
                raise ExportError(f"{path}: no description inside; expected a file of `{command('export')}`")
            described = _described(path, archive.read(names[0]))
            sums = [archive.read(name).decode("ascii") for name in archive.namelist() if name.endswith(f"/{SUM}")]
        if sums and sums != [hash_members(path)]:
            raise ExportError(
                f"{path}: damaged; its content has another SHA-256 than it carries. Export the run again."
            )
        program = torch.export.load(io.BytesIO(path.read_bytes()))
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            numbered = torch.empty(0, device=device).device  # cuda:0 for cuda: the program compares devices
            program = move_to_device_pass(program, numbered)
        network = described["network"]
        frames = (network["time_steps"], network["in_channels"], *network["input_size"])
        call = program.module().__call__  # a bound method: programs refuse eval()
        return ExportedNetwork(call, frames=frames), described
    except ExportError:
        raise
    except Exception as error:  # torch raises several kinds, by content
        raise ExportError(
            f"{path}: cannot be opened by torch {torch.__version__} ({error}); export it again with this version"
        ) from error


def _open_weights(path: Path, device: torch.device, trust: bool) -> Opened:
    _, description = read_weights(path)
    described = _described(path, description.get(DESCRIPTION))
    return load_network(path, device=device)[0], described
