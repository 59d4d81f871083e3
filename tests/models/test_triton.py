"""The Triton kernels equal the torch backend and the oracle: in Triton's interpreter, or on CUDA where asked for.

SPIKEBRIDGE_TEST_DEVICE=cuda pytest tests/models/test_triton.py is what `make check-gpu` runs on a GPU.
"""

import importlib.util
import os

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed: pip install '.[triton]'", allow_module_level=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined: before the kernels are imported

from drawn_networks import draw_case
from golden import CASES as GOLDEN_CASES
from golden import check
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle

from spikebridge.models import SURROGATES, backends, fire_triton
from spikebridge.models.errors import BackendError
from spikebridge.models.fire_triton import channels_last
from spikebridge.models.layers import fire
from spikebridge.models.neurons import NEURONS, make_neuron
from spikebridge.models.normalization import STATISTICS, StepNorm

if DEVICE == "cpu":
    del os.environ["TRITON_INTERPRET"]  # which processes of other tests would take over


@pytest.fixture(scope="module", autouse=True)
def interpreter():
    """Kernels run in the interpreter that they were defined for."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
        yield


SPIKING = sorted(name for name, kind in NEURONS.items() if kind.spiking)


def run(backend, x, *, neuron, surrogate, reset, statistics, pool, potential, training=True, streams=(0, 1)):
    """Spikes, potential, gradients of x and all parameters, running statistics; None where there is none."""
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    C = x.shape[3]
    node = make_neuron(neuron, surrogate=surrogate, reset=reset).to(DEVICE, dtype)
    norm = None
    if statistics is not None:
        norm = StepNorm(C, statistics=statistics).to(DEVICE, dtype).train(training)
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 1.5, C))
            norm.bias.copy_(torch.linspace(-0.3, 0.4, C))
            norm.running_mean.add_(0.1)
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with backends.use(backend), backends.record() as ran:
        spikes, after = fire(leaf, node, norm, streams=streams, pool=pool, potential=potential)
    assert ran == {backend: 1}
    parts = [part.to(dtype) for part in (spikes, after) if part is not None]
    sum(
        (p * torch.linspace(-1, 2, p.numel(), dtype=dtype, device=DEVICE).view(p.shape)).sum() for p in parts
    ).backward()
    found = [spikes, after, leaf.grad, *(p.grad for p in node.parameters())]
    if norm is not None:
        found += [norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var, norm.num_batches_tracked]
    return found


def agree(x, rtol=1e-9, atol=1e-9, **how):
    for a, b in zip(run("triton", x, **how), run("torch", x, **how), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def frames(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 999),
    T=st.integers(1, 4),
    B=st.integers(1, 3),
    S=st.integers(1, 2),
    C=st.integers(1, 5),
    size=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    neuron=st.sampled_from(SPIKING),
    surrogate=st.sampled_from(sorted(SURROGATES)),
    reset=st.sampled_from(("hard", "soft")),
    statistics=st.sampled_from((None, *STATISTICS)),
    training=st.booleans(),
    pool=st.booleans(),
    potential=st.booleans(),
    channels=st.booleans(),
)
def test_one_layer_equals_torch_in_float64(seed, T, B, S, C, size, channels, **how):
    x = frames((B, S, T, C, *size), seed=seed)
    agree(channels_last(x) if channels else x, streams=tuple(range(S)), **how)


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@pytest.mark.parametrize("neuron", SPIKING)
def test_every_rule(neuron, surrogate):
    reset = "soft" if surrogate < "GateGrad" else "hard"
    x = frames((2, 1, 3, 4))  # [B,S,T,F]
    agree(x, neuron=neuron, surrogate=surrogate, reset=reset, statistics=None, pool=False, potential=True, streams=(1,))


@pytest.mark.parametrize(
    ("shape", "streams", "widest"),
    [
        ((2, 2, 2, 19, 11, 9), (0, 1), 16),
        pytest.param((2, 2, 2, 67, 11, 9), (0, 1), 64, marks=pytest.mark.long),
        ((6, 1, 1, 3, 21, 20), (1,), 16),
        pytest.param((40, 1, 1, 3, 21, 20), (1,), 64, marks=pytest.mark.long),
    ],
)
def test_many_tiles_and_channels_that_fill_none(monkeypatch, shape, streams, widest):
    if DEVICE == "cpu":  # the interpreter's own would be one tile
        monkeypatch.setattr(fire_triton, "TILE", 64 * widest)
        monkeypatch.setattr(fire_triton, "WIDEST", widest)
    how = {"neuron": "PLIF", "surrogate": "QGateGrad", "reset": "hard", "statistics": "per_step", "potential": True}
    agree(frames(shape), pool=len(streams) == 2, streams=streams, **how)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_narrow_storage_is_computed_in_float32(dtype):
    """Without BatchNorm inputs in steps of 1/64 are exact: no rounding can flip a spike."""
    x = (frames((2, 2, 3, 4, 5, 4), torch.float32) * 64).round().clamp(-127, 127).div(64).to(dtype)
    how = {"neuron": "LIF", "surrogate": "QGateGrad", "reset": "hard", "statistics": None, "potential": True}
    narrow = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    agree(x, rtol=narrow, atol=narrow, pool=True, **how)
    spikes, after, grad, *_ = run("triton", x, pool=True, **how)
    assert (spikes.dtype, after.dtype, grad.dtype) == (dtype, torch.float32, dtype)


def test_statistics_far_from_zero_in_float32():
    x = 1000 + frames((6, 1, 2, 3, 9, 9), torch.float32)
    how = {"neuron": "LIF", "surrogate": "QGateGrad", "reset": "hard", "statistics": "per_step", "pool": False}
    found = run("triton", x, potential=False, streams=(1,), **how)
    exact = run("torch", x.double(), potential=False, streams=(1,), **how)
    torch.testing.assert_close(found[-2].double(), exact[-2], rtol=1e-4, atol=0)  # running variance


LARGE = [("resnet18_snn", "both"), ("resnet18_snn", "event"), ("vgg_snn", "event")]
LARGE += [("vgg_snn", "both")] if DEVICE == "cpu" else []  # interpreted; each day its layers are, in the tests above
NETWORKS = [
    pytest.param(kind, streams, marks=pytest.mark.long if (kind, streams) in LARGE else ())
    for kind in ("vgg_snn", "resnet18_snn", "scnn")
    for streams in ("both", "event")
]


@pytest.mark.parametrize(("kind", "streams"), NETWORKS)
def test_whole_network_equals_the_oracle(kind, streams):
    net, static, event = draw_case(kind, T=2, B=2, size=9 if kind == "resnet18_snn" else 16, seed=3)
    static = None if streams == "event" else static
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    oracle = Oracle(kind, {**{name: b.clone() for name, b in net.named_buffers()}, **weights})
    expected = [part for part in oracle(static, event) if part is not None]
    net.to(DEVICE)
    with backends.use("triton"), backends.record() as ran:
        out = net(None if static is None else static.to(DEVICE), event.to(DEVICE))
    assert set(ran) == {"triton"}
    found = [(out.event_logits, out.event_features)]
    if static is not None:
        found.insert(0, (out.static_logits, out.static_features))
    scalar, oracle_scalar = 0.0, 0.0
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-9)
            mix = torch.linspace(-1, 1, b.numel(), dtype=b.dtype).view_as(b)
            scalar, oracle_scalar = scalar + (a.cpu() * mix).sum(), oracle_scalar + (b * mix).sum()
    scalar.backward()
    oracle_scalar.backward()
    for name, parameter in net.named_parameters():
        if weights[name].grad is not None:
            torch.testing.assert_close(parameter.grad.cpu(), weights[name].grad, rtol=1e-9, atol=1e-9)
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(buffer.cpu(), oracle.state[name], rtol=1e-9, atol=1e-9)


def test_layers_leave_channels_last():
    x = channels_last(frames((2, 1, 2, 8, 4, 4), torch.float32))
    with backends.use("triton"):
        spikes, after = fire(
            x, make_neuron("LIF", surrogate="QGateGrad", reset="hard"), pool=True, potential=True, streams=(1,)
        )
    for part in (spikes, after):
        assert part.flatten(0, 2).is_contiguous(memory_format=torch.channels_last)


def test_what_it_refuses():
    node = make_neuron("LIF", surrogate="QGateGrad", reset="hard")
    with backends.use("triton"), pytest.raises(BackendError, match="17 time steps"):
        fire(torch.zeros(1, 1, 17, 2), node)
    assert backends.choose(torch.zeros(1, 1, 1, 1), node.rule) != "triton"  # the interpreter is never the default


@pytest.mark.skipif(DEVICE == "cuda", reason="triton compiles for the card at hand")
@pytest.mark.parametrize(("learned", "pool"), [(False, True), (True, False)])
@pytest.mark.long  # each day test_pretended_step compiles the kernels as a step launches them
def test_kernels_compile_for_a_gpu_that_is_not_there(learned, pool, tmp_path):
    """The interpreter takes more than the compiler does: compile every kernel for sm_90, T=10, fp16 storage."""
    import subprocess
    import sys

    code = f"""
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from spikebridge.models import kernels_triton as kernels

