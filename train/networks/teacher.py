"""A frozen image network of somebody else's as a teacher: what it says about static images, once, before a run.

It is a file: a torch.export program, from images [B,C,H,W] to one tensor [B,F], whatever it was written in; or weights
of one of the networks of `models` (safetensors, of a run or of `export`), whose static stream is asked. A program is
unpickled by torch and can run any code while it is opened: without trust it is refused. Nothing is fetched.

Axes: n images of the static pool, B of them at once, C channels, H, W, F features, K classes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spikebridge.pipeline.base.files import sha256_once
from spikebridge.train.config.settings import TEACHER_SUM
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.errors import NetworkError
from spikebridge.train.networks.build import load_network

CHUNK = 64
"""Images that are shown at once, where the network takes any number."""
PENALTY = 1e-2
"""Of the probe's squared weights, on features of variance 1."""
PROBE_STEPS = 300


@dataclass(frozen=True)
class Teacher:
    """An image network behind one call."""

    file: Path
    function: Callable[[Tensor], Tensor]
    """From images [B,C,H,W] to [B,F]."""
    channels: int
    size: tuple[int, int]
    """(H, W) in pixels."""
    batch: int | None
    """The only B that it takes; None for any."""

    @torch.no_grad()
    def outputs(
        self, data: TrainingBatches, *, mean: Tensor, std: Tensor, device: torch.device, on_batch: Callable[[], None]
    ) -> Tensor:
        """Return what it says about every image of the static pool, float32 [n,F] on the CPU.

        Static images are grey: all channels of the network get the same. They are resized with antialiasing, and made
        (image - mean) / std, with mean and std [1] or [C], of images in [0, 1].

        Raises:
            NetworkError: it gives anything but numbers [B,F], or mean and std for another number of channels.
        """
        for name, values in (("teacher_mean", mean), ("teacher_std", std)):
            if len(values) not in (1, self.channels):
                raise NetworkError(
                    f"{name}: {len(values)} values; {self.file} takes {self.channels} channels, expected 1 or as many"
                )
        found = []
        for rows in _chunks(data.pool_images, self.batch or CHUNK):
            images = data.images(rows).mean(1, keepdim=True)  # [B,1,H,W]
            images = F.interpolate(images, self.size, mode="bilinear", align_corners=False, antialias=True)
            images = (images - mean.to(device).view(-1, 1, 1)) / std.to(device).view(-1, 1, 1)
            images = images.expand(-1, self.channels, -1, -1)
            missing = (self.batch or len(rows)) - len(rows)  # of a program for whole batches alone
            shown = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]).contiguous()
            made = self.function(shown)
            if not isinstance(made, Tensor) or made.ndim != 2 or len(made) != len(shown):
                what = f"a tensor {list(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
                raise NetworkError(
                    f"{self.file}: gives {what} for {len(shown)} images; expected one tensor [{len(shown)},F]. "
                    "Export a module that returns the pooled features or the logits alone"
                )
            found.append(made[: len(rows)].float().cpu())
            on_batch()
        outputs = torch.cat(found)
        if not outputs.isfinite().all():
            raise NetworkError(f"{self.file}: gives numbers that are not finite; look at teacher_mean and teacher_std")
        return outputs


def _chunks(images: int, size: int) -> Iterator[Tensor]:
    return iter(torch.arange(images).split(size))


