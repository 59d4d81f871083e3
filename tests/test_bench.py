"""The benchmarks run to their end; nothing is said about their times."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from forked import run_forked
from PIL import Image

from spikebridge.cli import main
from spikebridge.pipeline.containers import idx
from spikebridge.pipeline.formats.bin40 import encode
from spikebridge.pipeline.images.decode import hash_pixels
from spikebridge.pipeline.simulation.camera import simulate
from spikebridge.pipeline.simulation.settings import SimulatorSettings
from spikebridge.train.networks.precision import cpu_computes


@pytest.mark.parametrize(
    ("script", "rows"),
    [
        pytest.param("bench_pipeline.py", 12, marks=pytest.mark.long),
        ("bench_gpu.py", 10),
        pytest.param("bench_train.py", 9, marks=pytest.mark.long),
        pytest.param("bench_simulation.py", 2, marks=pytest.mark.long),
    ],
)
def test_small_benchmark_runs(script, rows, tmp_path):
    command = [sys.executable, ROOT / "tests" / "bench" / script, "--small", "--rounds", "1"]
    if script == "bench_gpu.py":
        command += ["--device", "cpu"]
    command += ["--json", tmp_path / "rows.json"]
    done = run_forked(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    if script == "bench_gpu.py":
        assert "golden figures on cpu by numba: equal" in done.stderr
        assert "golden figures on cpu by torch: equal" in done.stderr
    else:
        assert done.stderr == ""
    found = json.loads((tmp_path / "rows.json").read_text())
    if script == "bench_train.py":
        rows += 4 * cpu_computes("bf16")
        assert ("left out" in found["machine"]) != cpu_computes("bf16")
    assert len(found["rows"]) == rows
    assert all(row["what"] in done.stdout for row in found["rows"])
    assert set(found["machine"]) >= {"cpu", "cores", "load", "python", "numpy", "date"}
    timed = [row for row in found["rows"] if row["quantities"] is None]
    assert all(len(row["our_seconds"]) == len(row["their_seconds"]) == 1 for row in timed)


PRETENDED = """
import json, logging, pathlib, sys, types
sys.path.insert(0, str(pathlib.Path(sys.argv[1]) / "tests" / "bench"))
import bench_train
from spikebridge.train.networks import precision

logging.disable(logging.WARNING)
found = {}
for flags in sys.argv[2:]:
    precision.Path = lambda _: types.SimpleNamespace(read_text=lambda: f"flags : fpu {flags}")
    rows = [row for case in bench_train.SMALL_CASES for row in bench_train.bf16_rows(case, rounds=1, repeats=1)]
    assert {row.ours for row in rows} == {"(numba) in bf16"}
    told = [(row.theirs, row.bars[1], len(row.our_seconds), row.ratios) for row in rows]
    found[flags] = told, bench_train.left_out()
