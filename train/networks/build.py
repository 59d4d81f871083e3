"""Networks for a shard set: built from the recipe with seeded weights, rebuilt from a weights file; their optimiser."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spikebridge.models import ModelError, TransferNetwork, backends, build_model
from spikebridge.models.errors import BackendError
from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.foreign_json import Pattern, Range, parse_json
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.settings import MODELS, NEURONS, TrainSettings
from spikebridge.train.data.order import derived_seed
from spikebridge.train.errors import DeviceError, NetworkError, RunError
from spikebridge.train.networks.adamw import AdamW
from spikebridge.train.networks.muon import Muon
from spikebridge.train.networks.precision import TYPES, resolve_precision, set_up_cuda
from spikebridge.train.runs.checkpoints import check_form, copy_weights, encode_weights, read_weights

log = logging.getLogger(__name__)

Side = Annotated[int, Range(1, 2**14)]


class NetworkArguments(TypedDict):
    """Arguments of `build_model`, as files that hold weights name them."""

    name: str
    num_classes: Annotated[int, Range(1, 2**24)]
    time_steps: Annotated[int, Range(1, 2**16)]
    in_channels: Annotated[int, Range(1, 2**10)]
    input_size: list[Side] | Side
    width: Annotated[float, Range(1e-6, 1e3)]
    surrogate: str
    neuron: str
    reset: str
    statistics: str
    feature: NotRequired[str]


class _Description(TypedDict):
    """Header of a weights file."""

    network: str
    shard_set: str
    epoch: Annotated[str, Pattern("[0-9]{1,15}", "a whole number in decimal digits")]


def choose_device(name: str) -> torch.device:
    """Return a torch device: `auto` takes CUDA where there is one, else the CPU.

    A CUDA device that is named becomes the current one: kernels, streams and graphs go to the current device unless
    they are told otherwise, whichever device their tensors are on.

    Raises:
        DeviceError: not a device, or CUDA asked for and absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device {name!r} is not known; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise DeviceError(f"device {name}: this machine offers {count} CUDA devices to torch; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name}: expected auto, cpu, cuda or cuda:N")
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    set_up_cuda(device)
    return device


def network_arguments(settings: TrainSettings, shards: ShardSet) -> dict[str, Any]:
    """Return the arguments of `build_model` as plain JSON: name, classes, time steps, channels, size, choices."""
    T, P, H, W = shards.sample_shape
    return {
        "name": settings.model,
        "num_classes": len(shards.classes),
        "time_steps": T,
        "in_channels": P,
        "input_size": H if H == W else [H, W],
        "surrogate": settings.surrogate,
        "neuron": settings.neuron,
        "reset": settings.reset,
        "statistics": settings.statistics,
        "feature": settings.feature,
        "width": settings.width,
    }


@contextmanager
def seeded_weights(seed: int, *names: str) -> Iterator[None]:
    """Make weights in the block depend on (seed, names) only, on the CPU; the global generator is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derived_seed(seed, "weights", *names))
        yield


def find_plugins(arguments: Mapping[str, Any]) -> None:
    """Import plugins where the arguments of `build_model` name a network or neuron that is none of ours.

    Raises:
        SettingsError: a plugin cannot be imported.
    """
    for key, names in (("name", MODELS), ("neuron", NEURONS)):
        _ = arguments.get(key) in names  # which looks for it


def make_network(arguments: dict[str, Any], *, seed: int) -> TransferNetwork:
    """Build a network on the CPU with initial weights that depend on the seed only; the global generator is untouched.

    Raises:
        NetworkError: the network does not exist or does not fit the input.
    """
    find_plugins(arguments)
    with seeded_weights(seed):
        try:
            return build_model(**arguments)
        except ModelError as error:
            raise NetworkError(f"model {arguments.get('name')}: {error}") from error


@torch.no_grad()
def feature_count(network: TransferNetwork) -> int:
    """Return the features F of a sample at a time step that the alignment compares; runs a pass of zeros."""
    settings, training = network.settings, network.training
    frames = torch.zeros(
        (settings.time_steps, 1, settings.in_channels, *settings.input_size), device=network.coefficients.device
    )
    features = network.eval()(None, frames).event_features  # [T,1,F]
    network.train(training)
    return int(features.shape[-1])


def require_backend(network: TransferNetwork, *, precision: str, device: torch.device) -> str:
    """Return the backend that will compute the network's neurons in training, see `models.backends`.

    Triton on a GPU compiles and launches one small kernel here: whether it can at all (it needs a C compiler) is known
    by trying alone, and known before the run folder is claimed.

    Args:
        network: whose neurons are computed.
        precision: `fp32`, `bf16` or `fp16`.
        device: of the network.

    Raises:
        NetworkError: the one that was asked for with `backends.use` cannot, or Triton does not run here.
    """
    x = torch.zeros((1, 1, network.settings.time_steps, 1), dtype=TYPES[precision] or torch.float32, device=device)
    node = network.make_node()
    try:
        backend = backends.choose(x, node.rule)
        if backend == "triton" and device.type == "cuda":
            from spikebridge.models.fire_triton import try_triton

            try_triton(node, device=device, dtype=x.dtype)
            log.info("neurons by Triton: its kernels are compiled in the first steps, and kept for later runs")
    except BackendError as error:
        raise NetworkError(str(error)) from error
    return backend


def encode_network(network: TransferNetwork, *, epoch: int, shard_set: str, **description: str) -> bytes:
    """Encode the weights as they are now as a file that `load_network` reads, with further `description` as text.

    A run's own have `environment`, JSON that says what made them and when.
    """
    described = {"network": json.dumps(network.config), "epoch": str(epoch), "shard_set": shard_set, **description}
    return encode_weights(copy_weights(network), described)


def read_described(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a weights file; return its tensors and its description: `network` (arguments), `epoch`, `shard_set`, ...

    Raises:
        RunError: missing, damaged, or it does not say what network it is of.
    """
    tensors, header = read_weights(path)
    remedy = "Train the run again with --overwrite."
    described: Any = check_form(header, _Description, path, remedy=remedy)
    place = f"{path}, network"
    arguments = parse_json(described["network"], NetworkArguments, source=place, error=RunError, remedy=remedy)
    known = {name: value for name, value in arguments.items() if name in NetworkArguments.__annotations__}
    if set(arguments) != set(known):
        raise RunError(f"{place}: has settings that this version does not know. {remedy}")
    return tensors, {**described, "network": arguments}