def open_teacher(named: str, *, output: str, trust: bool, device: torch.device) -> Teacher:
    """Open the network that a recipe names.

    Args:
        named: path and sum, as a recipe holds them.
        output: `features` or `logits`, which weights of ours give either of; a program gives what it gives.
        trust: open a torch.export program.
        device: where to run it.

    Raises:
        NetworkError: missing, another file than the recipe was read with, a program without trust, or no image network.
        RunError: weights that are damaged, or do not fit the network that they name.
    """
    name, _, digest = named.partition(TEACHER_SUM)
    path = Path(name)
    try:
        found = sha256_once(path)
    except OSError as error:
        raise NetworkError(f"teacher {path}: cannot be read ({error.strerror}); put the file back") from error
    if digest and found != digest:
        raise NetworkError(
            f"teacher {path}: has SHA-256 {found[:12]}..., the recipe was read with {digest[:12]}...; put that file "
            "back, or start a new run"
        )
    if path.suffix == ".safetensors":
        return _of_weights(path, output, device)
    if not trust:
        raise NetworkError(
            f"teacher {path}: a torch.export program, which can run any code while torch opens it; if you know who "
            "wrote it, pass --trust (weights in safetensors need no trust)"
        )
    return _of_program(path, device)


def _of_weights(path: Path, output: str, device: torch.device) -> Teacher:
    network, _ = load_network(path, device=device)
    settings = network.settings

    def averaged(images: Tensor) -> Tensor:
        out = network(images.expand(settings.time_steps, -1, -1, -1, -1), None)
        found: Tensor = out.static_features if output == "features" else out.static_logits  # [T,B,F]
        return found.mean(0)

    return Teacher(path, averaged, settings.in_channels, settings.input_size, None)


def _of_program(path: Path, device: torch.device) -> Teacher:
    try:
        program = torch.export.load(io.BytesIO(path.read_bytes()))
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, torch.empty(0, device=device).device)
        names = set(program.graph_signature.user_inputs)
        taken = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
        call = program.module().__call__
    except Exception as error:  # torch raises several kinds, by content
        raise NetworkError(
            f"teacher {path}: cannot be opened by torch {torch.__version__} ({error}); export it with this version"
        ) from error
    shapes = [list(value.shape) for value in taken if isinstance(value, Tensor)]
    if len(taken) != 1 or not shapes or len(shapes[0]) != 4 or not all(isinstance(n, int) for n in shapes[0][1:]):
        raise NetworkError(
            f"teacher {path}: takes {shapes or 'no tensor'}; expected one tensor [B,C,H,W] of images, whose C, H and W "
            "are fixed"
        )
    if taken[0].dtype != torch.float32:
        raise NetworkError(f"teacher {path}: takes {taken[0].dtype} images; expected torch.float32")
    batch, channels, height, width = shapes[0]
    return Teacher(path, call, channels, (height, width), batch if isinstance(batch, int) else None)


def fit_probe(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Fit a linear classifier to features and return its logits for them, float32 [n,K].

    Multinomial logistic regression with a penalty on the weights, on features of mean 0 and variance 1: `PROBE_STEPS`
    steps of accelerated gradient descent from 0 in float64, of a length that the curvature allows. Deterministic.

    Args:
        features: [n,F].
        labels: int64 [n].
        classes: K.
    """
    x = features.double()
    x = (x - x.mean(0)) / x.std(0, correction=0).clamp(min=1e-6)
    n = len(x)
    targets = F.one_hot(labels, classes).double()
    # Half the largest eigenvalue of the features' covariance bounds the curvature; the intercept adds 1 to it.
    curvature = float(
        torch.linalg.eigvalsh(x.T @ x / n)[-1] if x.shape[1] <= n else torch.linalg.eigvalsh(x @ x.T / n)[-1]
    )
    length = 1 / ((curvature + 1) / 2 + PENALTY)
    weights, intercepts = x.new_zeros(x.shape[1], classes), x.new_zeros(classes)
    ahead = (weights, intercepts)
    for step in range(PROBE_STEPS):
        wrong = ((x @ ahead[0] + ahead[1]).softmax(1) - targets) / n
        found = ahead[0] - length * (x.T @ wrong + PENALTY * ahead[0]), ahead[1] - length * wrong.sum(0)
        momentum = step / (step + 3)
        ahead = found[0] + momentum * (found[0] - weights), found[1] + momentum * (found[1] - intercepts)
        weights, intercepts = found
    return (x @ weights + intercepts).float()