print(json.dumps(found))
"""


def test_steps_in_bf16_are_timed_where_the_cpu_has_units_for_it():
    """What they keep is shown everywhere; speed has a bar where the CPU has matrix units."""
    plain, dots, matrices = "avx2", "avx512_bf16", "avx512_bf16 amx_tile amx_bf16"
    command = [sys.executable, "-c", PRETENDED, ROOT, plain, dots, matrices]
    found = json.loads(run_forked(command, check=True, capture_output=True).stdout)
    kept, free = [("in fp32", 0.6, 0), ("in fp32", None, 0)], ("step by step, in fp32", None, 1)
    expected = {plain: kept}
    for flags, bar in ((dots, None), (matrices, 1.8)):
        expected[flags] = [kept[0], ("in fp32", bar, 1), free, kept[1], ("in fp32", None, 1), free]
    assert {flags: [tuple(row[:3]) for row in rows] for flags, (rows, _) in found.items()} == expected
    assert all(row[3][0] <= 0.6 for rows, _ in found.values() for row in rows if not row[2])
    said = 'steps in bf16, for which this CPU has no units; precision = "auto" stays in fp32 here'
    assert [left_out for _, left_out in found.values()] == [{"left out": said}, {}, {}]


@pytest.mark.long
def test_the_benchmark_of_scale_runs(tmp_path):
    command = [sys.executable, ROOT / "tests" / "bench" / "bench_scale.py", "--sizes", "2000,2200,2400"]
    subprocess.run([*command, "--json", tmp_path / "scale.json", "--folder", tmp_path], check=True)
    stages = json.loads((tmp_path / "scale.json").read_text())["sizes"]["2400"]
    assert list(stages) == ["plan", "convert", "repeat", "first batch", "train", "report", "inspect"]
    assert all(took["cpu_s"] > 0 and took["peak_mb"] > 10 for took in stages.values())
    rows = [line.split(" | ") for line in (tmp_path / "scale.md").read_text().splitlines() if line.startswith("| ")]
    assert list(dict.fromkeys(row[0].removeprefix("| ") for row in rows)) == ["stage", *stages]
    assert all(len(row) == len(rows[0]) for row in rows)


def test_the_gpu_benchmark_says_that_there_is_no_gpu():
    command = [sys.executable, ROOT / "tests" / "bench" / "bench_gpu.py"]
    done = run_forked(command, capture_output=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "bench-gpu needs a CUDA device that torch can use, and this machine has none.\n"


GPU = """
import os, torch
torch.cuda.is_available = lambda: os.environ.get("CUDA_VISIBLE_DEVICES", "0") != ""
"""
"""A plugin of pytest: the machine has a GPU for whoever may see it."""


def test_on_a_machine_with_a_gpu_the_tests_are_the_same(tmp_path):
    (tmp_path / "with_a_gpu.py").write_text(GPU)
    chosen = [f"tests/test_bench.py::{test_the_gpu_benchmark_says_that_there_is_no_gpu.__name__}"]
    chosen += ["tests/models/test_triton.py::test_layers_leave_channels_last"]
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(tmp_path)])
    command = [sys.executable, "-m", "pytest", "-p", "with_a_gpu", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert "skipped: 0;" in done.stdout


SCARCE = """
import sys, pathlib, torch
sys.path.insert(0, str(pathlib.Path(sys.argv.pop(1)) / "tests" / "bench"))
import bench_gpu

def scarce(case, **how):
    if case.B > 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return made(case, **how)

def short(case, shards, data_class, *, method="kt", **how):
    if method == "event_only":
        raise RuntimeError("CUDNN_STATUS_ALLOC_FAILED")
    return ours(case, shards, data_class, method=method, **how)

def unequal(case, **how):
    if case.name == "scnn":
        raise AssertionError("they differ")

made, bench_gpu.their_step = bench_gpu.their_step, scarce
ours, bench_gpu.our_step = bench_gpu.our_step, short
bench_gpu.check_equal = unequal
bench_gpu.golden.check = lambda *_, **how: None
bench_gpu.SMALL_CASES = bench_gpu.SMALL_CASES[2:]
sys.exit(bench_gpu.main())
"""


def test_the_gpu_benchmark_survives_what_fails(tmp_path):
    """A reference that does not fit gets a smaller batch; what differs is in the report, and in the exit code.

    Ours that does not fit is left out, and said to be.
    """
    command = [sys.executable, "-c", SCARCE, ROOT, "--small", "--rounds", "1", "--device", "cpu"]
    command += ["--json", tmp_path / "rows.json"]
    done = run_forked(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 1, done.stderr
    found = json.loads((tmp_path / "rows.json").read_text())
    assert found["machine"]["failed"].endswith("equal in float64: AssertionError: they differ")
    assert found["machine"]["left out"].endswith("our step: does not fit into the memory of this card")
    assert f"\nleft out: {found['machine']['left out']}\n" in done.stdout
    assert [row["theirs"] for row in found["rows"]] == [
        "step by step, fp32, B=1: 4 do not fit",
        "step by step, bf16, B=1: 4 do not fit",
        "batches in memory",
    ]
    assert "out of memory, now with 1 samples" in done.stderr
    assert all(row["what"] in done.stdout for row in found["rows"])


CHECK = [sys.executable, ROOT / "tests" / "bench" / "check_gpu.py", "--device", "cpu", "--small"]


def test_the_check_of_a_gpu_gives_a_verdict_for_every_item():
    command = [*CHECK, "--item", "probe", "--item", "kernel tests"]
    done = run_forked(command, capture_output=True)
    assert done.returncode == 0, done.stderr
    probe, kernels, last = done.stdout.splitlines()
    assert probe.startswith("PASSED  probe")
    assert kernels == "SKIPPED kernel tests   needs a CUDA device"
    assert last.startswith("nothing failed")


@pytest.mark.long
def test_an_item_that_fails_is_named_and_the_others_still_run(tmp_path):
    """Without h5py there are no shards."""
    (tmp_path / "h5py.py").write_text("raise ImportError('there is no h5py')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [*CHECK, "--item", "stop and go", "--item", "kernel tests"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["FAILED", "SKIPPED", "FAILED:"]
    assert "there is no h5py" in done.stderr


SMALL_CARD = """
import pathlib, subprocess, sys, types
sys.path.insert(0, str(pathlib.Path(sys.argv.pop(1)) / "tests" / "bench"))
import check_gpu
import torch

