"""The whole device step without a device: nothing in it waits or depends on numbers, and it stays as small as it is.

Operations, live memory, and registers of the compiled kernels are ratchets: lower a figure when a step gets smaller.
"""

import json
import os
import sys

import pytest
import torch
from conftest import ROOT, SUPPORT
from fake_shards import tiny_recipe
from forked import run_forked

pytest.importorskip("triton", reason="triton is not installed")

from pretended_device import PretendedShards, Watch, take_step

from spikebridge.train.config.settings import AUGMENTATIONS, JOIN, METHODS, MIXINGS, MODELS, TrainSettings
from spikebridge.train.methods import find_method

SIZES = {"vgg_snn": 16, "resnet18_snn": 12, "resnet34_snn": 12, "scnn": 16, "nmnist_snn": 8, "speck_snn": 16}
PHASES = dict.fromkeys(("pretrain", "distill", "simulate_pretrain", "self_training", "label_free"), (0, 99))
"""A step of 100 in each phase of the methods that have several."""
SELDOM = {("self_training", 0), ("label_free", 0), ("label_free", 99)}
"""Of these steps each operation is in another one, too."""


def step_of(model="scnn", *, T=2, precision="bf16", number=0, by="triton", **recipe):
    recipe = {"events_per_class": 3 if recipe.get("method") == "self_training" else 0, **recipe}
    settings = tiny_recipe(model=model, width=0.1, batch_size=6, precision=precision, **recipe).train
    shards = PretendedShards(T=T, size=SIZES[model], K=3, samples=18, images=9)
    return take_step(settings, shards, number=number, by=by)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    from spikebridge.train.networks import precision

    monkeypatch.setattr(precision, "cpu_computes", lambda _: True)


STEPS = [
    pytest.param(
        *(method, number, model),  # each day of `kt` also those whose operations are counted below
        marks=(
            ()
            if (model == "scnn" and (method, number) not in SELDOM) or (method, model) == ("kt", "nmnist_snn")
            else pytest.mark.long
        ),
        id=f"{method}-{number}-{model}",
    )
    for method in METHODS
    for number in PHASES.get(method, (0,))
    for model in MODELS
]


@pytest.mark.parametrize(("method", "number", "model"), STEPS)
def test_no_step_looks_at_a_number(method, number, model):
    """A look raises under fake tensors: item, nonzero, a branch on a value."""
    assert vars(find_method(method))["capturable"]
    trace = step_of(model, method=method, number=number)
    assert {"triton.forward", "triton.backward", "_fused_adamw_"} <= set(trace.operations)
    simulates = find_method(method).simulates and not (method == "simulate_pretrain" and number)
    assert trace.operations.count("triton.cameras") == trace.operations.count("triton.events") == simulates


def test_noisy_recordings_are_simulated_without_triton_too():
    trace = step_of(method="simulate_kt", by="torch", simulated_background=4.0, simulated_hot_pixels=0.03)
    assert not trace.launches


@pytest.mark.long
def test_i2e_looks_at_no_number():
    assert step_of(method="simulate_only", simulation="i2e", by="torch").operations


@pytest.mark.parametrize("names", [JOIN.join(AUGMENTATIONS), *(f"crop+{name}+flip" for name in MIXINGS)])
def test_no_augmentation_looks_at_a_number(names):
    assert step_of(method="event_only", augmentation=names).operations


@pytest.mark.parametrize(
    "switch",
    [
        {"cka": "debiased", "feature": "before_reset"},
        {"tet": False, "regularization": False},
        {"feature": "spikes", "step_weights": "normalized"},
        {"sliding": "step", "coefficient": "scheduled", "coefficient_end": 0.0},
        {"partners": "shuffled", "neuron": "PLIF"},
        {"precision": "fp32", "reset": "soft", "surrogate": "SigmoidGrad"},
    ],
    ids="-".join,
)
def test_no_switch_looks_at_a_number(switch):
    assert step_of(**switch).operations


def test_a_look_is_found():
    class Looking(Watch):
        pass

    x = torch.zeros(3)
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

    with FakeTensorMode() as mode, Looking(step_of()), pytest.raises(DataDependentOutputException):
        float(mode.from_tensor(x).sum())


BUDGETS = {"vgg_snn": (48, 101, 10, 120), "resnet18_snn": (48, 20, 6, 120), "scnn": (28, 1623, 12, 16)}
"""Size, K, T and B of the published cases."""


def published(model, *, T=None, B=None, width=1.0):
    size, K, most_steps, samples = BUDGETS[model]
    settings = TrainSettings(
        method="kt", model=model, epochs=100, batch_size=B or samples, lr=1e-3, precision="bf16", augmentation="crop",
        width=width,
    )  # fmt: skip
    shards = PretendedShards(T=T or most_steps, size=size, K=K, samples=2 * (B or samples), images=2 * K)
    return take_step(settings, shards)


@pytest.mark.parametrize(("model", "most"), [("vgg_snn", 299), ("resnet18_snn", 489), ("scnn", 219)])
def test_operations_of_a_step(model, most):
    """Whatever T, B and width are: the number of launches does not depend on them."""
    assert len(published(model, T=2, B=4, width=0.1).operations) <= most


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "most", "megabytes"), [("vgg_snn", 299, 6190), ("resnet18_snn", 489, 5480), ("scnn", 219, 41)]
)
def test_operations_and_memory_of_a_whole_step(model, most, megabytes):
    trace = published(model)
    assert len(trace.operations) <= most
    assert trace.peak_bytes / 1e6 <= megabytes


def compiled(tmp_path, *arguments):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(SUPPORT)])
    command = [sys.executable, SUPPORT / "compiled.py", *map(str, arguments)]
    done = run_forked(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["kernel"] for each in found} >= {"forward", "backward", "moments", "finish", "through_norm"}
    return found


def test_kernels_of_a_short_step_compile_as_they_are_launched(tmp_path):
    """With the compiler's own specialisation; two time steps compile in seconds."""
    found = compiled(tmp_path, "nmnist_snn", "simulate_kt", "bf16", 2, 4, 1.0, "sm_90")
    assert {"cameras", "events"} <= {each["kernel"] for each in found}
    for each in found:
        assert each["reg"] <= 96, each
        assert each["stack"] == 0, each


@pytest.mark.long
@pytest.mark.parametrize("target", ["sm_75", "sm_90", "sm_120", "gfx942"])
def test_registers_and_stack_of_every_kernel(tmp_path, target):
    precision = "fp16" if target == "sm_75" else "bf16"
    for each in compiled(tmp_path, "--listed", "vgg_snn", "simulate_kt", precision, 10, 120, 1.0, target):
        assert each["reg"] <= 128, each
        assert each["stack"] <= 64 * ("SUMS" in each["variant"] or each["kernel"] == "cameras"), each
        if each["kernel"] == "backward" and target == "sm_90":
            assert each["barriers"] <= 99, each
            assert each["loads_after_store"] <= 27, each
