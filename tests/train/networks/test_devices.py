"""Which device a run takes, on machines that are not there."""

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from torch._subclasses.fake_tensor import FakeTensorMode

from spikebridge.models import backends, build_model
from spikebridge.models.errors import BackendError
from spikebridge.models.neurons import make_neuron
from spikebridge.train.errors import DeviceError
from spikebridge.train.networks import precision
from spikebridge.train.networks.build import choose_device, require_backend
from spikebridge.train.networks.precision import resolve_precision, tf32
from spikebridge.train.trainer.run import train


@pytest.fixture
def two_gpus(monkeypatch):
    """Two CUDA devices, as far as asking goes; returns those that were made the current one."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_a_device_that_is_named_becomes_the_current_one(two_gpus):
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert two_gpus == [torch.device("cuda:1")]


def test_whichever_is_current_stays_so_where_none_is_named(two_gpus):
    assert {choose_device("auto"), choose_device("cuda")} == {torch.device("cuda")}
    choose_device("cpu")
    assert not two_gpus


def test_devices_that_are_not_there(two_gpus, monkeypatch):
    with pytest.raises(DeviceError, match="cuda:2: this machine offers 2 CUDA devices"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="offers 0 CUDA devices"):
        choose_device("cuda")
    assert not two_gpus


@pytest.fixture
def card(monkeypatch):
    """A GPU of a compute capability, as far as asking goes."""

    def make(*capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Card")

    return make


@pytest.fixture(autouse=True)
def nothing_was_said():
    precision._say_once.cache_clear()


CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capability", "found"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((7, 0), "fp32")]
)
def test_precision_auto_is_what_the_card_is_fast_in(card, caplog, capability, found):
    card(*capability)
    with caplog.at_level("INFO"):
        assert [resolve_precision("auto", CUDA) for _ in range(2)] == [found] * 2
    said = f"precision auto: {found} (Card, compute capability {capability[0]}.{capability[1]})"
    assert caplog.text.count(said) == 1


@pytest.mark.parametrize(("flags", "found"), [("avx2", "fp32"), ("avx512_bf16", "fp32"), ("amx_bf16 amx_tile", "bf16")])
def test_precision_auto_on_a_cpu(monkeypatch, caplog, flags, found):
    monkeypatch.setattr(precision.Path, "read_text", lambda _: f"processor : 0\nflags : fpu {flags}\n")
    with caplog.at_level("INFO"):
        assert resolve_precision("auto", CPU) == found
    assert f"precision auto: {found} (this CPU has {'' if found == 'bf16' else 'no '}matrix units" in caplog.text


def test_a_card_without_bf16_is_refused_by_name(card):
    card(7, 5)
    with pytest.raises(DeviceError, match=r'bf16: Card, compute capability 7.5 has no units.*use precision = "fp16"'):
        resolve_precision("bf16", CUDA)
    assert resolve_precision("fp16", CUDA) == "fp16"
    card(8, 0)
    assert resolve_precision("bf16", CUDA) == "bf16"


def test_fp32_on_a_card_points_at_16_bits(card, caplog):
    card(8, 9)
    with caplog.at_level("INFO"):
        assert resolve_precision("fp32", CUDA) == "fp32"
    assert "--set precision=auto" in caplog.text


def test_tf32_is_set_and_recorded(card, two_gpus, tmp_path, monkeypatch):
    before = [getattr(torch.backends.cudnn, name) for name in ("allow_tf32", "benchmark")]
    card(8, 0)
    try:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = False, True
        choose_device("auto")
        assert torch.backends.cudnn.benchmark
        assert tf32(CUDA) == {"convolutions": True, "matrix_products": False}
        card(7, 5)
        assert tf32(CUDA) == {"convolutions": False, "matrix_products": False}
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before
        torch.backends.cuda.matmul.allow_tf32 = False
    recipe = tiny_recipe(precision="auto", epochs=1)
    assert recipe != tiny_recipe(epochs=1)
    monkeypatch.setattr("spikebridge.train.networks.precision._cpu_has", lambda units: False)
    result = train(FakeShardSet(tmp_path / "shards"), recipe, tmp_path / "run", device="cpu")
    assert (result["precision"], result["tf32"]) == ("fp32", None)


def test_triton_is_tried_before_a_run_is_begun(monkeypatch):
    fire_triton, tried = pytest.importorskip("spikebridge.models.fire_triton"), []
    monkeypatch.setattr(backends, "choose", lambda *_: "triton")
    monkeypatch.setattr(fire_triton, "try_triton", lambda _, **how: tried.append(how))
    settings = {"num_classes": 3, "time_steps": 4, "width": 0.1}
    with FakeTensorMode():
        network = build_model("scnn", **settings)
        assert require_backend(network, precision="bf16", device=CUDA) == "triton"
    assert tried == [{"device": CUDA, "dtype": torch.bfloat16}]
    assert require_backend(build_model("scnn", **settings), precision="fp32", device=CPU) == "triton"
    assert len(tried) == 1


def test_why_triton_does_not_run_and_what_does_without(monkeypatch):
    fire_triton = pytest.importorskip("spikebridge.models.fire_triton")

    def breaks(*_, **how):
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    monkeypatch.setattr(fire_triton, "fire", breaks)
    with pytest.raises(BackendError, match=r"Failed to find C compiler.*gcc, python3-dev.*--backend torch"):
        fire_triton.try_triton(make_neuron("LIF", surrogate="QGateGrad", reset="hard"), device=CPU, dtype=torch.float32)
