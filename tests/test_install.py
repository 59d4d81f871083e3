"""The project installs: one importable name, from a wheel in a folder whose `train.py` and `models/` are the user's."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, write_digits_raw
from dask_cluster import dask_cluster
from documents import indented

from spikebridge import __all__ as NAMES
from spikebridge import __version__

OURS = "raise SystemExit('a module of the user was imported in place of one of spikebridge')\n"
SMALL = ["--time-bins", "4", "--size", "16", "--samples-per-shard", "4"]
TRAINING = [word for change in ("time_bins=4", "size=16", "epochs=1", "width=0.25") for word in ("--set", change)] + [
    "--backend",
    "torch",
]  # no time goes into compiling kernels


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees what this interpreter has installed, except spikebridge.

    Args:
        python: its interpreter.
        folder: where commands run; its `train.py` and `models/` are the user's.
    """

    python: Path
    folder: Path

    def variables(self) -> dict[str, str]:
        """Return the environment variables of its processes: nothing points to this clone."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return inherited | {"PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}", "MYPYPATH": ""}

    def run(self, *command: object, cwd: Path | None = None) -> str:
        """Run a command to its good end and return its standard output."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd or self.folder,
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (done.args, done.stdout, done.stderr)
        return done.stdout


def make_environment(root: Path) -> Environment:
    """Make an environment and a user's folder below `root`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
    python = root / "venv" / "bin" / "python"
    packages = root / "packages"
    packages.mkdir()
    for entry in {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}:
        for package in entry.iterdir():
            if "spikebridge" not in package.name and package.suffix != ".pth":
                (packages / package.name).symlink_to(package)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (Path(site) / "packages.pth").write_text(f"{packages}\n")
    folder = root / "elsewhere"
    (folder / "models").mkdir(parents=True)
    for name in ("train.py", "models/__init__.py", "cli.py", "pipeline.py"):
        (folder / name).write_text(OURS)
    return Environment(python, folder)


def copy_clone(target: Path) -> None:
    """Copy the files of the clone, and add raw data, a shard set and a run as `make train` leaves them."""
    skipped = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "raw", "shards", "runs")
    shutil.copytree(
        ROOT,
        target,
        symlinks=True,
        ignore=lambda folder, names: (
            skipped(folder, names) if Path(folder) == ROOT or Path(folder) == ROOT / "data" else {"__pycache__"}
        ),
    )
    for made in ("raw/digits/events/00001.bin", "shards/digits/manifest.json", "runs/digits/result.json"):
        (target / "data" / made).parent.mkdir(parents=True)
        (target / "data" / made).write_bytes(b"")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clone") / "spikebridge"
    copy_clone(folder)
    return folder


@pytest.fixture(scope="module")
def wheel(clone, tmp_path_factory):
    """The wheel, built without the network by the setuptools of the lock."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*command, "--no-build-isolation", "--wheel-dir", out, clone], check=True)
    (found,) = out.iterdir()
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment elsewhere into which the wheel is installed."""
    made = make_environment(tmp_path_factory.mktemp("installed"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", made.python]
    made.run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    return made


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment in which spikebridge is not installed."""
    return make_environment(tmp_path_factory.mktemp("bare"))


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_packages_and_their_data_and_nothing_else(wheel):
    names = contents(wheel)
    code = {
        f"spikebridge/{path.relative_to(ROOT)}"
        for room in ("pipeline", "models", "train")
        for path in (ROOT / room).rglob("*.py")
    }
    code |= {f"spikebridge/{name}" for name in ("__init__.py", "__main__.py", "cli.py", "plotting.py", "py.typed")}
    shipped = {f"spikebridge/{path.relative_to(ROOT)}" for path in (ROOT / "data").glob("*/*.toml")}
    assert len(shipped) > 20
    assert {name for name in names if ".dist-info/" not in name} == code | shipped


