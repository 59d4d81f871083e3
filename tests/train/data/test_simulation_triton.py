"""The simulator's Triton kernels give the recordings of its torch code: in Triton's interpreter, or on CUDA."""

import importlib.util
from dataclasses import replace

import pytest
import torch

from spikebridge.models import backends
from spikebridge.pipeline.measurement.hot_pixels import HotPixel
from spikebridge.train.data.simulation import SensorNoise, Simulator

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed: pip install '.[triton]'", allow_module_level=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")  # read when a kernel is defined
        importlib.import_module("spikebridge.train.data.simulation_triton")


def photographs(n, size, channels):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, size, size, generator=generator)
    x[:, :, 3:-3, 4:-4] = 1.0
    return (x * torch.linspace(0.5, 1, channels)[:, None, None]).to(DEVICE)


@pytest.mark.parametrize(
    ("profile", "surround", "sensor", "reduction", "channels", "noise", "appeared", "either", "blind"),
    [
        ("saccades", 0.3, (14, 13), "bilinear", 1, None, True, True, True),
        ("smooth", None, (40, 30), "sum", 2, SensorNoise(2.0, 0.01), True, False, False),
        ("saccades", 0.3, (14, 13), "sum", 1, None, False, False, False),
        ("saccades", None, (12, 12), "sum", 1, None, False, True, True),
    ],
)
def test_recordings_are_those_of_torch(
    monkeypatch, profile, surround, sensor, reduction, channels, noise, appeared, either, blind
):
    """Roundings tip a count here and there; random numbers, settings and the path are the same."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    manifest = {"sensor_size": sensor, "settings": {"reduction": reduction}}
    simulator = Simulator(manifest, (2, 2, 12, 12), profile=profile, seed=5, noise=noise)
    own = {
        "appeared": appeared,
        "rest": 0.6,
        "rest_spread": 0.5,
        "either_sign": True,
        "blind_after": blind,
        "blurs_light": blind,
    }
    own["either_begin"] = either
    if blind:
        own["ranges"] = replace(simulator.profile.ranges, dead_time=(0.01, 0.3))
        own["fitted_size"] = (0.7, 1.2)
    if surround:
        steps = ((0.5, -1.0), (2.0, 0.3), (-0.4, 0.0))
        own |= {"steps": steps, "lateness": 0.1, "hot_pixels": (HotPixel(13, 0, 8.0, 1.5),)}
    simulator.profile = replace(simulator.profile, surround=surround, **own)
    images = photographs(3, 12, channels).expand(-1, 2, -1, -1)
    epoch, draws = torch.tensor(3, device=DEVICE), torch.tensor([7, 0, 2**33], device=DEVICE)
    with backends.use("triton"):
        found = simulator.frames(images, epoch=epoch, draws=draws)
    with backends.use("torch"):
        expected = simulator.frames(images, epoch=epoch, draws=draws)
    assert found.shape == expected.shape == (2, 3, 2, 12, 12)
    assert expected.sum() > 50
    assert ((found - expected).abs() > 1e-3).float().mean() < 5e-3
    torch.testing.assert_close(found.sum(), expected.sum(), rtol=5e-3, atol=0)