def check(kernel, pointers, integers, **constants):
    names = kernel.arg_names
    kinds = {{n: pointers.get(n, "i32" if n in integers else "constexpr") for n in names}}
    source = ASTSource(kernel, kinds, constexprs={{(names.index(n),): value for n, value in constants.items()}})
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]

half, full = "*fp16", "*fp32"
rule = dict(T=10, ACC=tl.float32, NORM=True, POOL={pool}, K={0.0 if learned else 0.5}, LEAKY=True, HARD=True,
            THRESHOLD=0.5, AT_THRESHOLD=False, BLOCK_P=16, BLOCK_C=64)
affine = dict.fromkeys(["scale", "shift", "mean", "gain", "slant", "offset", "learned_k"], full)
check(kernels.forward, dict(affine, x=half, spikes=half, after=full), "SHWC", POTENTIAL=True, **rule)
for sums in (True, False):
    tensors = dict(affine, x=half, grad_spikes=half, grad_after=full, grad_x=half, sums=full, grad_k=full)
    check(kernels.backward, tensors, "SHWC", FROM_SPIKES=True, FROM_AFTER=True, SUMS=sums, GRAD_X=not sums,
          KIND=0, ALPHA=2.0, **rule)
check(kernels.moments, dict(x=half, means=full, squares=full), "BSPC", T=10, ACC=tl.float32, TILES=4, AHEAD=4,
      BLOCK_N=16, BLOCK_C=64)
"""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_published_figures(name):
    check(name, "triton", device=DEVICE)