class _WithoutValues(TorchFunctionMode):
    """Leaves out operations in place: shapes need no initial values, which on `meta` cost the import of a compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.endswith("_") and not func.__name__.endswith("__"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def load_network(path: Path, *, device: torch.device) -> tuple[TransferNetwork, dict[str, Any]]:
    """Rebuild the network of a weights file (`best` or `last` of a run) on a device, in evaluation mode.

    What the description asks for takes memory only once its shapes are those of the tensors in the file.

    Returns:
        The network, and the file's description: `network` (arguments of `build_model`), `epoch`, `shard_set`.

    Raises:
        RunError: missing, damaged, or weights that do not fit the network they name.
    """
    tensors, description = read_described(path)
    try:
        find_plugins(dict(description["network"]))
        with torch.device("meta"), _WithoutValues():
            expected = {name: value.shape for name, value in build_model(**description["network"]).state_dict().items()}
        found = {name: value.shape for name, value in tensors.items()}
        other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if other:
            raise ValueError(f"{', '.join(map(show, other[:3]))} differ")
        network = make_network(description["network"], seed=0)
        network.load_state_dict(tensors)
    except (LookupError, ValueError, ArithmeticError, RuntimeError, TypeError, NetworkError) as error:
        raise RunError(f"{path}: these weights do not fit the network that the file names: {error}") from error
    return network.to(device).eval(), description


def make_optimizer(
    network: nn.Module, settings: TrainSettings, modules: Iterable[nn.Module] = (), *, device: torch.device
) -> AdamW:
    """Make the optimiser, with eps 1e-8 and weight decay on tensors of two or more dimensions; frozen ones stay out.

    Args:
        network: what is trained.
        settings: the `[train]` table; with `optimizer = "muon"` the weights of the network's convolutions and linear
            layers but its heads are orthogonalised, in bf16 where the run computes in bf16.
        modules: what trains along with it.
        device: of the parameters. On CUDA the update is one fused operation whose learning rate is a tensor, so that a
            recorded step can be replayed with another.

    Source: He et al., AAAI 2024, published recipes.
    """
    parameters = [p for module in (network, *modules) for p in module.parameters() if p.requires_grad]
    muon = settings.optimizer == "muon"
    hidden = [p for p in _hidden_weights(network) if p.requires_grad] if muon else []
    held = set(map(id, hidden))
    parameters = [p for p in parameters if id(p) not in held]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    how: dict[str, Any] = {"lr": settings.lr}
    if device.type == "cuda":
        rate = torch.tensor(settings.lr, dtype=torch.float32, device=device)
        how = {"lr": rate, "fused": True, "capturable": True}
    if not muon:
        return AdamW(groups, eps=1e-8, **how)
    groups.append({"params": hidden, "weight_decay": settings.weight_decay, "orthogonal": True})
    bf16 = resolve_precision(settings.precision, device) == "bf16"
    return Muon(groups, dtype=torch.bfloat16 if bf16 else torch.float32, eps=1e-8, **how)


def _hidden_weights(network: nn.Module) -> list[Tensor]:
    """Return the weights of convolutions and linear layers that do not belong to classes, in the network's order."""
    heads = network.heads if isinstance(network, TransferNetwork) else ()
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [module.weight for name, module in layers if not f"{name}.".startswith(heads)]


def set_learning_rate(optimizer: AdamW, rate: float) -> None:
    """Set the rate of all parameters; a rate that is a tensor stays the same tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
