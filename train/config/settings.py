"""What a recipe can say: two tables of settings with type, range and meaning; importable without torch."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.settings import field_problems, setting
from spikebridge.pipeline.plugins.loading import Names
from spikebridge.pipeline.shards.settings import CHOICES, ConversionSettings
from spikebridge.train.config.profile import AUTO, FILE, INLINE, profile_named
from spikebridge.train.errors import RecipeError

# Repeated from `models` because importing that takes seconds of torch; a test holds the two together.
MODELS = Names(
    ("vgg_snn", "resnet18_snn", "resnet34_snn", "scnn", "nmnist_snn", "speck_snn"),
    "spikebridge.models.build:NETWORKS",
)
SURROGATES = ("QGateGrad", "BackEIGateGrad", "GateGrad", "SigmoidGrad", "AtanGrad")
NEURONS = Names(("LIF", "IF", "PLIF", "ReLU"), "spikebridge.models.neurons:NEURONS")
RESETS = ("hard", "soft")
OPTIMIZERS = ("adamw", "muon")
STATISTICS = ("per_step", "pooled", "domain")
FEATURES = ("published", "potential", "before_reset", "spikes", "pooled")
# One file per method, named like it: listing them needs no import.
METHODS = Names(
    sorted(p.stem for p in (Path(__file__).parents[1] / "methods").glob("*.py") if not p.stem.startswith("_")),
    "spikebridge.train.methods:REGISTRY",
)
SAMPLINGS = ("shuffle", "class_balanced", "windowed")
SLIDINGS = ("power", "linear", "cosine", "step", "off")
PRECISIONS = ("fp32", "bf16", "fp16", "auto")
COEFFICIENTS = ("learned", "fixed", "scheduled")
PARTNERS = ("class", "shuffled")
STEP_WEIGHTS = ("published", "bounded", "normalized")
TEACHER_SUM = " sha256:"
"""Between path and SHA-256 of a teacher's file, in a recipe that was read."""
TEACHER_FILES = (".pt2", ".safetensors")
TEACHER_OUTPUTS = ("features", "logits")
DISTILLED = ("static", "event", "both")
SELECTIONS = ("validation", "test", "last")
I2E = "i2e"
SIMULATIONS = ("saccades", "mismatched", "smooth", I2E, AUTO)
AUGMENTATIONS = (
    "none", "crop", "crop_flip_rotate", "flip", "rotate", "scale", "drop_area", "drop_events", "drop_time",
    "time_shift", "time_stretch", "polarity_flip",
)  # fmt: skip
EVENT_AUGMENTATIONS = (
    "none", "drop_events", "drop_time", "drop_area", "time_shift", "time_stretch", "jitter", "polarity_flip", "shift",
    "flip", "rotate", "scale", "noise", "hot_pixels",
)  # fmt: skip
MIXINGS = ("cutmix", "eventmix")
MIXING_METHODS = ("event_only", "pretrain", "self_training", "simulate", "simulate_only", "simulate_pretrain")
"""Methods whose loss takes recordings of two classes each: those without a static image beside the recording."""
JOIN = "+"
"""Between the names of several augmentations."""


SYNONYMS = {
    "amp": "precision", "arch": "model", "architecture": "model", "augment": "augmentation",
    "augmentations": "augmentation", "batch": "batch_size", "batchsize": "batch_size", "bins": "time_bins",
    "bs": "batch_size", "decay": "weight_decay", "dtype": "precision", "epoch": "epochs", "gamma": "lr_decay",
    "image_size": "size", "lambda": "domain_coefficient", "learning_rate": "lr", "max_epochs": "epochs",
    "min_lr": "lr_min", "n_epochs": "epochs", "net": "model", "network": "model", "num_epochs": "epochs",
    "optim": "optimizer", "optimiser": "optimizer",
    "random_seed": "seed", "resolution": "size", "scheduler": "schedule", "steps": "time_bins", "t": "time_bins",
    "temperature": "distill_temperature", "time_steps": "time_bins", "timesteps": "time_bins",
    "warmup": "warmup_epochs", "wd": "weight_decay",
}  # fmt: skip
"""What the field calls some settings."""


