"""The command line end to end, on real files, in real processes where exit codes matter."""

import ast
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner
from conftest import ROOT, write_digits_raw, write_nmnist_raw
from forked import run_forked

from spikebridge import cli
from spikebridge.cli import main
from spikebridge.pipeline.ui.terminal import FiniteRange

SMALL = ["--time-bins", "4", "--size", "20", "--workers", "1"]
RECIPE = ["--set", "time_bins=4", "--set", "size=20", "--set", "epochs=2", "--set", "events_per_class=3"]
VERBS = [
    "ablate",
    "combine",
    "compare",
    "completion",
    "convert",
    "datasets",
    "diff",
    "doctor",
    "evaluate",
    "export",
    "finish",
    "import-checkpoint",
    "grids",
    "inspect",
    "migrate",
    "predict",
    "preprocess",
    "pull",
    "push",
    "recipes",
    "report",
    "runs",
    "simulate",
    "subset",
    "train",
    "verify",
]


def invoke(*arguments, code=0):
    """Run a verb in this process; an exception that is no exit is passed on."""
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_digits_raw(tmp_path_factory.mktemp("raw"), train=8, test=3, classes=10)


@pytest.fixture(scope="module")
def shards(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "set"
    invoke("preprocess", "--dataset", "digits", "--events", raw, "--static", raw, "--out", out, *SMALL)
    return out


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    invoke("train", "--shards", shards, "--recipe", "digits", "--run", run, *RECIPE)
    return run


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(verb):
    text = invoke(verb, "--help").output
    assert "Example" in text
    assert verb in invoke("--help").output


WRITING = {"out", "html", "png", "gif", "figures", "destination", "run_path"}
"""Parameters that name what a verb writes."""
KEEPING = {
    "ablate": "a folder of runs, which are kept, and tables made of them",
    "predict": "run_path is read",
    "pull": "a folder of another set is refused, one of this set completed",
}


def leaves(group, name=""):
    for verb, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{verb} ")
        else:
            yield name + verb, command


def test_every_verb_that_writes_a_place_of_ones_own_asks_before_it_replaces_it():
    writing = {}
    for verb, command in leaves(main):
        names = {parameter.name for parameter in command.params}
        if names & WRITING:
            writing[verb] = "overwrite" in names
    assert {"calibrate", "match", "inspect", "report", "landscape", "recipes new", "grids copy"} < set(writing)
    assert {verb for verb, asks in writing.items() if not asks} == set(KEEPING)


def test_nothing_is_read_for_a_file_that_is_there(shards, trained, tmp_path):
    """Refused before the minutes, with what to do."""
    there, folder = tmp_path / "there", tmp_path / "folder"
    there.write_text("of before")
    folder.mkdir()
    for words in (
        ["inspect", shards, "--png"],
        ["inspect", shards, "--gif"],
        ["inspect", shards, "--html"],
        ["evaluate", trained, "--shards", shards, "--html"],
        ["report", trained, "--out"],
    ):
        exists = " ".join(invoke(*words, there, code=2).stderr.split())
        assert f"{there} exists; choose another file, or pass --overwrite." in exists.replace("- ", "-")
        assert "is a folder; choose a file" in " ".join(invoke(*words, folder, "--overwrite", code=2).stderr.split())
        below = " ".join(invoke(*words, there / "page", code=2).stderr.split())
        assert "is no folder that can be written" in below
    assert there.read_text() == "of before"
    new = folder / "new" / "a.png"
    invoke("inspect", shards, "--png", new)
    first = new.stat().st_ino
    invoke("inspect", shards, "--png", new, "--overwrite")
    assert new.stat().st_ino != first


def test_help_answers_without_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "cli.py"), "train", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "numpy" not in done.stderr
    assert "torch" not in done.stderr


