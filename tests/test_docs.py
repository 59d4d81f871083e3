"""The documentation tells the truth: it builds without a warning, and what its pages show is run as it stands."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import click
import fsspec
import pytest
from click.testing import CliRunner
from conftest import ROOT, write_digits_raw
from documents import Block, apply_change, fenced, write_what_readers_have
from forked import run_forked
from machines import Machines
from servers import serving

from spikebridge.cli import main

DOCS = ROOT / "docs"
PAGES = sorted(path for folder in ("tutorials", "reference", "adding") for path in (DOCS / folder).glob("*.md"))
PICTURES = {"calibrating", "comparing", "looking", "reports", "library", "session"}
"""Pages whose commands need matplotlib for more than the report behind a training."""
SLOW = {
    *(
        "calibrating",
        "matching",
        "machines",
        "session",
        "comparing",
        "reports",
        "dataset",
        "network",
        "neuron",
        "loss",
        "exporting",
    )
}
"""Pages that train, start, trace or draw many times over: run by `make test-long`; of the others each kind runs every
day, and what `exporting` shows in tests/train/export, smaller."""
SHOWN_ONLY = {"text", "verbs", "eval", "toctree"}
QUICK = ["--set", "epochs=1", "--set", "width=0.5"]
"""No page needs a good network."""
MORE = {
    "preprocess": ["--workers", "1"],
    "calibrate": ["--sets", "20"],
    "match": ["--sets", "20"],
    "train": QUICK,
    "compare": [*QUICK, "--seeds", "0"],
    "ablate": [*QUICK, "--seeds", "0", "--workers", "1"],
    "landscape": ["--points", "3"],
}
"""What is added to the commands of these verbs."""
NARROWER = {"ncaltech101-legacy": ["--set", "width=0.05", "--set", "warmup_epochs=0"]}
"""What is added besides where this recipe is named: its network is large and its schedule long."""


@pytest.mark.parametrize(("builder", "end"), [("text", "txt"), pytest.param("html", "html", marks=pytest.mark.long)])
def test_it_builds_without_a_warning(tmp_path, builder, end):
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", builder, DOCS, tmp_path / "made"]
    done = run_forked([*command, "-d", tmp_path / "trees"], capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    verbs = (tmp_path / "made" / "reference" / f"verbs.{end}").read_text()
    for name in main.commands:
        assert f"spikebridge {name}" in verbs
    assert "ShardDataset" in (tmp_path / "made" / "reference" / f"api.{end}").read_text()


def test_a_broken_link_fails_the_build(tmp_path):
    pytest.importorskip("sphinx")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "conf.py").write_text('extensions = ["myst_parser"]\n')
    (tmp_path / "source" / "index.md").write_text("# Title\n\n[somewhere](absent.md)\n")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", tmp_path / "source", tmp_path / "html"]
    done = run_forked(command, capture_output=True)
    assert done.returncode == 1
    assert "absent.md" in done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What the pages take for granted: raw data, photographs, `shards`, `run`, a published checkpoint."""
    root = tmp_path_factory.mktemp("docs")
    write_digits_raw(root / "raw", train=7, test=2, classes=10)
    write_what_readers_have(root, photos=10)
    shards, run = str(root / "shards"), str(root / "run")
    raw = ["--events", str(root / "raw"), "--static", str(root / "raw")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)  # the report of this run is not looked at
        for arguments in (
            ["preprocess", "--dataset", "digits", *raw, "--out", shards, *MORE["preprocess"]],
            ["train", "--shards", shards, "--recipe", "digits", "--run", run, *QUICK],
        ):
            result = CliRunner().invoke(main, arguments, catch_exceptions=False)
            assert result.exit_code == 0, result.output
    return root


@pytest.fixture
def machines(tmp_path_factory):
    made = Machines(tmp_path_factory.mktemp("machines"))
    yield made
    made.close()


