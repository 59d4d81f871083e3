"""The benchmarks run to their end; nothing is said about their times."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize(("script", "rows"), [("bench_pipeline.py", 6), ("bench_train.py", 6)])
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
