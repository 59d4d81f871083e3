"""Shared by all tests: one thread each, tiny raw data sets in the true formats, and the count of skipped tests."""

from __future__ import annotations

import os
import sys

for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
for variable in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):  # below make, verbs do not say what comes next
    os.environ.pop(variable, None)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # of container images: every process would compile every module again
sys.dont_write_bytecode = False
if os.environ.get("SPIKEBRIDGE_TEST_DEVICE") != "cuda":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same tests, on the same device, whatever the machine has

import fcntl  # noqa: E402
import gc  # noqa: E402
import hashlib  # noqa: E402
import shutil  # noqa: E402
from collections.abc import Callable, Generator  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from spikebridge.pipeline.containers import idx  # noqa: E402
from spikebridge.pipeline.events.arrays import Events  # noqa: E402
from spikebridge.pipeline.formats import bin40  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SUPPORT = ROOT / "tests" / "support"
"""Programs that tests start, and what several of them import."""
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(SUPPORT)])  # for the processes that tests start
EXPECTED_SKIPS = Path(__file__).with_name("expected_skips.txt")


def make_events(seed: int, *, count: int = 300, size: tuple[int, int] = (34, 34), duration_us: int = 300_000) -> Events:
    """Random events that pass every check."""
    rng = np.random.default_rng(seed)
    return Events(
        t=np.sort(rng.integers(0, duration_us, count)).astype(np.int64),
        x=rng.integers(0, size[0], count).astype(np.int32),
        y=rng.integers(0, size[1], count).astype(np.int32),
        p=rng.integers(0, 2, count).astype(np.uint8),
    )


def write_digits_raw(root: Path, *, train: int = 5, test: int = 2, classes: int = 3) -> Path:
    """A raw `digits` folder: random recordings and random 8x8 images, numbered like the real one."""
    from PIL import Image

    number = 0
    for label in range(classes):
        for subset, count in (("Train", train), ("Test", test)):
            for _ in range(count):
                number += 1
                rng = np.random.default_rng([label, number])
                name = f"{subset}/{label}/{number:05d}"
                recording, image = root / "events" / f"{name}.bin", root / "static" / f"{name}.png"
                recording.parent.mkdir(parents=True, exist_ok=True)
                image.parent.mkdir(parents=True, exist_ok=True)
                recording.write_bytes(bin40.encode(make_events(number)))
                Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(image)
    return root


def write_nmnist_raw(root: Path, *, train: int = 12, test: int = 6, classes: int = 3, compressed: bool = False) -> Path:
    """Raw `events/` and `static/` folders of N-MNIST and MNIST: random content in the true formats."""
    end = ".gz" if compressed else ""
    for folder, prefix, count in (("Train", "train", train), ("Test", "t10k", test)):
        rng = np.random.default_rng(count)
        labels = (np.arange(count) % classes).astype(np.uint8)
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (root / "static").mkdir(parents=True, exist_ok=True)
        idx.write(root / "static" / f"{prefix}-images-idx3-ubyte{end}", images)
        idx.write(root / "static" / f"{prefix}-labels-idx1-ubyte{end}", labels)
        for i, label in enumerate(labels):
            path = root / "events" / folder / str(label) / f"{i + 1:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bin40.encode(make_events(1000 * len(folder) + i)))
    return root


@pytest.fixture
def digits_raw(tmp_path: Path) -> Path:
    """A raw `digits` folder: 3 classes, 5 training and 2 test recordings each."""
    return write_digits_raw(tmp_path / "raw")


@pytest.fixture
def nmnist_raw(tmp_path: Path) -> Path:
    """Raw N-MNIST and MNIST folders: 3 classes, 4 training and 2 test recordings each."""
    return write_nmnist_raw(tmp_path / "nmnist")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what the program keeps away from the user's cache folder."""
    os.environ["SPIKEBRIDGE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """A factory of folders that all processes of the run share: the first that needs one makes it; read only."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, write: Callable[[Path], object]) -> Path:
        folder = shared / "made-once" / hashlib.sha256(name.encode()).hexdigest()[:16]
        folder.parent.mkdir(exist_ok=True)
        with open(f"{folder}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not Path(f"{folder}.made").exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a test left that failed in the middle
                folder.mkdir()
                write(folder)
                Path(f"{folder}.made").touch()
        return folder

    return make


@pytest.fixture(scope="session")
def shard_set(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Callable[..., Path]:
    """A factory of complete small shard sets, made once per run and settings; read only."""
    from spikebridge.pipeline.preprocess.prepare import prepare
    from spikebridge.pipeline.preprocess.run import convert
    from spikebridge.pipeline.shards.settings import ConversionSettings

    def make(**settings: object) -> Path:
        def write(folder: Path) -> None:
            raw = write_digits_raw(folder / "raw", train=8, test=3)
            wanted = ConversionSettings(**{"dataset": "digits", "time_bins": 4, "size": 12, **settings})  # type: ignore[arg-type]
            convert(prepare(wanted, events_root=raw, static_root=raw), folder / "set")

        return made_once(f"shard set {sorted(settings.items())}", write) / "set"

    return make


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reports behind trainings, which take half their time: in this process and in those that it starts."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT / "without_matplotlib"), os.environ["PYTHONPATH"]]))


def pytest_configure(config: pytest.Config) -> None:
    """Cut in `make test` what `make test-long` does in full: examples of Hypothesis, and files flushed to the disk.

    Hypothesis draws 40 examples in place of 100 where a test says no number. Files are flushed by the processes that
    tests start alone: a disk takes milliseconds for each, and no test cuts the power. No example has a deadline: the
    machine may have other work.
    """
    from hypothesis import HealthCheck, settings

    daily = config.option.markexpr == "not long"
    settings.register_profile(
        "ours", max_examples=40 if daily else 100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("ours")
    if daily:
        os.fsync = os.fstat  # which refuses what is no open file, too


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among the modules and tests, nor among what they are for the rest of the run: it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Delete what was kept: libraries of others report what is there when Python ends as leaks."""
    gc.unfreeze()
    gc.collect()


def unexpected_skips(reporter: pytest.TerminalReporter) -> tuple[int, list[str]]:
    """Number of skipped tests, and those that no line of the committed list allows."""
    lines = EXPECTED_SKIPS.read_text().splitlines()
    allowed = tuple(line for line in lines if line and not line.startswith("#"))
    skipped = [report.nodeid for report in reporter.stats.get("skipped", [])]
    return len(skipped), [node for node in skipped if not node.startswith(allowed)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped, and which of them nobody expects."""
    count, surprising = unexpected_skips(terminalreporter)
    terminalreporter.write_line(f"skipped: {count}; not allowed by {EXPECTED_SKIPS.name}: {len(surprising)}")
    for node in surprising:
        terminalreporter.write_line(f"  {node}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A skip that the committed list does not allow fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput") and exitstatus == 0:
        session.exitstatus = 1 if unexpected_skips(reporter)[1] else 0