def test_notes_of_other_packages_are_not_printed():
    code = (
        "import logging; from click.testing import CliRunner; from spikebridge.cli import main\n"
        "CliRunner().invoke(main, ['datasets'])\n"
        "logging.getLogger('matplotlib.font_manager').info('fonts')\n"
        "logging.getLogger('matplotlib').warning('no fonts')\n"
        "logging.getLogger('spikebridge.train.trainer').info('epochs')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "no fonts\nepochs\n"


def test_datasets():
    facts = json.loads(invoke("datasets", "--json").stdout)
    assert {"digits", "nmnist", "folders"} <= set(facts)
    for name, found in facts.items():
        wanted = {"download", "events", "static", "expected", "pairs", "splits", "licence", "cite", "convert"}
        assert all(found[key] for key in wanted)
        shown = invoke("datasets", name).stdout
        assert all(str(value) in shown for value in found.values())
        assert f"preprocess --dataset {name} " in found["convert"]
    assert facts["nmnist"]["expected"] == "recordings: 60,000 train, 10,000 test; images: 60,000 train, 10,000 test"
    whole = {"ncaltech101": "8,709 unsplit", "cepdvs": "10,000 unsplit", "cifar10dvs": "10,000 unsplit"}
    whole |= {"nomniglot": "24,345 train, 8,115 test", "esimagenet": "1,257,035 train, 49,881 test"}
    for name, counts in whole.items():
        assert facts[name]["expected"].startswith(f"recordings: {counts};")
    assert "7,839 and 870" in facts["ncaltech101"]["splits"]
    assert "CC BY-SA 4.0" in invoke("datasets", "nmnist").stdout
    assert "did you mean nmnist" in invoke("datasets", "nmnst", code=1).stderr


def test_dry_run_says_what_is_missing_and_how_long_it_would_take(tmp_path):
    nmnist = write_nmnist_raw(tmp_path / "nmnist")
    folders = ["--dataset", "nmnist", "--events", nmnist, "--static", nmnist]
    found = json.loads(invoke("preprocess", *folders, "--dry-run", "--json", "--workers", 1).stdout)
    assert found["missing"] == ["found 12 of 60,000 train recordings", "found 6 of 10,000 test recordings"]
    assert found["about_seconds"] >= 0
    assert found["output_bytes"] > 0


def test_filters_and_binning_from_the_command_line(raw, tmp_path):
    options = ["--dataset", "digits", "--events", raw, "--static", raw, "--out", tmp_path / "set", *SMALL]
    chosen = ["--binning", "count", "--time-window", "0:200000", "--refractory-us", "500", "--hot-pixels", "9"]
    invoke("preprocess", *options, *chosen)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    wanted = {"binning": "count", "time_window_us": [0, 200000], "refractory_us": 500, "hot_pixels": 9.0}
    assert {name: manifest["settings"][name] for name in wanted} == wanted
    assert manifest["events"]["filtered_time_window"] > 0
    assert "START:STOP" in invoke("preprocess", *options, "--time-window", "late", code=2).output
    refused = invoke("preprocess", *options, *chosen, "--refractory-us", "600", code=1).output
    assert "refractory_us: 500 there, 600 wanted" in refused


def test_dry_run_writes_nothing(raw, tmp_path):
    options = [
        "--dataset",
        "digits",
        "--events",
        raw,
        "--static",
        raw,
        "--out",
        tmp_path / "set",
        "--dry-run",
        "--json",
    ]
    result = invoke("preprocess", *options)
    summary = json.loads(result.stdout)
    assert summary["recordings"] == 110
    assert summary["test"] == 30
    assert "found 80 of 1,438 train recordings" in result.stderr
    assert not (tmp_path / "set").exists()


def test_flags_win_over_the_recipe_and_the_hash_says_so():
    plain = invoke("preprocess", "--recipe", "digits", "--settings-hash").stdout
    assert plain == invoke("preprocess", "--dataset", "digits", "--settings-hash").stdout
    assert plain != invoke("preprocess", "--dataset", "digits", "--time-bins", "3", "--settings-hash").stdout
    assert "not for nmnist" in invoke("preprocess", "--recipe", "digits", "--dataset", "nmnist", code=1).stderr


def test_verify_says_what_it_checked(shards, tmp_path):
    assert "whole, no leaks" in invoke("verify", shards).stdout
    found = json.loads(invoke("verify", shards, "--json").stdout)
    assert found["ok"] is True
    assert found["samples"] == 110
    shutil.copytree(shards, tmp_path / "set")
    (tmp_path / "set" / "static.h5").unlink()
    assert "static.h5: missing" in invoke("verify", tmp_path / "set", code=4).stdout
    assert "manifest" in invoke("verify", tmp_path, code=4).stderr


def test_rejects_end_with_their_own_code(tmp_path):
    raw = write_digits_raw(tmp_path / "raw")
    next((raw / "events" / "Train").rglob("*.bin")).write_bytes(b"12")
    options = ["preprocess", "--dataset", "digits", "--events", raw, "--static", raw, "--out", tmp_path / "set", *SMALL]
    assert "truncated" in invoke(*options, code=1).stderr
    result = invoke(*options, "--max-bad", "1", "--json", code=3)
    assert json.loads(result.stdout)["rejected"] == 1
    lines = (tmp_path / "set" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["reason"] == "truncated"


def test_a_run_folder_holds_everything(trained):
    names = {p.relative_to(trained).as_posix() for p in trained.rglob("*") if p.is_file()}
    assert names >= {
        "config.toml",
        "metrics.jsonl",
        "weights/best.safetensors",
        "weights/last.safetensors",
        "result.json",
        "predictions.csv",
        "report.html",
    }
    rows = (trained / "predictions.csv").read_text().splitlines()
    assert rows[0].startswith("key,label,prediction")
    assert len(rows) == 1 + 30


def test_evaluate_reproduces_the_result(trained, shards):
    result = json.loads((trained / "result.json").read_text())
    again = json.loads(invoke("evaluate", trained, "--shards", shards, "--split", "test", "--json").stdout)
    assert again["accuracy"] == result["test_accuracy"]
    assert again["split"] == "test"
    assert again["samples"] == 30


@pytest.mark.parametrize(
    "name",
    [
        "digits.nir",
        pytest.param("digits.pt2", marks=pytest.mark.long),  # each day by the page on exporting, see test_docs.py
        "digits.safetensors",
    ],
)
def test_an_exported_run_scores_the_same(trained, shards, tmp_path, name):
    form = {".nir": "nir", ".pt2": "torch", ".safetensors": "safetensors"}[(tmp_path / name).suffix]
    made = json.loads(invoke("export", trained, "--format", form, "--out", tmp_path / name, "--json").stdout)
    assert made["file"] == str(tmp_path / name)
    assert (tmp_path / f"{name}.md").read_text().startswith("---\nlicense:")
    trust = ["--trust"] if form == "torch" else []
    found = json.loads(invoke("evaluate", tmp_path / name, "--shards", shards, "--json", *trust).stdout)
    result = json.loads((trained / "result.json").read_text())
    assert found["accuracy"] == found["recorded"] == result["test_accuracy"]
    text = invoke("evaluate", tmp_path / name, "--shards", shards, *trust).stdout
    assert f"the file says {result['test_accuracy']:.1%}" in text
    assert "exists" in invoke("export", trained, "--format", form, "--out", tmp_path / name, code=1).stderr


def test_a_finished_run_prints_its_result(trained, shards):
    before = (trained / "result.json").stat().st_mtime_ns
    options = ["train", "--shards", shards, "--recipe", "digits", "--run", trained, *RECIPE]
    assert "test accuracy" in invoke(*options).stdout
    assert (trained / "result.json").stat().st_mtime_ns == before
    assert "SIMULATED" in invoke(*options).stdout
    assert "Next: " in invoke(*options).stderr
    assert invoke(*options, "--quiet").stderr == ""
    refused = invoke(*options, "--set", "epochs=3", code=1)
    assert "epochs" in refused.stderr


def test_train_ends_with_the_best_earlier_run(trained, shards, tmp_path):
    for name in ("earlier", "run"):
        shutil.copytree(trained, tmp_path / name)
    config = tmp_path / "earlier" / "config.toml"
    config.write_text(config.read_text().replace("\nlr = ", "\nlr = 9"))
    done = invoke("train", "--shards", shards, "--recipe", "digits", "--run", tmp_path / "run", *RECIPE)
    assert f"validation +0.0 points, test +0.0 points against {tmp_path / 'earlier'} (lr 9" in done.stdout


def test_compare_prints_its_table(shards, tmp_path, monkeypatch):
    options = ["compare", "--shards", shards, "--recipe", "digits", "--out", tmp_path / "c", *RECIPE]
    options += ["--backend", "torch"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)  # the report below is of fewer runs
        table = json.loads(invoke(*options, "--seeds", "0,1", "--json").stdout)
    assert table["methods"]["kt"]["n"] == 2
    assert len(table["methods"]["event_only"]["runs"]) == 2
    assert table["methods"]["kt"]["test_accuracy_std"] >= 0
    assert not (tmp_path / "c" / "report.html").exists()
    assert "kt minus event_only" in invoke(*options, "--seeds", "0").stdout
    assert (tmp_path / "c" / "report.html").exists()
    assert json.loads((tmp_path / "c" / "kt-seed0" / "result.json").read_text())["backend"] == "torch"


@pytest.mark.usefixtures("without_matplotlib")
def test_nmnist_needs_no_settings(tmp_path):
    raw = write_nmnist_raw(tmp_path / "raw", train=60, test=20, classes=10)
    out, run = tmp_path / "set", tmp_path / "run"
    options = ["--events", raw / "events", "--static", raw / "static", "--out", out, "--workers", "1"]
    invoke("preprocess", "--dataset", "nmnist", *options)
    result = invoke("train", "--shards", out, "--recipe", "nmnist", "--run", run, "--set", "epochs=1", "--json")
    assert json.loads(result.stdout)["simulated"] is False


def test_report_of_several_runs(trained, shards, tmp_path):
    out = tmp_path / "r.html"
    invoke("report", trained, "--shards", shards, "--out", out)
    assert "<html" in out.read_text()[:200]
    assert "--out" in invoke("report", trained, trained, code=2).stderr
    assert "--overwrite" in invoke("report", trained, "--out", out, code=2).stderr


def test_recipes(tmp_path):
    assert "digits" in invoke("recipes", "list").stdout
    assert "[train]" in invoke("recipes", "show", "digits").stdout
    mine = tmp_path / "mine.toml"
    invoke("recipes", "copy", "digits", mine)
    assert "exists" in invoke("recipes", "copy", "digits", mine, code=1).stderr
    assert json.loads(invoke("recipes", "show", mine, "--json").stdout)["shards"]["dataset"] == "digits"
    assert "good" in invoke("recipes", "validate", mine).stdout
    mine.write_text(mine.read_text().replace("epochs", "epoch").replace('method = "kt"', 'method = "kd"'))
    text = invoke("recipes", "validate", mine, code=1).stderr
    assert "epoch: unknown key; did you mean epochs?" in text
    assert "kd" in text  # every problem at once


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["train", "--shards", "SHARDS", "--recipe", "digits", "--run", "RUN"], 1, "spikebridge preprocess"),
        (["train", "--shards", "SHARDS", "--recipe", "digits", "--run", "RUN", "--device", "cuda", *RECIPE], 1, "CUDA"),
        (
            ["train", "--shards", "SHARDS", "--recipe", "digits", "--run", "RUN", "--expect", "0" * 64, *RECIPE],
            1,
            "000",
        ),
        (["train", "--shards", "SHARDS", "--recipe", "digitz", "--run", "RUN"], 1, "did you mean digits"),
        (["train", "--shards", "SHARDS", "--recipe", "digits", "--run", "RUN", "--set", "epoch=3"], 1, "epochs"),
        (["train", "--shards", "NOWHERE", "--recipe", "digits", "--run", "RUN"], 1, "no such folder"),
        (["train", "--recipe", "digits", "--run", "RUN"], 2, "--shards"),
        (["evaluate", "NOWHERE", "--shards", "SHARDS"], 1, "NOWHERE"),
        (
            ["preprocess", "--dataset", "digits", "--events", "NOWHERE", "--static", "x", "--out", "RUN"],
            1,
            "does not exist",
        ),
        (["preprocess", "--events", "x"], 2, "--dataset"),
        (["simulate", "--sensor", "big", "--out", "RUN"], 2, "346x260"),
        (["compare", "--shards", "SHARDS", "--recipe", "digits", "--seeds", "a", "--out", "RUN"], 2, "whole numbers"),
    ],
)
def test_bad_usage_is_one_paragraph(shards, tmp_path, arguments, code, expected):
    places = {"SHARDS": str(shards), "RUN": str(tmp_path / "run")}
    result = invoke(*(places.get(a, a) for a in arguments), code=code)
    assert expected in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert not (tmp_path / "run" / "result.json").exists()


