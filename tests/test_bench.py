"""The benchmarks run to their end; nothing is said about their times."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from pipeline.formats.bin40 import encode
from pipeline.simulation import simulate
from pipeline.simulation_settings import SimulatorSettings


@pytest.mark.parametrize(
    ("script", "rows"), [("bench_pipeline.py", 6), ("bench_train.py", 6), ("bench_simulation.py", 2)]
)
def test_small_benchmark_runs(script, rows, tmp_path):
    command = [sys.executable, ROOT / "tests" / "bench" / script, "--small", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--json", tmp_path / "rows.json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads((tmp_path / "rows.json").read_text())
    assert len(found["rows"]) == rows
    assert all(row["what"] in done.stdout for row in found["rows"])
    assert set(found["machine"]) >= {"cpu", "cores", "load", "python", "numpy", "date"}
    timed = [row for row in found["rows"] if row["quantities"] is None]
    assert all(len(row["our_seconds"]) == len(row["their_seconds"]) == 1 for row in timed)


def test_the_training_simulator_is_fitted_to_recordings(tmp_path):
    """Two recordings of the pipeline's simulator stand for real ones."""
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 6:22, 12:16] = images[1, 12:16, 6:22] = 255
    np.save(tmp_path / "mnist_images.npy", images)
    for i, image in enumerate(images):
        events = simulate(image, settings=SimulatorSettings(), seed=0, key=str(i))
        (tmp_path / f"{i}.bin").write_bytes(encode(events))
    (tmp_path / "expected.csv").write_text("file\n0.bin\n1.bin\n")
    command = [sys.executable, ROOT / "tests" / "bench" / "fit_simulation.py", "--generations", "1"]
    done = subprocess.run([*command, "--recordings", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *settings = done.stdout.splitlines()
    assert float(first.split("'correlation': ")[1].split(",")[0]) > 0.6
    assert len(settings) == 16 + 3