def out_of_memory(given):
    raise torch.OutOfMemoryError("CUDA out of memory")

def run(command, **_):
    print(*[word.rsplit("/")[-1] for word in command if word.endswith(".py")])
    return types.SimpleNamespace(returncode=0)

find, subprocess.run = check_gpu.importlib.util.find_spec, run
torch.cuda.is_available = lambda: True
torch.cuda.get_device_name = lambda *_: sys.argv[2]
check_gpu.importlib.util.find_spec = lambda name: None if name == sys.argv[3] else find(name)
check_gpu.ITEMS["layers"] = out_of_memory, 60
sys.exit(check_gpu.item(sys.argv[1], types.SimpleNamespace(device="cuda")))
"""


@pytest.mark.parametrize(
    ("item", "card", "absent", "code", "said"),
    [
        ("layers", "T4", "", 3, ["does not fit into the memory of this card"]),
        ("layers", "H200", "", 1, []),
        ("kernel tests", "T4", "", 0, ["test_triton.py test_simulation_triton.py test_binning_triton.py"]),
        (
            "kernel tests", "T4", "numba", 0,
            ["test_triton.py test_simulation_triton.py", "all but those of stored events: numba not installed"],
        ),
        ("kernel tests", "T4", "pytest", 3, ["pytest not installed"]),
    ],
)  # fmt: skip
def test_the_check_leaves_out_what_a_machine_cannot_run(item, card, absent, code, said):
    done = run_forked([sys.executable, "-c", SMALL_CARD, ROOT, item, card, absent], capture_output=True)
    assert (done.returncode, done.stdout.splitlines()) == (code, said), done.stderr


@pytest.mark.long
@pytest.mark.parametrize("item", ["golden torch", "replays", "layers", "stop and go"])
def test_the_items_of_the_check_that_a_cpu_can_run(item):
    done = run_forked([*CHECK, "--item", item], capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


ONLY = """
import importlib.abc, pathlib, sys, tempfile
root = pathlib.Path(sys.argv[1])
others = ("numba", "tonic", "webdataset", "pytest", "scipy", "PIL", "matplotlib", "sklearn")
class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in others:
            raise ImportError(name)
sys.meta_path.insert(0, Only())
sys.path.insert(0, str(root / "tests" / "bench"))
import bench_gpu
with tempfile.TemporaryDirectory() as folder:
    made = pathlib.Path(folder) / "set"
    bench_gpu.write_shards(made, recordings=6, classes=3, images=6, size=16, time_bins=2)
    assert bench_gpu.ShardSet(made).split("train").read([0, 5]).shape == (2, 2, 2, 16, 16)
"""


def test_the_gpu_benchmark_needs_what_training_needs():
    """In a process that cannot import the rest."""
    done = subprocess.run([sys.executable, "-c", ONLY, ROOT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write_recordings(folder):
    """Two recordings of the pipeline's simulator, in the place of real ones; returns their images."""
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 6:22, 12:16] = images[1, 12:16, 6:22] = 255
    np.save(folder / "mnist_images.npy", images)
    for i, image in enumerate(images):
        events = simulate(image, settings=SimulatorSettings(), seed=0, key=str(i))
        (folder / f"{i}.bin").write_bytes(encode(events))
    (folder / "expected.csv").write_text("file,label\n0.bin,0\n1.bin,1\n")
    return images


