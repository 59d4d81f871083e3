"""Published checkpoints: their file format, and their names for our parameters."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from spikebridge.models.errors import CheckpointError
from spikebridge.models.neurons import Neuron


class PublishedNetwork(Protocol):
    """A network with published names, as `models.network.TransferNetwork` is one."""

    published_prefixes: ClassVar[Mapping[str, str]]
    settings: Any
    coefficients: nn.Parameter

    def state_dict(self) -> dict[str, Any]:
        """Return our names -> tensors."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Iterate over all layers."""


@dataclass(frozen=True)
class LoadReport:
    """What of a published state dictionary fitted; all empty if everything did."""

    missing: tuple[str, ...]
    """Published names that the network needs and the dictionary lacks."""
    unexpected: tuple[str, ...]
    """Names in the dictionary that the network has no place for."""
    misfits: tuple[str, ...]
    """"NAME: found ..., expected ..." for other shapes, and for neuron constants other than ours."""

    def __bool__(self) -> bool:
        """Say whether everything fitted."""
        return not (self.missing or self.unexpected or self.misfits)

    def __str__(self) -> str:
        parts = [
            f"{kind} ({len(names)}): {', '.join(names)}"
            for kind, names in (("missing", self.missing), ("unexpected", self.unexpected), ("misfits", self.misfits))
            if names
        ]
        return "; ".join(parts) or "everything fitted"


@dataclass(frozen=True)
class PublishedCheckpoint:
    """What is taken of a published checkpoint file; its optimiser and arguments are not."""

    state: dict[str, Tensor]
    """Published names -> tensors."""
    epoch: int | None
    """As the file has it (0-based in timm's files); None where it says nothing."""
    arch: str | None
    """The network's name in the published code."""


def read_published(path: Path) -> dict[str, Tensor]:
    """Read the state dictionary in a published checkpoint file: see `read_published_checkpoint`."""
    return read_published_checkpoint(path).state


def read_published_checkpoint(path: Path) -> PublishedCheckpoint:
    """Read a published checkpoint file, as timm's saver writes it.

    The file holds its training arguments as an `argparse.Namespace`: that class is allowed for this one load, and
    nothing else that could run code.

    Source: timm's `CheckpointSaver`: epoch, arch, state_dict, optimizer, version, args and more in one pickle.

    Raises:
        CheckpointError: not such a file, or one that holds other classes.
    """
    _require_bounded(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises several kinds, by content
        # Not torch's own words, which are long and tell people to let the file run code.
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it holds {foreign[1]}, which could run code" if foreign else "torch.save did not write it"
        raise CheckpointError(
            f"{path}: cannot be read as a published checkpoint: {what}. Expected a .pth.tar file of timm, with "
            "tensors, numbers and texts; nothing in it was executed."
        ) from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: no 'state_dict' inside; expected a published checkpoint file.")
    strange = [str(name) for name, value in state.items() if not (isinstance(name, str) and torch.is_tensor(value))]
    if strange:
        raise CheckpointError(f"{path}: no tensors under {', '.join(strange[:3])}; expected names and tensors alone.")
    size = path.stat().st_size
    large = [name for name, value in state.items() if value.is_sparse or value.numel() * value.element_size() > size]
    if large:
        raise CheckpointError(f"{path}: {', '.join(large[:3])} would take more bytes than the file has.")
    epoch, arch = content.get("epoch"), content.get("arch")
    return PublishedCheckpoint(
        state=dict(state),
        epoch=epoch if isinstance(epoch, int) else None,
        arch=arch if isinstance(arch, str) else None,
    )


def _require_bounded(path: Path) -> None:
    """Refuse an archive whose members claim more bytes than the file has; torch stores them unpacked.

    Files of torch before 1.6 are no archives: their storages are read from the file as they lie.

    Raises:
        CheckpointError: a packed member, or members that lie over each other.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: cannot be read as a published checkpoint: {error}.") from error
    packed = [one.filename for one in members if one.compress_type != zipfile.ZIP_STORED]
    if packed or sum(one.file_size for one in members) > path.stat().st_size:
        raise CheckpointError(
            f"{path}: cannot be read as a published checkpoint: its members claim more bytes than the file has. "
            "Expected a .pth.tar file of timm, as torch.save writes it."
        )


def published_names(net: PublishedNetwork) -> dict[str, str]:
    """Map our state-dictionary names to published ones, without `coefficients` (published one by one)."""
    names = {}
    for ours in net.state_dict():
        if ours != "coefficients":
            prefix = next((p for p in net.published_prefixes if ours.startswith(p)), "")
            names[ours] = net.published_prefixes.get(prefix, "") + ours[len(prefix) :]
    return names


def neuron_constants(net: PublishedNetwork) -> dict[str, float]:
    """Map published names of the frozen neuron constants to the value they have in this network."""
    constants = {}
    for name, module in net.named_modules():
        if isinstance(module, Neuron):
            constants[f"{name}.threshold"] = module.rule.threshold
            constants[f"{name}.act_fun.alpha"] = module.rule.surrogate.alpha
    return constants


@torch.no_grad()
def load_published(net: PublishedNetwork, state: Mapping[str, Tensor], *, strict: bool = True) -> LoadReport:
    """Copy a published state dictionary into `net`.

    Neuron constants (threshold, alpha) may be absent; one that differs from ours is a misfit, because the network
    would compute something else. Shared running statistics fill both rows of domain-specific ones.

    Args:
        net: the network.
        state: published names -> tensors.
        strict: refuse anything but a perfect fit, and leave `net` as it was; otherwise copy what fits.

    Raises:
        CheckpointError: `strict`, and something did not fit; the message names all of it.
    """
    targets = {theirs: net.state_dict()[ours] for ours, theirs in published_names(net).items()}
    targets |= {f"coefficient.{t}": net.coefficients[t : t + 1] for t in range(len(net.coefficients))}
    constants = neuron_constants(net)
    fitting, misfits = {}, []
    for name, value in state.items():
        if name in constants:
            if value.numel() != 1:
                misfits.append(f"{name}: found {list(value.shape)}, expected one number")
            elif abs(float(value) - constants[name]) > 1e-6:
                misfits.append(f"{name}: found {float(value)}, expected {constants[name]}")
        elif name in targets:
            shape = targets[name].shape
            if name.endswith(("running_mean", "running_var")) and value.shape == shape[-1:]:
                value = value.expand(shape)  # noqa: PLW2901
            if value.shape == shape:
                fitting[name] = value
            else:
                misfits.append(f"{name}: found {list(value.shape)}, expected {list(shape)}")
    report = LoadReport(
        missing=tuple(name for name in targets if name not in state),
        unexpected=tuple(name for name in state if name not in targets and name not in constants),
        misfits=tuple(misfits),
    )
    if strict and not report:
        raise CheckpointError(
            f"The published weights do not fit {net.settings.name}: {report}. "
            "Build the network with the checkpoint's settings, or load with strict=False."
        )
    for name, value in fitting.items():
        targets[name].copy_(value)
    return report