def test_simulated_images_become_a_shard_set(tmp_path):
    import numpy as np
    from PIL import Image

    for label in ("ant", "bee"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"p{i}.png")
    raw = tmp_path / "raw"
    invoke("simulate", "--images", tmp_path / "photos", "--sensor", "40x30", "--out", raw)
    out = tmp_path / "set"
    options = ["--dataset", "folders", "--events", raw, "--static", raw, "--out", out, "--encoding", "rgb"]
    options += ["--workers", "1"]
    result = json.loads(invoke("preprocess", *options, "--json").stdout)
    assert result["simulated"] is True
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["classes"] == ["ant", "bee"]
    assert manifest["sensor_size"] == [40, 30]
    assert manifest["pairing"]["kind"] == "exact"
    assert "whole, no leaks" in invoke("verify", out).stdout


def test_piped_output_is_quiet_and_results_are_on_stdout(raw, tmp_path):
    command = [sys.executable, str(ROOT / "cli.py"), "preprocess", "--dataset", "digits", "--events", str(raw)]
    command += ["--static", str(raw), "--out", str(tmp_path / "s"), "--json", *SMALL]
    done = run_forked(command, capture_output=True, check=True, env={**os.environ, "COLUMNS": "80"})
    assert json.loads(done.stdout)["splits"]["test"] == 30
    assert "%|" not in done.stderr
    assert "\r" not in done.stderr


