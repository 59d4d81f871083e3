"""Who may import whom, what training needs, and how fast help answers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

ALLOWED = {
    "pipeline": {"pipeline"},
    "models": {"models"},
    "train": {"train", "models", "pipeline"},
    "cli": {"pipeline", "models", "train"},
}
"""Packages of the project that each room may import."""
TRAINING_NEEDS = {"torch", "numpy", "h5py", "click", "tqdm", "safetensors"}
"""Installed packages that training from shards may import."""
SHARD_READERS = {
    "pipeline.errors",
    "pipeline.opening",
    "pipeline.shardset",
    "pipeline.split_frames",
    "pipeline.static_pool",
    "pipeline.manifest",
}
"""Modules of pipeline that training may import: numpy and h5py are all they need."""
PAGES = {"pipeline.inspection.html", "pipeline.inspection.paint", "pipeline.inspection.style"}
"""Modules of pipeline that the report may import besides: pages look the same everywhere."""
TERMINAL = {"pipeline.terminal", "pipeline.processors"}
"""Modules of pipeline that the verbs of training may import besides: all verbs speak alike and count alike."""
PICTURES = {"matplotlib", "PIL", "captum", "sklearn", "threadpoolctl"}
"""What the report may import besides; the last three inside functions, because they take seconds."""
CLUSTER = {"pipeline.cluster"}
"""Module of pipeline that the one file may import that trains in other processes: conversions work there, too."""
TONIC_FILES = {"tonic_datasets.py"}
"""Files that may import tonic, which takes three seconds."""


def modules(room: str) -> list[Path]:
    return [ROOT / "cli.py"] if room == "cli" else sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module}
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module in ALLOWED}
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_they_may(room):
    for path in modules(room):
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in ALLOWED or top in ALLOWED[room], f"{path} imports {name}"


def test_the_pipeline_needs_no_torch_and_only_one_file_tonic():
    for path in modules("pipeline"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert "torch" not in tops, path
        assert "webdataset" not in tops, path
        assert "tonic" not in tops or path.name in TONIC_FILES, path


def test_training_imports_only_shard_readers_of_the_pipeline():
    for path in modules("train"):
        used = {name for name in imports(path) if name.startswith("pipeline.")}
        more = PAGES if path.name.startswith("report") else TERMINAL if path.parent.name == "verbs" else set()
        more = CLUSTER if path.name == "workers.py" else more
        allowed = SHARD_READERS | more
        assert all(any(name == r or name.startswith(f"{r}.") for r in allowed) for name in used), (path, used)


def test_no_file_is_named_after_nothing():
    vague = {"util", "utils", "helper", "helpers", "common", "misc"}
    assert not [p for room in ALLOWED for p in modules(room) if p.stem in vague]


def loaded_by(code: str) -> set[str]:
    """Top-level packages in a fresh interpreter after running `code`."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_imports_nothing_heavy():
    heavy = {"torch", "numba", "numpy", "h5py", "tonic", "webdataset", "PIL", "matplotlib", "sklearn", "scipy"}
    assert not loaded_by("import cli") & heavy


def test_a_conversion_worker_imports_neither_torch_nor_tonic():
    assert not loaded_by("import pipeline.convert_tasks, pipeline.framing_kernel") & {"torch", "tonic", "webdataset"}


def test_training_imports_nothing_but_what_a_gpu_machine_has():
    loaded = loaded_by("import train.loop, train.evaluation, train.comparison")
    assert not loaded & {"tonic", "webdataset", "PIL", "matplotlib", "sklearn", "pandas"}
    for path in modules("train") + modules("models"):
        third_party = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - set(ALLOWED)
        kernels = {path.stem.rpartition("_")[2]} & {"numba", "triton", "nir"}
        more = PICTURES if path.name.startswith("report") else kernels
        assert third_party <= TRAINING_NEEDS | more, path
