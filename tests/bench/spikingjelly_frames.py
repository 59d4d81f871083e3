"""SpikingJelly's reader and frame integration in a process and an environment of its own.

It needs torchvision, of which CPU machines have no matching build, so it cannot live in the project's environment. In
the folder of this project, with the Python that made .venv; the second line lends it the packages of .venv:

    python3 -m venv SJ
    realpath .venv/lib/python3*/site-packages > SJ/lib/$(ls SJ/lib)/site-packages/project.pth
    SJ/bin/pip install --no-deps spikingjelly==2.0.0 torchvision loguru requests
    make bench-pipeline SPIKINGJELLY=SJ/bin/python

Protocol: first line in, JSON {"paths", "height", "width", "bins"}; then a line per round, answered by a line of JSON:
the number of events counted. The parent takes the time.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import torch

# torchvision without its compiled operators cannot be imported unless they are declared; none of them is called here.
OPERATORS = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    OPERATORS.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def only_the_frames() -> None:
    """Make `spikingjelly.datasets` importable without its other data sets, one of which needs torchaudio."""
    found = importlib.util.find_spec("spikingjelly")
    assert found is not None
    assert found.origin is not None
    package = ModuleType("spikingjelly.datasets")
    package.__path__ = [str(Path(found.origin).parent / "datasets")]
    sys.modules[package.__name__] = package


def main() -> None:
    """Answer one line per round."""
    only_the_frames()
    from spikingjelly.datasets.utils import integrate_events_by_fixed_frames_number, load_ATIS_bin

    task = json.loads(sys.stdin.readline())
    for _ in sys.stdin:
        total = 0
        for path in task["paths"]:
            frames = integrate_events_by_fixed_frames_number(
                load_ATIS_bin(path), "time", task["bins"], task["height"], task["width"]
            )
            total += int(frames.sum())
        print(json.dumps({"events": total}), flush=True)


if __name__ == "__main__":
    main()
