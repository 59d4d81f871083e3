"""Cameras whose settings are known, and recordings of them as the simulator of training makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits

from spikebridge.pipeline.images.decode import to_static
from spikebridge.train.calibration.parameters import CAMERA, CHOSEN, LEG, STEADY
from spikebridge.train.config.simulation_ranges import FINE_INSTANTS, LANES, Leg, Profile, SimulationRanges
from spikebridge.train.data.simulation import SensorGrid, simulate_frames, simulation_draws

SHOWN = 0.8


def digit_images(count: int, size: int, *, seed: int = 0) -> torch.Tensor:
    """Digits [n,1,S,S] of many writers, on a sensor of their own size."""
    images = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    drawn = images[np.random.default_rng(seed).permutation(len(images))[:count]]
    placed = [
        to_static(np.repeat(i[..., None], 3, -1), size=size, encoding="v", canvas=(size, size), shown_fraction=SHOWN)
        for i in drawn
    ]
    return torch.from_numpy(np.stack(placed)).float() / 255


@dataclass(frozen=True)
class KnownCamera:
    values: dict[str, float]
    legs: tuple[Leg, ...]
    inverted: bool

    @classmethod
    def drawn(cls, seed: int, *, legs: int | None = None, pixels: float = 1.0) -> KnownCamera:
        """A camera from within what the fit expects; saccades of 3 to 6 times `pixels`."""
        random = np.random.default_rng(seed)
        values = {p.name: p.value(float(np.clip(0.7 * random.standard_normal(), -1.5, 1.5))) for p in CAMERA}
        values |= {name: random.uniform(-2, 2) * pixels for name in ("x_start", "y_start")}
        inverted, count = bool(random.integers(2)), legs or int(random.integers(1, 4))
        path = []
        for i in range(count):
            angle, length = random.uniform(0, 2 * np.pi), random.uniform(3, 6) * pixels
            late, long = random.uniform(0.02, 0.08), random.uniform(0.6, 0.85)
            path.append(Leg(length * np.cos(angle), length * np.sin(angle), i / count + late, long / count))
        for i, leg in enumerate(path, 1):
            values |= {f"leg_{i}_{part}": getattr(leg, part) for part in LEG}
        values |= {"rest": random.uniform(0.1, 0.9)}
        return cls(values, tuple(path), inverted)

    def profile(self, *, surround: float | None = None) -> Profile:
        """Return the camera as the simulator takes it, with what makes its recordings differ."""
        known = {name: (value, value) for name, value in self.values.items() if name in LANES}
        ranges = SimulationRanges(**CHOSEN | known)
        return Profile(
            ranges, self.legs, inverted=self.inverted, surround=surround, rest=self.values["rest"], appeared=True,
            blind_after=True, blurs_light=True, lateness=STEADY,
        )  # fmt: skip

    def frames(
        self, images: torch.Tensor, *, time_bins: int, seed: int = 1000, surround: float | None = None
    ) -> torch.Tensor:
        """Frames [T,n,2,S,S] of a recording of each image."""
        size = images.shape[-1]
        grid = SensorGrid(size, (size, size), "sum")
        draws = simulation_draws(seed, 0, torch.arange(len(images)), grid, device=torch.device("cpu"))
        profile = self.profile(surround=surround)
        return simulate_frames(images, draws, grid, time_bins=time_bins, profile=profile, instants=FINE_INSTANTS)