def test_options_that_messages_name_are_there():
    """Somebody who follows a message gives the option that it names."""
    known = {
        "--help",
        "--porcelain",
        "--untracked-files",
        "--nproc-per-node",
        "--wide",
        "--narrow",
    }  # others'
    verbs = list(main.commands.values())
    for verb in verbs:
        verbs += verb.commands.values() if isinstance(verb, click.Group) else ()
    known |= {
        word for verb in [main, *verbs] for option in verb.params for word in (*option.opts, *option.secondary_opts)
    }
    unknown = {
        f"{file.relative_to(ROOT)}: {word}"
        for file in [
            *(ROOT / "pipeline").rglob("*.py"),
            *(ROOT / "train").rglob("*.py"),
            *(ROOT / "models").rglob("*.py"),
        ]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", node.value)
        if word not in known
    }
    assert unknown == {"train/verbs/options.py: --epochs"}, "that one says what is given in its place"


def test_no_option_lets_nan_through():
    """Nor infinity, where a range is open; `click.FloatRange` does. Plain floats are settings, which are checked."""
    plain = {
        f"{name} --{option.name}"
        for name, verb in main.commands.items()
        for option in verb.params
        if isinstance(option.type, click.FloatRange) and not isinstance(option.type, FiniteRange)
    }
    assert not plain