@pytest.mark.long
def test_the_training_simulator_is_fitted_to_recordings(tmp_path):
    write_recordings(tmp_path)
    command = [sys.executable, ROOT / "tests" / "bench" / "fit_simulation.py", "--generations", "1"]
    done = run_forked([*command, "--recordings", tmp_path], capture_output=True)
    assert done.returncode == 0, done.stderr
    first, *settings = done.stdout.splitlines()
    assert float(first.split("'correlation': ")[1].split(",")[0]) > 0.6
    assert len(settings) == 16 + 3


def test_the_stand_in_for_n_mnist_is_read_as_n_mnist(tmp_path):
    """Images of the two recordings are in no training file, and the real ones come first in the test subset."""
    real = write_recordings(tmp_path)
    digits = np.random.default_rng(0).integers(0, 256, (10, 3, 28, 28), np.uint8)
    digits[:2, 1] = real
    for digit, images in enumerate(digits):
        values = (images.reshape(-1) / 255).round(4).tolist()
        (tmp_path / f"{digit}.json").write_text(json.dumps({"data": values}))
    tool = [sys.executable, ROOT / "tests" / "bench" / "nmnist_stand_in.py"]
    made = [*tool, "make", "--digits", tmp_path, "--recordings", tmp_path, "--out", tmp_path / "made"]
    asked = ["--train", "1", "--test", "1", "--validation", "1", "--camera", "3"]
    run_forked([*made, *asked], check=True, capture_output=True)
    events, static = tmp_path / "made" / "N-MNIST", tmp_path / "made" / "MNIST"
    for label in (0, 1):
        assert (events / "Test" / str(label) / f"{label + 1:05d}.bin").read_bytes() == (
            tmp_path / f"{label}.bin"
        ).read_bytes()
    command = ["preprocess", "--dataset", "nmnist", "--events", events, "--static", static, "--dry-run", "--json"]
    command += ["--splits", tmp_path / "made" / "splits.csv"]
    plan = json.loads(CliRunner().invoke(main, list(map(str, command)), catch_exceptions=False).stdout)
    assert [plan[name] for name in ("train", "validation", "test", "static_images")] == [10, 8, 12, 18 + 12]
    assert plan["no_static_image"] == 0


