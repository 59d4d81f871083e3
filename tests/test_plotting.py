"""`spikebridge.plot`, what data sets print, and the notebook of the documentation."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from conftest import ROOT, make_events
from own_folders import put_recording
from run_folders import whole_and_half

from spikebridge import ShardDataset, plot, plotting
from spikebridge.pipeline.base.errors import SettingsError

NOTEBOOK = ROOT / "docs" / "tutorials" / "notebook.ipynb"
PACKAGES = ("nbclient==0.10.2", "nbformat==5.10.4", "ipykernel==6.30.1")
EXECUTE = """
import sys
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbformat.validate(notebook)
nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
print(sum("image/png" in output.get("data", {}) for output in outputs))
print("".join(output.get("text", "") or str(output.get("data", {}).get("text/plain", "")) for output in outputs))
"""


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in [axes.title, *axes.texts]] + [
        t.get_text() for t in figure.texts
    ]


def test_a_sample_of_a_set_has_its_name_and_its_static_image(shard_set):
    data = ShardDataset(shard_set(), "train")
    found = texts(plot(data, -1))
    assert f"{data.keys[-1]} (SIMULATED)" in found
    assert "static partner" in found
    frames = data[0][0]
    assert "label 2" in texts(plot((frames, 2)))
    assert "mine" in texts(plot(frames, title="mine"))
    assert plot(frames)._repr_png_().startswith(b"\x89PNG")


def test_a_recording_is_drawn_from_its_file_or_its_events(tmp_path):
    events = make_events(0, size=(30, 20))
    put_recording(tmp_path / "one.dat", events, size=(30, 20))
    for figure in (plot(tmp_path / "one.dat"), plot(events)):
        assert "event rate" in texts(figure)


def test_a_run_is_drawn(made_once):
    figure = plot(whole_and_half(made_once) / "whole")
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss (nats)", "accuracy in %"]
    assert all(axes.lines for axes in figure.axes)


@pytest.mark.parametrize("what", [3, {}, numpy.zeros((2, 5, 5)), numpy.zeros((0, 2, 5, 5)), "nowhere"])
def test_anything_else_is_refused(what):
    with pytest.raises(SettingsError, match="expected a data set and an index"):
        plot(what)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(plotting, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"matplotlib.*\[report\]"):
        plot(numpy.ones((1, 2, 3, 3)))


def test_data_sets_say_what_they_are(shard_set):
    data = ShardDataset(shard_set(), "train")
    assert repr(data).startswith(
        f"ShardDataset(train of {shard_set()}: {len(data)} samples [4x2x12x12] uint8, 10 classes"
    )
    assert data.shards.id[:12] in repr(data.shards)
    assert "SIMULATED" in repr(data)
    assert repr(data.shards.split("test")) == "Split(9 samples [4x2x12x12] uint8)"
    assert repr(data.shards.static_pool()).startswith("StaticImages(")
    for index in (len(data), -len(data) - 1):
        with pytest.raises(IndexError, match=f"index {index} is out of range: split train has {len(data)} samples"):
            data[index]


def cells(kind):
    notebook = json.loads(NOTEBOOK.read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_holds_code_and_no_output():
    for text in cells("code"):
        ast.parse(text)
    stored = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in stored)


@pytest.mark.long
def test_the_notebook_runs(tmp_path):
    """In an environment with Jupyter's own programs, which this project does not need."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True, capture_output=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "project.pth").write_text(str(Path(numpy.__file__).parents[1]))
    (tmp_path / "work").mkdir()
    more = {"JUPYTER_PREFER_ENV_PATH": "1", "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
    command = [python, "-c", EXECUTE, NOTEBOOK]
    done = subprocess.run(
        command, cwd=tmp_path / "work", env={**os.environ, **more}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pictures, _, printed = done.stdout.partition("\n")
    assert int(pictures) == sum(text.splitlines()[-1].startswith("plot(") for text in cells("code"))
    assert "SIMULATED" in printed
    assert "Predictions" in printed
