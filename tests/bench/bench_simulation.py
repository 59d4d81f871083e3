"""What simulated recordings cost beside the training step that they are made for.

Command:   python tests/bench/bench_simulation.py [--rounds 5] [--json FILE]
Theirs:    forward, loss, backward and AdamW of `event_only` on 20 recordings and 20 simulated ones (SCNN, T=10, 28x28)

Axes: T time, B batch, P polarity, H, W.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rounds import Row, arguments, compare, report  # isort: skip  (sets the number of threads)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import numpy as np
import torch

from spikebridge.models import build_model
from spikebridge.train.data.simulation import Simulator
from spikebridge.train.losses import classification_loss

MANIFEST = {"sensor_size": [34, 34], "settings": {"reduction": "sum"}}


def rows(*, small: bool, rounds: int) -> list[Row]:
    """One row per profile of camera and movement."""
    B, T, size = (4, 2, 16) if small else (20, 10, 28)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((B, 1, size, size), generator=generator)
    labels = torch.arange(2 * B) % 10
    torch.manual_seed(0)
    net = build_model("scnn", num_classes=10, time_steps=T, input_size=size).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    found = []
    for profile in ("saccades", "smooth"):
        simulator = Simulator(MANIFEST, (T, 2, size, size), profile=profile, seed=0)
        events = torch.cat([simulator.frames(images, epoch=0, draws=np.arange(B)) for _ in range(2)], 1)

        def simulate(number: int, simulator: Simulator = simulator) -> None:
            simulator.frames(images, epoch=number, draws=np.arange(B))

        def train(_: int, events: torch.Tensor = events) -> None:
            optimizer.zero_grad(set_to_none=True)
            classification_loss(net(None, events).event_logits, labels, tet=True).backward()
            optimizer.step()

        row = Row(f"{profile}, T={T}, {size}x{size}", "simulated", "in a training step", "sequences", B, 2 * B)
        found.append(compare(row, simulate, train, rounds=rounds, our_repeats=1 if small else 4))
    return found


def main() -> None:
    """Time and print."""
    given = arguments("Simulated recordings beside the training step that they are made for.")
    torch.set_num_threads(1)
    report(rows(small=given.small, rounds=given.rounds), packages=("torch", "numpy"), given=given)


if __name__ == "__main__":
    main()
