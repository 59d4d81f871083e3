"""The step that a CUDA graph would hold, taken on the CPU and counted."""

import pytest
import torch

from spikebridge.train.trainer import epochs
from spikebridge.train.trainer.cuda_graph import DeviceStep

CPU = torch.device("cpu")
RECIPE = {"batch_size": 5, "sampling": "class_balanced", "weight_decay": 0.1}  # 24 samples: a last batch of 4


DROPOUT = {"model": "nmnist_snn", "width": 0.05}


class Watched(DeviceStep):
    """Steps that were taken on the device; takes and undoes some before the first, as a recording does."""

    taken = ()

    def launch(self, samples):
        if not Watched.taken:
            with self.state_restored():
                for _ in range(3):
                    self.compute(samples)
        Watched.taken = (*Watched.taken, int(self._step))
        self.compute(samples)


@pytest.fixture
def on_device(monkeypatch):
    monkeypatch.setattr(Watched, "taken", ())
    monkeypatch.setattr(epochs, "why_not_capturable", lambda *_: None)
    monkeypatch.setattr(epochs, "CudaGraphStep", Watched)