@pytest.fixture
def bucket(tmp_path_factory, monkeypatch):
    """The bucket of the page on sharing, on a server in a process of its own."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_DEFAULT_REGION": "us-east-1",
        "SPIKEBRIDGE_CACHE": str(tmp_path_factory.mktemp("cache")),
    }.items():
        monkeypatch.setenv(name, value)
    with serving("s3") as (port, _):
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # which knows the servers of other tests
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        boto3.client("s3").create_bucket(Bucket="our-bucket")
        yield


def checkout(folder):
    """The program, to be changed by a page; compiled code comes along."""
    for name in ("__init__.py", "cli.py", "plotting.py", "pipeline", "models", "train", "data/recipes", "data/grids"):
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
    (folder / "src").mkdir()
    (folder / "src" / "spikebridge").symlink_to("..")


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.stem, marks=pytest.mark.long if page.stem in SLOW else ()) for page in PAGES],
)
def test_what_a_page_shows_is_run(page, place, request, tmp_path, monkeypatch):
    blocks = fenced(page)
    if page.stem not in PICTURES:
        request.getfixturevalue("without_matplotlib")
    machines = request.getfixturevalue("machines")
    if "s3://our-bucket" in page.read_text():
        request.getfixturevalue("bucket")
    for entry in place.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    changes = page.parent.name == "adding"
    if changes:
        checkout(tmp_path)
    else:
        (tmp_path / "cli.py").symlink_to(ROOT / "cli.py")
    names: dict[str, object] = {}
    for block in blocks:
        if block.language in SHOWN_ONLY:
            continue
        if block.language == "diff":
            apply_change(block, tmp_path)
        elif block.file:
            (tmp_path / block.file).write_text(block.text)
        elif block.language == "bash":
            for command, code in block.commands():
                run_command(command, code, block, machines)
        elif changes:
            succeed(machines.run([sys.executable, "-c", block.text]), 0, block)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other libraries
                exec(compile(block.text, block.where, "exec"), names)
    languages = {block.language for block in blocks}
    assert languages <= SHOWN_ONLY | {"bash", "python", "toml", "diff"}, languages


def run_command(command: str, code: int, block: Block, machines: Machines) -> None:
    """A line of the shell: verbs in this process, which saves the time of importing torch, all else in a shell."""
    first, *arguments = shlex.split(machines.translated(command))
    target = arguments.pop() if ">" in arguments else ""
    arguments = [word for word in arguments if word != ">"]
    more = [option for verb, options in MORE.items() if verb in arguments for option in options]
    if "--scheduler" in arguments:
        more = []  # the workers of a cluster
    more += [
        option for recipe, options in NARROWER.items() if QUICK[0] in more and recipe in arguments for option in options
    ]
    if first == "spikebridge":
        result = CliRunner().invoke(main, [*arguments, *more], catch_exceptions=False)
        assert result.exit_code == code, (block.where, command, result.output)
        if target:
            Path(target).write_text(result.stdout)
    elif first == "torchrun":
        ended = machines.shell(" ".join([command, *map(shlex.quote, more), "--json"]))
        succeed(ended, code, block)
        assert json.loads("".join(done.stdout for done in ended))["processes"] == 2  # one process answers
    elif first == "dask":
        machines.serve(command)
    elif first == "python":
        succeed(machines.run([sys.executable, *arguments, *more]), code, block)
    else:
        succeed(machines.shell(" ".join([command, *map(shlex.quote, more)])), code, block)


def succeed(ended: list[subprocess.CompletedProcess[str]], code: int, block: Block) -> None:
    for done in ended:
        assert done.returncode == code, (block.where, done.args, done.stdout, done.stderr)


NAMED = re.compile(r"`((?:data|docs|models|pipeline|tests|train)/[\w./*-]+|\w+\.(?:py|lock))`(?: \(`(\w+)`\))?")
"""A file of the clone between backquotes, and behind it, in parentheses, what it defines."""


@pytest.mark.parametrize(
    "page",
    sorted(path for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")] if path.name != "CHANGELOG.md"),
    ids=lambda page: page.stem,
)
def test_the_files_that_a_page_names_exist(page):
    text = page.read_text()
    made = {block.file for block in fenced(page)} | {"spots.csv"}  # by the page itself
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    if page.name == "how-it-is-built.md":
        assert len(NAMED.findall(prose)) > 80
    for name, definition in NAMED.findall(prose):
        if name in made or name.startswith(("data/shards", "data/runs", "data/raw")):
            continue
        if "/" not in name and not (ROOT / name).exists():
            assert page.parent.name in ("adding", "tutorials"), name  # a file of the reader
            continue
        assert list(ROOT.glob(name)), f"{page.name} names {name}, which is not there"
        if definition:
            defined = re.search(rf"^\s*(?:def|class) {definition}\b", (ROOT / name).read_text(), re.MULTILINE)
            assert defined, f"{page.name}: {name} does not define {definition}"


def test_external_links_are_well_formed():
    """No network here, so more cannot be said; they are listed by `grep -rho "https*://[^ )>]*" README.md docs`."""
    links = {
        (path.name, link)
        for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
        for link in re.findall(r"\]\(([a-z]+:[^)]*)\)", path.read_text())
    }
    assert links
    for page, link in links:
        found = urlsplit(link)
        assert found.scheme == "https", (page, link)
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", found.netloc), (page, link)
        assert re.fullmatch(r"[\w./-]*", found.path), (page, link)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_that_a_page_shows_is_one(page):
    """Also of the pages that are run by `make test-long` only."""
    blocks = [block for block in fenced(page) if block.language == "bash"]
    for line in [line for block in blocks for line in block.text.replace("\\\n", " ").splitlines()]:
        words = re.sub(r"[;|>&#\"].*", "", line.partition("spikebridge ")[2]).split()
        command = main
        while words and isinstance(command, click.Group) and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        options = {option for one in command.params for option in [*one.opts, *one.secondary_opts]}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, line


def test_every_verb_is_shown_on_a_page():
    shown = {
        shlex.split(command)[1 if command.startswith("spikebridge") else 2]
        for page in PAGES
        for block in fenced(page)
        if block.language in ("bash", "text") and not block.file  # as text: what needs packages that are not here
        for command, _ in block.commands()
        if command.startswith(("spikebridge ", "python cli.py "))
    }
    assert set(main.commands) <= shown
