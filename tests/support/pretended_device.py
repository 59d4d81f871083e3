"""The whole step of a device without the device: fake tensors, Triton launches that are noted and not made.

A fake tensor has shape, type and strides, and no numbers: whatever looks at a number on the host, or makes a shape from
one, raises. What is left is the list of operations, the launches with their arguments, and the life of every storage.

Axes: T time, B batch, P polarity, H, W, K classes.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from spikebridge.models import backends, fire_triton
from spikebridge.models.normalization import StepNorm
from spikebridge.models.resnet import Pointwise
from spikebridge.pipeline.shards.framing import Framing
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.train import losses
from spikebridge.train.data import augmentation, binning_triton, simulation_triton
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.methods import find_method
from spikebridge.train.networks.build import make_network, make_optimizer, network_arguments
from spikebridge.train.networks.muon import Muon
from spikebridge.train.runs.state import EpochSums
from spikebridge.train.trainer.cuda_graph import DeviceStep
from spikebridge.train.trainer.distributed import Distributed
from spikebridge.train.trainer.finite import FiniteWatch
from spikebridge.train.trainer.step import TrainStep

CPU = torch.device("cpu")
FREE = {
    "_record_function_enter_new", "_record_function_exit", "_unsafe_view", "alias", "as_strided", "chunk", "detach",
    "device", "diagonal", "empty", "empty_like", "empty_strided", "expand", "is_same_size", "lift_fresh", "mT",
    "new_empty", "new_empty_strided", "permute", "reshape", "select", "slice", "split", "split_with_sizes",
    "squeeze", "squeeze_", "t", "transpose", "unbind", "unfold", "unsqueeze", "view", "view_as",
}  # fmt: skip
"""Operations that launch nothing."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """One launch of a Triton kernel."""

    kernel: str
    arguments: tuple[Any, ...]
    """Of the kernel in order: ("tensor", dtype) or a number."""
    constants: tuple[tuple[str, Any], ...]
    """Constants and `num_warps`, by name."""


@dataclasses.dataclass
class Trace:
    """What a step did."""

    operations: list[str] = dataclasses.field(default_factory=list)
    """Names of those that launch something, Triton's among them."""
    launches: list[Launch] = dataclasses.field(default_factory=list)
    peak_bytes: int = 0
    """Of live storages, what was there before included."""


class _Kernel:
    def __init__(self, name: str, trace: Trace) -> None:
        self.name, self.trace = name, trace

    def __getitem__(self, grid: Any) -> _Kernel:
        return self

    def __call__(self, *given: Any, **constants: Any) -> None:
        arguments = tuple(("tensor", each.dtype) if isinstance(each, torch.Tensor) else each for each in given)
        self.trace.launches.append(Launch(self.name, arguments, tuple(sorted(constants.items(), key=lambda c: c[0]))))
        self.trace.operations.append(f"triton.{self.name}")


class Watch(TorchDispatchMode):
    """Notes operations and storages; the fused optimiser, which has no fake form, counts as one and does nothing."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace, self._live, self._alive = trace, {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in FREE:
            self.trace.operations.append(name)
        if name == "_fused_adamw_":
            return None
        found = func(*args, **(kwargs or {}))
        for part in torch.utils._pytree.tree_leaves(found):
            if isinstance(part, torch.Tensor):
                self.keep(part)
        return found

    def keep(self, tensor: torch.Tensor) -> None:
        """Count a storage for as long as it lives."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            size = storage.nbytes()
            self._live[key] = size
            self._alive += size
            self.trace.peak_bytes = max(self.trace.peak_bytes, self._alive)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self._alive -= self._live.pop(key)


class PretendedShards:
    """A shard set of zeros of any size, with a static pool."""

    def __init__(self, *, T: int, size: int, K: int, samples: int, images: int) -> None:
        self.path, self.sample_shape = "pretended", (T, 2, size, size)
        self.manifest = {"settings": {"reduction": "sum"}}
        self.classes, self.settings = tuple(map(str, range(K))), {"encoding": "v", "reduction": "sum"}
        labels = np.arange(samples) % K
        frame = np.zeros((1, *self.sample_shape), np.uint8)
        self._split = SimpleNamespace(
            labels=labels,
            keys=tuple(map(str, range(samples))),
            shard_of=labels // 5,
            as_stored=True,
            read=lambda rows: np.broadcast_to(frame, (len(rows), *frame.shape[1:])),
        )
        offsets = np.searchsorted(np.sort(np.arange(images) % K), np.arange(K + 1))
        self._pool = SimpleNamespace(images=np.zeros((images, 1, size, size), np.uint8), class_offsets=offsets)

    def split(self, name: str) -> Any:
        """The same for every split."""
        return self._split

    def static_pool(self) -> Any:
        """One channel."""
        return self._pool