def test_verbs_that_show_progress_can_be_quiet(raw, tmp_path):
    for verb in main.commands.values():
        source = Path(inspect.getsourcefile(inspect.unwrap(verb.callback))).read_text()
        showing = "progress_bar" in source or "byte_bar" in source
        assert not showing or "quiet" in [option.name for option in verb.params], verb.name
    options = ["preprocess", "--dataset", "digits", "--events", raw, "--static", raw, "--out", tmp_path / "s", *SMALL]
    assert "Next: " in invoke(*options, "--dry-run").stderr
    for more in (["--dry-run"], []):  # what is left are the warnings
        assert all(line.startswith("found ") for line in invoke(*options, *more, "--quiet").stderr.splitlines())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_too_little_memory_is_a_paragraph(monkeypatch, error):
    def fail(**_):
        raise error

    monkeypatch.setattr(main.commands["datasets"], "callback", fail)
    done = CliRunner().invoke(main, ["datasets"])
    assert done.exit_code == 1
    assert "not enough memory for this" in done.output


@pytest.fixture
def hears_ctrl_c():
    """Also where the tests run in the background, and inherit SIGINT as ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_on_a_terminal_an_interruption_has_a_line_of_its_own(monkeypatch):
    def interrupted(**_):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        raise KeyboardInterrupt

    monkeypatch.setattr(main.commands["datasets"], "callback", interrupted)
    done = CliRunner().invoke(main, ["datasets"])
    assert (done.exit_code, done.output[:12]) == (cli.INTERRUPTED, "\nInterrupted")


@pytest.mark.usefixtures("hears_ctrl_c")
def test_a_ctrl_c_of_which_a_library_makes_another_error_counts(monkeypatch):
    def swallow(**_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(60)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape of an object") from None

    monkeypatch.setattr(main.commands["datasets"], "callback", swallow)
    done = CliRunner().invoke(main, ["datasets"])
    assert done.exit_code == cli.INTERRUPTED
    assert done.output.startswith("Interrupted"), "no terminal, no bar before it"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("hears_ctrl_c")
def test_a_ctrl_c_while_something_is_deleted_counts():
    """Python prints an exception of a destructor and goes on; a Ctrl-C there comes again, until a verb answers it."""

    def wait():
        cli._over.clear()
        cli._interrupt_again(SimpleNamespace(exc_type=KeyboardInterrupt))
        with suppress(KeyboardInterrupt):  # as where the repeated one comes in a destructor, too
            threading.Event().wait(60)
        threading.Event().wait(60)

    try:
        with pytest.raises(KeyboardInterrupt):
            wait()
    finally:
        cli._over.set()
    cli._interrupt_again(SimpleNamespace(exc_type=KeyboardInterrupt))
    threading.Event().wait(0.05)  # none comes behind the end