@pytest.mark.long
def test_a_wheel_of_the_source_distribution_is_the_same(clone, wheel, tmp_path):
    script = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, tmp_path], cwd=clone, check=True, capture_output=True)
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*command, "--no-build-isolation", "--wheel-dir", tmp_path / "wheel", source], check=True)
    (again,) = (tmp_path / "wheel").iterdir()
    assert contents(again) == contents(wheel)
    assert not list((source / "data").glob("raw"))


def test_shipped_files_come_along_and_it_runs_as_a_module(installed):
    for kind in ("recipes", "grids"):
        printed = installed.run("spikebridge", kind, "list")
        names = {path.stem for path in (ROOT / "data" / kind).glob("*.toml")}
        assert names
        assert names <= {line.split()[0] for line in printed.splitlines() if line.strip()}
    assert installed.run(installed.python, "-m", "spikebridge", "--version") == f"spikebridge, version {__version__}\n"


SNIPPETS = [block for block in indented(ROOT / "README.md") if any("import" in line for line in block.lines[:2])]


def test_the_names_of_the_top_the_examples_of_the_readme_and_spawned_workers(installed, shard_set):
    (installed.folder / "shards").symlink_to(shard_set())
    workers = """
import spikebridge
from torch.utils.data import DataLoader

from spikebridge import ShardDataset

if __name__ == "__main__":
    data = ShardDataset("shards", "train")
    loader = DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    print(spikebridge.__file__, *(getattr(spikebridge, name).__name__ for name in spikebridge.__all__))
    print("read", sum(len(labels) for _, labels in loader), "of", len(data))
"""
    assert len(SNIPPETS) >= 3
    examples = "".join(f"    {line}\n" for block in SNIPPETS for line in block.lines)
    (installed.folder / "use.py").write_text(f"{workers}{examples}    print(frames.shape)\n")
    names, count, shape = installed.run(installed.python, "use.py").splitlines()
    assert not names.startswith(str(ROOT))
    assert names.split()[1:] == NAMES
    assert count == f"read {count.split()[-1]} of {count.split()[-1]}"
    assert shape == "(4, 2, 12, 12)"


@pytest.mark.long
def test_a_file_of_a_user_is_checked_against_its_types(installed):
    (installed.folder / "typed.py").write_text(
        "import spikebridge\n\nrecipe = spikebridge.load_recipe('digits')\n"
        "reveal_type(recipe.train.epochs)\nspikebridge.load_recipe(1.5)\n"
    )
    # What other packages say of their types takes long to read, and is not the question.
    skipped = "".join(
        f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in ("torch", "numpy", "h5py", "numba", "PIL")
    )
    (installed.folder / "mypy.ini").write_text(f"[mypy]\ncache_dir = /dev/null\n{skipped}")
    command = [sys.executable, "-m", "mypy", "--python-executable", str(installed.python), "typed.py"]
    done = subprocess.run(
        command, cwd=installed.folder, env=installed.variables(), capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("typed.py")]
    assert len(lines) == 2, (done.stdout, done.stderr)
    assert 'Revealed type is "int"' in lines[0].replace("builtins.", "")
    assert re.search(r'error: Argument 1 to "load_recipe".*"float"', lines[1])


@pytest.mark.long
def test_torchrun_trains(installed, shard_set):
    (installed.folder / "small").symlink_to(shard_set(size=16))
    launch = [
        installed.python,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--module",
        "--",
    ]
    command = ["spikebridge", "train", "--shards", "small", "--recipe", "digits", "--run", "by-torchrun", *TRAINING]
    installed.run(*launch, *command)
    assert (installed.folder / "by-torchrun" / "result.json").is_file()


@pytest.mark.long
def test_dask_workers_and_worker_processes_convert(installed, tmp_path):
    raw = write_digits_raw(tmp_path / "raw", train=8, test=3)
    command = ["spikebridge", "preprocess", "--dataset", "digits", "--events", raw, "--static", raw, *SMALL]
    installed.run(*command, "--out", tmp_path / "processes", "--workers", "2")
    with dask_cluster(tmp_path, installed.variables(), workers=1, python=installed.python, cwd=installed.folder) as (
        address,
        _,
    ):
        installed.run(*command, "--out", tmp_path / "dask", "--scheduler", address)
    assert "same" in installed.run("spikebridge", "diff", tmp_path / "processes", tmp_path / "dask")