def _shard_setting(name: str) -> Any:
    """Declare a required field with the limits of the conversion's setting of that name."""
    return setting(**ConversionSettings.__dataclass_fields__[name].metadata)


@dataclass(frozen=True)
class ShardSettings:
    """Table `[shards]`: the shard set that the recipe is made for; keys with a default may be left out."""

    dataset: str = _shard_setting("dataset")
    """Data set, as `spikebridge datasets` lists it."""
    time_bins: int = _shard_setting("time_bins")
    """Time bins per recording, T."""
    size: int = _shard_setting("size")
    """Height and width of frames and static images, in pixels."""
    reduction: str = _shard_setting("reduction")
    """How events reach the small frame: counted (`sum`), the published stretch (`bilinear`), the published rates of
    N-Omniglot (`frequency`), 1 where any fell (`event`), shared between points in time (`voxel`, `est`), or how recent
    the last one is (`surface`) or the latest ones are (`tore`)."""
    extent: str = _shard_setting("extent")
    """What is mapped onto the frame: the recording's own extent or the whole sensor."""
    encoding: str = _shard_setting("encoding")
    """What is kept of a static image."""
    protocol: str = _shard_setting("protocol")
    """`strict`: no leaks, a validation split. `legacy`: the published splits, best epoch picked on the test set.
    `leaky`: the splits of `strict`, but every static image in the pool: no result, but a measure of leakage."""
    binning: str = setting("", choices=("", *CHOICES["binning"]))
    """How recordings are cut into time bins: `bins` of equal length, `window` or `count`; left out, as the set has
    it."""
    window_us: int = setting(0, low=0, high=10**9)
    """Length of a window in microseconds; binning `window` only."""
    events_per_bin: int = setting(0, low=0, high=10**9)
    """Events of a bin; binning `count` only."""
    time_window_us: tuple[int, ...] = setting((), low=0)
    """Start and stop, in microseconds from the first event, of the part that is used; left out, as the set has it."""
    tau_us: int = setting(0, low=0, high=10**9)
    """Microseconds in which a cell decays to 1 / e; reduction `surface` only."""
    latest_events: int = setting(0, low=0, high=1000)
    """Latest events that a cell shows, a frame each; reduction `tore` only."""
    store: str = setting("", choices=("", *CHOICES["store"]))
    """What `preprocess` stores: frames, or the `events`, of which frames are made at reading, or `both`; any set will
    do then."""
    preview: bool = False
    """Whether `preprocess` puts a picture of every recording into the tars; any set will do all the same."""

    def __post_init__(self) -> None:
        values = asdict(self)
        _refuse(field_problems(type(self), values) + shard_problems(values))

    def given(self) -> dict[str, Any]:
        """Return the settings without those that were left out."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}


@dataclass(frozen=True)
class TrainSettings:
    """Table `[train]`: how to train; keys with a default may be left out."""

    method: str = setting(choices=METHODS)
    """Training method, one file of train/methods."""
    model: str = setting(choices=MODELS)
    """Network."""
    epochs: int = setting(low=1, high=1_000_000)
    """Passes over the training recordings."""
    batch_size: int = setting(low=1, high=1_000_000)
    """Event samples per step; the last batch of an epoch may be smaller."""
    lr: float = setting(above=0.0)
    """Peak learning rate as the optimiser gets it; the published ones are per 1,024 samples: rate * batch / 1024."""
    width: float = setting(1.0, above=0.0, high=16.0)
    """Factor on the network's channels."""
    surrogate: str = setting("QGateGrad", choices=SURROGATES)
    """Surrogate gradient of the spike."""
    neuron: str = setting("LIF", choices=NEURONS)
    """Neuron model; `ReLU` does not spike and makes the network an ANN with the same layers (`surrogate` plays no part,
    and firing rates are shares of outputs above 0)."""
    reset: str = setting("hard", choices=RESETS)
    """What a spike leaves of the membrane potential: 0 (`hard`, published) or what is above the threshold (`soft`)."""
    statistics: str = setting("per_step", choices=STATISTICS)
    """BatchNorm statistics: of one time step (`per_step`, published), `pooled` over time, or `domain`: per step, with
    running statistics of its own for each stream. `scnn` has no BatchNorm."""
    recalibrate: bool = setting(False)
    """Before every scoring, take the running statistics of BatchNorm anew from the event training recordings alone; one
    more forward pass over them. The published ones mix both streams."""
    optimizer: str = setting("adamw", choices=OPTIMIZERS)
    """`adamw` (published), or `muon`: the weights of convolutions and linear layers but the heads move by their
    orthogonalised momentum, all else by AdamW; rate and weight decay mean the same. See `train.networks.muon`."""
    weight_decay: float = setting(0.01, low=0.0)
    """Weight decay, on tensors of two or more dimensions only."""
    schedule: str = setting("cosine", choices=("cosine", "step", "constant"))
    """Course of the learning rate after the warm-up."""
    lr_min: float = setting(1e-5, low=0.0)
    """Floor of the cosine schedule."""
    milestones: tuple[int, ...] = setting((), low=1)
    """Epochs (0-based) from which a further `lr_decay` holds; schedule `step` only."""
    lr_decay: float = setting(0.1, above=0.0, high=1.0)
    """Factor per milestone; schedule `step` only."""
    warmup_epochs: int = setting(0, low=0)
    """Epochs of linear warm-up from `warmup_lr`."""
    warmup_lr: float = setting(1e-6, low=0.0)
    """Learning rate of epoch 0 when there is a warm-up."""
    tet: bool = setting(True)
    """Loss per time step (TET) instead of on time-averaged logits."""
    regularization: bool = setting(True)
    """Weight time steps by coefficients: s = sigmoid(c) on the alignment, 1 - s on the event stream's TET loss."""
    step_weights: str = setting("published", choices=STEP_WEIGHTS)
    """What becomes of s: `published`, as above, which can switch the event loss off; `bounded`: (1 + s) / 2 and
    1 - s / 2, never below a half; `normalized`: both scaled to a mean of 1 over time. Needs `regularization`."""
    coefficient: str = setting("learned", choices=COEFFICIENTS)
    """Where c comes from: `learned` (published; one per time step, from 1), `fixed` at `coefficient_start` for all, or
    `scheduled`: linear from `coefficient_start` in the first epoch to `coefficient_end` in the last, for all."""
    coefficient_start: float = setting(1.0)
    """c, or its first value; coefficient `fixed` and `scheduled` only."""
    coefficient_end: float = setting(1.0)
    """Last value of c; coefficient `scheduled` only."""
    domain_coefficient: float = setting(0.5, low=0.0)
    """Weight of the alignment term; 0 switches it off."""
    cka: str = setting("biased", choices=("biased", "debiased"))
    """Estimator of the alignment."""
    feature: str = setting("published", choices=FEATURES)
    """What the alignment compares of the last neurons: the network's `published` choice, the `potential` after reset,
    the one `before_reset`, `spikes`, or `pooled` (averaged over space; vgg_snn and the resnets only)."""
    sliding: str = setting("power", choices=SLIDINGS)
    """Replacement of static sequences by event sequences, by the share r of the run that is done: r ** power, `linear`
    r, `cosine` (1 - cos(pi r)) / 2, `step` 0 up to `sliding_step` and then 1, `off` 0 throughout."""
    sliding_power: float = setting(3.0, above=0.0)
    """Exponent of the replacement probability (step / steps) ** power; sliding `power` only."""
    sliding_step: float = setting(0.5, low=0.0, high=1.0)
    """Share of the run from which every sequence is replaced; sliding `step` only."""
    partners: str = setting("class", choices=PARTNERS)
    """Static image of a recording: one of its `class`, or, as a control, `shuffled`: of another class, the same one
    throughout the run, but labelled like the recording. Methods that pair nothing ignore it."""
    pretrain_share: float = setting(0.5, above=0.0, high=0.99)
    """Share of the steps before the real recordings are seen: spent on static images by method `pretrain`, on simulated
    recordings by `simulate_pretrain`."""
    modality_weight: float = setting(0.1, low=0.0)
    """Weight of telling static from event frames, frame by frame; method `tsm` only."""
    ratio_weight: float = setting(0.1, low=0.0)
    """Weight of telling the share of event frames of a sequence; method `tsm` only."""
    distill_on: str = setting("both", choices=DISTILLED)
    """Streams that are held against the teacher's predictions; method `distill` only."""
    distill_weight: float = setting(1.0, low=0.0)
    """Weight of the teacher's predictions; method `distill` only."""
    distill_temperature: float = setting(4.0, above=0.0, high=100.0)
    """Softens the teacher's and the network's predictions before they are compared; method `distill` only."""
    distill_until: float = setting(0.5, above=0.0, high=1.0)
    """Share of the run after which the teacher is no longer asked; method `distill` only."""
    teacher_steps: int = setting(1000, low=1)
    """Steps of 64 static images that the teacher is trained for, before the run; method `distill` without `teacher`
    only."""
    teacher: str = setting(
        "",
        choices=("",),
        otherwise=rf".+({'|'.join(map(re.escape, TEACHER_FILES))})({TEACHER_SUM}[0-9a-f]{{64}})?",
        called=f"a file ending in {' or '.join(TEACHER_FILES)}",
    )
    """File of a frozen image network to learn from, instead of one that is trained before the run: a torch.export
    program such as "dino.pt2" (`--trust`), or weights of one of the networks here (safetensors). The recipe takes
    over its SHA-256. Method `distill` only."""
    teacher_output: str = setting("features", choices=TEACHER_OUTPUTS)
    """What it gives: `features`, of which a linear probe on the static images' labels makes predictions, or `logits` of
    the shard set's classes in their order; with `teacher` only."""
    teacher_mean: tuple[float, ...] = setting((0.0,))
    """Taken from static images in [0, 1] before it sees them, one value or one per channel; with `teacher` only."""
    teacher_std: tuple[float, ...] = setting((1.0,), above=0.0)
    """What the difference is divided by; with `teacher` only."""
    simulation: str = setting(
        "saccades",
        choices=SIMULATIONS,
        otherwise=rf"{INLINE}.*|.*\{FILE}",
        called=f"the {FILE} file of a profile that `spikebridge calibrate` made",
    )
    """Camera and movement of the methods that simulate recordings, see `train.config.simulation_ranges`: `saccades`
    (N-MNIST, N-Caltech101), `smooth` curves in any direction, or, as a control, `mismatched`: saccades, but far from
    both. Or the file that `spikebridge calibrate` wrote, such as "camera.toml", whose content the recipe takes over; or
    `auto`: calibrated to the training recordings of the shard set, labels unused, before the run begins. Or no camera
    at all: `i2e`, differences of neighbouring pixels, see `train.data.images.i2e`."""
    i2e_ratio: float = setting(0.12, above=0.0, high=1.0)
    """Least difference of an event, relative to the image's range; its authors take 0.07 for CIFAR, 0.10 for MNIST,
    0.12 for ImageNet and Caltech, 0.15 for Fashion-MNIST. Simulation `i2e` only."""
    simulated_background: float = setting(0.0, low=0.0, high=1000.0)
    """Most events of background activity of a pixel in a simulated recording, beside the noise of the camera's profile:
    each recording draws its own from 0 on. See `SensorNoise` of `train.data.simulation`."""
    simulated_hot_pixels: float = setting(0.0, low=0.0, high=1.0)
    """Largest share of the pixels of a simulated recording that are hot: each recording draws its own from 0 on."""
    simulated_per_recording: int = setting(1, low=1, high=64)
    """Simulated recordings that go with each real one in a batch."""
    simulated_weight: float = setting(0.5, low=0.0, high=1.0)
    """Share of the simulated recordings in the loss; the real ones have the rest. Methods `simulate` and
    `self_training` only."""
    unlabelled_per_recording: int = setting(1, low=1, high=64)
    """Unlabelled recordings that go with each of a batch; methods `self_training` and `label_free` only."""
    unlabelled_weight: float = setting(1.0, low=0.0)
    """Weight of their loss; methods `self_training` and `label_free` only."""
    unlabelled_augmentation: str = setting("crop+drop_events+drop_area", choices=AUGMENTATIONS, joined=JOIN)
    """What is done to the frames of unlabelled recordings that the network learns from; their pseudo-labels are those
    of the frames as they are. Methods `self_training` and `label_free` only."""
    pseudo_label_threshold: float = setting(0.95, low=0.0, high=1.0)
    """Least probability of a pseudo-label that counts; methods `self_training` and `label_free` only."""
    self_training_from: float = setting(0.5, low=0.0, high=1.0)
    """Share of the run from which unlabelled recordings are learned from; methods `self_training` and `label_free`
    only."""
    least_steps: int = setting(0, low=0)
    """Steps of the whole run at least: with few recordings there are more epochs than `epochs`, and what is counted in
    epochs (`validate_every`, `warmup_epochs`, `milestones`) grows with them. Where `epochs` is set beside a recipe,
    with `--set epochs=10`, that of the recipe is not taken."""
    weight_average: float = setting(0.0, low=0.0, high=0.99999)
    """Decay of a moving average of the weights over steps, with which the network is validated, tested and kept: 0.99
    averages some 100 steps. 0 keeps the weights as they are."""
    sampling: str = setting("shuffle", choices=SAMPLINGS)
    """Order of the training recordings: `shuffle` (uniform, each once an epoch), `class_balanced` (with replacement),
    or `windowed` (each once, shuffled among neighbouring shards)."""
    sampling_window: int = setting(8, low=1)
    """Shards shuffled together; sampling `windowed` only."""
    augmentation: str = setting("none", choices=(*AUGMENTATIONS, *MIXINGS), joined=JOIN)
    """What is done to event frames in training, one name or several joined with `+`, e.g. `crop+drop_area`; applied
    from left to right. Static images are left alone. `cutmix` and `eventmix`, of which one may be among them, mix
    recordings of a batch and their labels; methods with a static stream refuse them."""
    event_augmentation: str = setting("none", choices=EVENT_AUGMENTATIONS, joined=JOIN)
    """What is done to the events in training before frames are made of them, as with `augmentation`, e.g.
    `drop_events+rotate`; for shard sets that store events."""
    events_per_class: int = setting(0, low=0)
    """Labelled training recordings per class, seeded and nested; 0 takes all."""
    events_share: float = setting(1.0, above=0.0, high=1.0)
    """Share of each class's training recordings that is labelled, rounded, at least one, seeded and nested;
    `events_per_class` 0 only."""
    validate_every: int = setting(1, low=1)
    """Epochs between two looks at the validation split; the last epoch always gets one."""
    selection: str = setting("validation", choices=SELECTIONS)
    """Split that picks the best epoch; `test` with protocol `leaky` only. Or `last`: the last epoch, so that no label
    picks any. Protocol `legacy` otherwise always picks on test."""
    adapt_normalization: bool = setting(False)
    """Before every scoring, mix the running statistics of BatchNorm with those of the recordings that are scored,
    labels unused (test-time adaptation); afterwards the trained ones are back."""
    adaptation_prior: float = setting(16.0, low=0.0)
    """Recordings that the trained statistics count as; 0 leaves them out. `adapt_normalization` only."""
    precision: str = setting("fp32", choices=PRECISIONS)
    """Arithmetic of convolutions and linear layers in training: `fp32`, `bf16`, `fp16`, or `auto`: what the device
    is fast in. All else, and scoring, is in fp32. See `train.networks.precision`."""
    accumulate: int = setting(1, low=1, high=1_000_000)
    """Parts that a batch is computed in, one after the other, for small memories: one update of `batch_size` samples.
    BatchNorm statistics and alignment are those of a part."""
    synchronize: bool = setting(False)
    """With several processes (torchrun): BatchNorm statistics and alignment over the batches of all of them."""
    seed: int = setting(0, low=0, high=2**63 - 1)
    """Root of all randomness of the run."""

    def __post_init__(self) -> None:
        values = asdict(self)
        _refuse(field_problems(type(self), values) + cross_problems(values))