def test_cameras_around_the_fitted_one_are_alike_and_differ(monkeypatch):
    """All see a digit with about as many events; the numbers 1 to 20 draw settings that are allowed."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "bench")
    import nmnist_stand_in

    image = np.zeros((28, 28), np.uint8)
    image[4:24, 10:16] = 255
    cameras = [nmnist_stand_in.draw_camera(number) for number in range(21)]
    assert cameras[0] == SimulatorSettings()
    assert len(set(cameras)) == 21
    events = [len(simulate(image, settings=camera, seed=1, key="0")) for camera in cameras[:6]]
    assert all(0.4 < found / events[0] < 2.5 for found in events)


def test_cameras_are_drawn_and_compared(tmp_path, monkeypatch):
    """Every camera sees a digit, in its own way; the table takes differences seed by seed."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "bench")
    import ten_cameras

    image, drawn = np.zeros((8, 8), np.uint8), [ten_cameras.draw_camera(number) for number in range(100, 106)]
    image[1:7, 3:5] = 255
    assert {kind for kind, _ in drawn} == set(ten_cameras.PATHS)
    for number, (kind, settings) in enumerate(drawn, 100):
        assert ten_cameras.draw_camera(number) == (kind, settings)
        assert 300 < len(simulate(image, settings=settings, seed=number, key="0")) < 30_000
    for number, row, seed in [(c, r, s) for c in (100, 101) for r in ("kt", "best") for s in (0, 1)]:
        run = {"camera": number, "kind": drawn[number - 100][0], "row": row, "seed": seed}
        run |= {"test_accuracy": 0.9 + 0.02 * (row == "best") + 0.01 * seed}
        run |= {"training_cpu_seconds": 2.0, "calibration_cpu_seconds": 0.0, "date": "2026-01-01", "commit": "abc"}
        path, folder = (tmp_path / f"camera-{number}" / kind / f"{row}, seed {seed}" for kind in ("rows", "runs"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"{path.name}.json").write_text(json.dumps(run))
        folder.mkdir(parents=True)
        (folder / "predictions.csv").write_text(f"key,label,prediction\na,1,1\nb,2,{2 if row == 'best' else 1}\n")
    ten_cameras.write_table(tmp_path, tmp_path / "table", command="this", machine="that")
    assert (
        "| 100 | sweep | 90.5 ± 0.7 | 92.5 ± 0.7 | +2.0 [+2.0, +2.0] | +50.0 [−585.3, +685.3] | 2 |"
        in (tmp_path / "table.md").read_text()
    )
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 9
    found = json.loads((tmp_path / "table.json").read_text())
    assert found["means"]["best"]["mean"] == pytest.approx(0.02)
    assert "over seeds of 2 cameras, those over recordings of 0, the means of 2" in found["facts"][0]


@pytest.mark.long
def test_planted_leaks_are_counted(tmp_path):
    """By a table that answers all but two recordings, of which one has its image and one of the pool as candidates."""
    tool, out = [sys.executable, ROOT / "tests" / "bench" / "planted_leaks.py"], tmp_path / "set"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    (tmp_path / "mnist").mkdir()
    idx.write(tmp_path / "mnist" / "train-images-idx3-ubyte", pixels)
    idx.write(tmp_path / "mnist" / "train-labels-idx1-ubyte", np.arange(60, dtype=np.uint8) % 2)
    made = [*tool, "digits", "--mnist", tmp_path / "mnist", "--out", out, "--images", "60", "--shown", "40"]
    assert run_forked(made, capture_output=True).returncode == 0
    assert (len(list(out.glob("crops/*/*.png"))), len(list(out.glob("shown/*/*.png")))) == (60, 40)
    simulate = [sys.executable, "-m", "spikebridge", "simulate", "--images", out / "shown", "--out", out / "raw"]
    assert run_forked(simulate, capture_output=True).returncode == 0

    def count(rows):
        head = "recording,image,pixels_sha256,candidates,candidates_sha256"
        (out / "pairs.csv").write_text("\n".join([head, *rows]) + "\n")
        done = run_forked([*tool, "count", out], capture_output=True)
        lines = done.stdout.splitlines()[2:]
        return [list(map(int, line.strip("| ").split(" | "))) for line in lines]

    hashes = {f"{row % 2}/{row:05}": hash_pixels(np.repeat(pixels[row][..., None], 3, -1)).hex() for row in range(60)}
    shown = sorted(path.relative_to(out / "shown").with_suffix("").as_posix() for path in out.glob("shown/*/*.png"))
    answered = {name: f"{name},{name},{hashes[name]},," for name in shown}
    everything, half, none = count(answered.values())
    total = everything[0]
    assert everything == [total, total, 0, 0, 0, 0, 0]
    assert half == [total // 2, total // 2, 0, 0, total - total // 2, 0, 0]
    assert none == [0, 0, 0, 0, total, 0, 0]
    other = next(name for name in hashes if name not in shown)
    doubtful = {name: f"{name},,,{name}|{other},{hashes[name]}|{hashes[other]}" for name in shown}
    everything, half, none = count(doubtful.values())
    assert everything == [total, total, 0, 0, 0, 0, 0], "whichever it is"
    assert half == [total // 2, total // 2, 0, 0, total - total // 2, 0, total - total // 2]
    assert none == [0, 0, 0, 0, total, 0, total]
    unknown = dict.fromkeys(shown, "") | {shown[0]: answered[shown[0]]}
    everything, half, none = count([row or f"{name},,,," for name, row in unknown.items()])
    assert everything[3] >= total - 1, "of these nothing is said"


@pytest.mark.long
def test_crops_of_photographs_are_made_and_answers_counted(tmp_path):
    tool = [sys.executable, ROOT / "tests" / "bench" / "photo_crops.py"]
    (tmp_path / "photos").mkdir()
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (200, 150, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    made = [*tool, "make", "--photos", tmp_path / "photos", "--out", tmp_path / "set", "--crops", "20"]
    assert run_forked(made, capture_output=True).returncode == 0
    assert len(list((tmp_path / "set" / "crops").glob("*/*.png"))) == 40
    assert sorted(p.name for p in (tmp_path / "set" / "shown" / "a").iterdir()) == ["0000.png", "0010.png"]
    (tmp_path / "pairs.csv").write_text("recording,image\na/1,a/1\na/2,b/2\na/3,\n")
    assert (
        run_forked([*tool, "score", tmp_path / "pairs.csv"], capture_output=True).stdout == "2 of 3 answered, 1 right\n"
    )