def test_a_clone_works_without_being_installed(bare, clone, tmp_path):
    for made in [path for room in ("pipeline", "train") for path in (ROOT / room).rglob("__pycache__")]:
        shutil.copytree(made, clone / made.relative_to(ROOT), dirs_exist_ok=True)  # loops need not be compiled again
    assert bare.run(bare.python, clone / "cli.py", "--version") == f"spikebridge, version {__version__}\n"
    raw = write_digits_raw(tmp_path / "raw", train=8, test=3)
    command = [bare.python, clone / "cli.py", "preprocess", "--dataset", "digits", "--events", raw, "--static", raw]
    bare.run(*command, *SMALL, "--workers", "2", "--out", tmp_path / "shards")
    assert "digits" in bare.run(bare.python, "cli.py", "recipes", "list", cwd=clone)
    assert (tmp_path / "shards" / "manifest.json").is_file()


BACKEND = '''"""Build a wheel of the stand-in project, which holds nothing."""

import zipfile
from pathlib import Path


def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "spikebridge-0-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder, name), "w") as wheel:
        info, first = "spikebridge-0.dist-info", "Version: 0\\nName: spikebridge\\n"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\n{first}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
'''


def write_torch(folder, version):
    """Write a wheel that is called torch, and holds nothing else, into an index."""
    (folder / "torch").mkdir(parents=True, exist_ok=True)
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(folder / "torch" / f"torch-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    names = sorted(path.name for path in (folder / "torch").glob("*.whl"))
    (folder / "torch" / "index.html").write_text("".join(f'<a href="{name}">{name}</a>\n' for name in names))


@pytest.fixture
def workplace(tmp_path):
    """A stand-in for the clone: the Makefile, a lock of torch alone, and indexes that have stand-ins for its builds."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").write_text("torch==2.13.0\n")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "spikebridge"\nversion = "0"\n'
    )
    (tmp_path / "backend.py").write_text(BACKEND)
    write_torch(tmp_path / "packages", "2.13.0")
    for version in ("2.13.0+cpu", "2.13.0+cu130"):
        write_torch(tmp_path / "builds", version)

    def make(*arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": (tmp_path / "packages").as_uri()}
        command = ["make", *arguments, f"PYTHON={sys.executable}", f"TORCH_INDEX={(tmp_path / 'builds').as_uri()}"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return make


def torch_of(folder):
    (info,) = (folder / ".venv").glob("lib/python*/site-packages/torch-*.dist-info")
    return info.name.removeprefix("torch-").removesuffix(".dist-info")


@pytest.mark.long
def test_setup_says_what_it_downloads_and_chooses_the_build_of_torch(workplace, tmp_path):
    first = workplace("setup")
    assert first.returncode == 0, first.stderr
    assert re.search(r"about [\d.]+ GB", first.stdout), first.stdout
    assert torch_of(tmp_path) == "2.13.0"
    assert "torch==2.13.0+cu130" in workplace("--dry-run", "setup", "TORCH=cuda").stdout
    chosen = workplace("setup", "TORCH=cpu")
    assert chosen.returncode == 0, chosen.stderr
    assert torch_of(tmp_path) == "2.13.0+cpu"
    ready = (tmp_path / ".venv" / ".ready").stat().st_mtime
    os.utime(tmp_path / "requirements.lock", (ready + 1, ready + 1))  # files of one tick of the clock are equally old
    again = workplace("--dry-run", "setup")  # a newer lock, and the choice of before
    assert "torch==2.13.0+cpu" in again.stdout, (again.stdout, again.stderr)


def test_setup_refuses_a_build_that_there_is_not(workplace, tmp_path):
    done = workplace("setup", "TORCH=gpu")
    assert done.returncode == 2
    assert "TORCH=gpu: expected cpu or cuda" in done.stderr
    assert not (tmp_path / ".venv").exists()