@contextmanager
def noted_launches(trace: Trace) -> Iterator[None]:
    """Inside the block launches of Triton's kernels go into the trace."""
    kernels = {room: room.kernels for room in (fire_triton, simulation_triton, binning_triton)}
    for room, held in kernels.items():
        names = [name for name in vars(held) if not name.startswith("_")]
        room.kernels = SimpleNamespace(**{name: _Kernel(name, trace) for name in names})
    try:
        yield
    finally:
        for room, held in kernels.items():
            room.kernels = held


@contextmanager
def pretended(trace: Trace) -> Iterator[FakeTensorMode]:
    """Inside the block tensors are fake, and neurons are Triton's, whose launches go into the trace."""
    obstacle = backends.BACKENDS["triton"]
    backends.BACKENDS["triton"] = lambda x, rule: backends._rule_obstacle(rule, "triton")
    losses.FUSED_ON.add("cpu")
    one_by_one, narrow = augmentation.shift_one_by_one, Pointwise.NARROW  # ways of a CPU, which this is not
    augmentation.shift_one_by_one, Pointwise.NARROW = augmentation.shift_together, 0
    try:
        with noted_launches(trace), FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        losses.FUSED_ON.remove("cpu")
        augmentation.shift_one_by_one, Pointwise.NARROW = one_by_one, narrow
        backends.BACKENDS["triton"] = obstacle


def count_stored(*, T: int, size: int) -> Trace:
    """Trace how the stored events of two recordings are counted in frames [T,2,size,size]."""
    trace = Trace()
    settings = ConversionSettings(dataset="digits", time_bins=T, size=size)
    about = [binning_triton.About._make([0] * len(binning_triton.About._fields))] * 2
    with noted_launches(trace):
        binning_triton.count_packed(
            torch.zeros(64, dtype=torch.uint8), about, Framing(settings, settings, None, None), CPU
        )
    return trace


def take_step(settings: Any, shards: Any, *, method: str | None = None, number: int = 0, by: str = "triton") -> Trace:
    """Trace one whole step of a recipe as a CUDA graph would hold it.

    Args:
        settings: the `[train]` table.
        shards: see `PretendedShards`.
        method: of the trace; that of the settings by default.
        number: of the step, out of 100; decides about the method's phase.
        by: what computes the neurons and simulates recordings: "triton" or "torch".
    """
    trace = Trace()
    kind = find_method(method or settings.method)
    settings = kind.complete(settings)
    with ExitStack() as stack:
        mode = stack.enter_context(pretended(trace))
        data = TrainingBatches(
            shards, settings, device=CPU, needs_static=kind.needs_static, draw_from_pool=kind.draw_from_pool,
            unlabelled=kind.unlabelled, residence="device",
        )  # fmt: skip
        chosen = kind(settings, steps=100)
        net = make_network(network_arguments(settings, shards), seed=0).train()
        with backends.use(by):  # some look at a pass
            chosen.attach(net, data)
        if hasattr(chosen, "teacher"):
            chosen.teacher.eval()
        parameters = [p for module in (net, *chosen.modules.values()) for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=torch.tensor(1e-3), fused=True)
        if settings.optimizer == "muon":
            made = make_optimizer(net, settings, chosen.modules.values(), device=CPU).param_groups
            groups = [{"params": group["params"], "orthogonal": group["orthogonal"]} for group in made]
            optimizer = Muon(groups, dtype=torch.bfloat16, lr=torch.tensor(1e-3), fused=True)
        update = TrainStep(net, optimizer, chosen, data, settings, Distributed(), CPU)
        sums, finite = EpochSums(shards.sample_shape[0], CPU, chosen.terms), FiniteWatch(net, CPU)
        step = DeviceStep(update, sums, finite, batch_size=settings.batch_size, device=CPU)
        for module in net.modules():
            if isinstance(module, StepNorm):
                module.check_count = lambda x: None
        watch = Watch(trace)
        for tensor in [*net.state_dict().values(), *parameters]:
            watch.keep(mode.from_tensor(tensor))
        watch.trace.peak_bytes = 0
        step.begin(0, 0, number)
        with watch, backends.use(by):
            step.compute(settings.batch_size)
            trace.launches, trace.operations, watch.trace.peak_bytes = [], [], 0  # AdamW's state is made in the first
            step.compute(settings.batch_size)
    return trace