def _refuse(problems: list[str]) -> None:
    if problems:
        raise RecipeError("settings", problems)


def shard_problems(values: Mapping[str, Any]) -> list[str]:
    """Return contradictions between settings of `[shards]` that no shard set fits; missing keys are skipped."""
    return [
        f"{name}: goes with {of} {only} only; {of} is {found}"
        for name, of, only in (
            ("tau_us", "reduction", "surface"),
            ("latest_events", "reduction", "tore"),
            ("window_us", "binning", "window"),
            ("events_per_bin", "binning", "count"),
        )
        if values.get(name) and (found := values.get(of)) and found != only
    ]


def cross_problems(values: Mapping[str, Any]) -> list[str]:
    """Return contradictions between settings of `[train]` of the right types; missing keys are skipped."""
    problems = [
        f"{name}: expected one value or one per channel, found none"
        for name in ("teacher_mean", "teacher_std")
        if not values.get(name, (0.0,))
    ]
    epochs, milestones = values.get("epochs"), values.get("milestones") or ()
    if epochs is not None and values.get("warmup_epochs", 0) > epochs:
        problems.append(f"warmup_epochs: {values['warmup_epochs']} is more than the run's {epochs} epochs")
    if milestones and values.get("schedule", "cosine") != "step":
        problems.append('milestones: only schedule = "step" has them')
    if not milestones and values.get("schedule") == "step":
        problems.append('milestones: schedule = "step" needs at least one, e.g. milestones = [40]')
    if any(later <= earlier for earlier, later in itertools.pairwise(milestones)):
        problems.append(f"milestones: {list(milestones)} do not increase")
    if epochs is not None and milestones and milestones[-1] >= epochs:
        problems.append(f"milestones: epoch {milestones[-1]} lies outside a run of {epochs} epochs")
    if values.get("step_weights", "published") != "published" and not values.get("regularization", True):
        problems.append(f'step_weights: "{values["step_weights"]}" has nothing to weigh with regularization = false')
    if values.get("method") == "tsm" and values.get("sliding", "power") == "off":
        problems.append(
            'sliding: method = "tsm" mixes by its course, and "off" never mixes; use power, linear or cosine'
        )
    mixing = [name for name in str(values.get("augmentation", "")).split(JOIN) if name in MIXINGS]
    if len(mixing) > 1:
        problems.append(
            f"augmentation: {' and '.join(mixing)} both mix labels, and a label is a pair of classes; keep one"
        )
    if mixing and values.get("method", MIXING_METHODS[0]) not in MIXING_METHODS:
        problems.append(
            f"augmentation: {mixing[0]} makes recordings of two classes, and method {values['method']} takes "
            "recordings of one: it pairs each with static images of its class; leave it out, or use "
            f"{', '.join(MIXING_METHODS)}"
        )
    if values.get("events_per_class") and values.get("events_share", 1.0) != 1.0:
        problems.append("events_share: only with events_per_class = 0")
    if values.get("accumulate", 1) > values.get("batch_size", math.inf):
        problems.append(f"accumulate: {values['accumulate']} parts of a batch of {values['batch_size']}")
    if values.get("schedule", "cosine") == "cosine" and values.get("lr_min", 1e-5) > values.get("lr", math.inf):
        problems.append(f"lr_min: the floor {values.get('lr_min', 1e-5)} is above lr {values['lr']}")
    return problems + _simulation_problems(values)


def _simulation_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a profile inside a recipe, and noise that nothing can show."""
    simulation = str(values.get("simulation", ""))
    if simulation == I2E:
        noise = [name for name in ("simulated_background", "simulated_hot_pixels") if values.get(name)]
        return [f'{name}: noise of a camera, and simulation = "{I2E}" has no camera; leave it out' for name in noise]
    if simulation.startswith(INLINE):
        try:
            profile_named(simulation)
        except RecipeError as error:
            return [f"simulation: {problem}" for problem in error.problems]
    return []


SMALLEST_BATCH = 64
"""Evaluation needs less memory than training, so small training batches are not kept."""


def evaluation_batch(settings: TrainSettings) -> int:
    """Return the batch size of evaluation; the recipe fixes it, so that a recomputed score has the same bits."""
    return max(settings.batch_size, SMALLEST_BATCH)
