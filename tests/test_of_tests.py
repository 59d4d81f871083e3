"""The tests themselves: what they share lies in tests/support, and they pass in the background as in a terminal."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT
from forked import Forked, run_forked

FILES = sorted((ROOT / "tests").rglob("*.py"))
ASKS = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def imported(path):
    """First names of what a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.partition(".")[0]


def test_no_test_module_imports_another():
    modules = {path.stem for path in FILES if path.stem.startswith("test_")}
    assert len(modules) == sum(path.stem.startswith("test_") for path in FILES), "two test modules of one name"
    for path in FILES:
        assert not modules & set(imported(path)), path
    paths = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["pythonpath"]
    assert paths == ["src", "tests", "tests/support"]


@pytest.fixture
def in_the_background():
    """SIGINT ignored, as the children of `nohup bash -c "pytest &"` inherit it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_the_background")
def test_a_process_of_a_test_hears_ctrl_c():
    assert subprocess.run([sys.executable, "-c", ASKS], capture_output=True, check=True).stdout == b"False\n"
    process = Forked([sys.executable, "-c", ASKS], stdout=subprocess.PIPE)
    assert process.communicate()[0] == "True\n"


def test_who_sends_sigint_starts_processes_that_hear_it():
    sends = re.compile(r"\b(send_signal|kill|killpg)\(")
    texts = {path: path.read_text() for path in FILES}
    senders = [path for path, text in texts.items() if "SIGINT" in text and sends.search(text)]
    assert len(senders) >= 3
    for path in senders:
        assert "Forked(" in texts[path] or "signal.SIGINT, signal.default_int_handler" in texts[path], path


ENDS = {
    "print('done'); import sys; print('so', file=sys.stderr)": (0, "done\n", "so"),
    "import sys; sys.exit(7)": (7, "", ""),
    "import sys; sys.exit('a sentence')": (1, "", "a sentence"),
    "1 / 0": (1, "", "ZeroDivisionError: division by zero"),
    "raise KeyboardInterrupt": (-signal.SIGINT, "", "KeyboardInterrupt"),
    "import os; os.kill(os.getpid(), 11)": (-signal.SIGSEGV, "", ""),
    "import atexit; atexit.register(print, 'last')": (0, "last\n", ""),
    "import threading; threading.Timer(0.01, print, ['late']).start()": (0, "late\n", ""),
}


@pytest.mark.parametrize("code", ENDS)
def test_a_forked_process_ends_as_any_other(code):
    found = []
    for start in (run_forked, subprocess.run):
        done = start([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        found.append((done.returncode, done.stdout, "".join(done.stderr.splitlines()[-1:])))
    assert found == [ENDS[code]] * 2


def test_a_forked_process_has_its_own_surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.customized = True")
    (tmp_path / "module.py").write_text(
        "import json, os, sys, time\n"
        "print(json.dumps([__name__, sys.argv[1:], sys.customized, sys.path[:3], os.getcwd(), time.tzname[0],"
        " sorted(os.listdir('/proc/self/fd')), os.getsid(0) == os.getpid(), oct(os.umask(0))]))\n"
        "import pathlib; pathlib.Path('large').write_bytes(bytes(3000))\n"
    )
    for words in ([tmp_path / "module.py"], ["-m", "module"]):
        done = run_forked(
            [sys.executable, *words, "more"],
            cwd=tmp_path, capture_output=True, start_new_session=True, umask=0o27, largest_file=2000,
        )  # fmt: skip
        path = [str(tmp_path), str(tmp_path), str(ROOT / "src")]
        wanted = ["__main__", ["more"], True, path, str(tmp_path), "+0545", ["0", "1", "2", "3"], True, "0o27"]
        assert json.loads(done.stdout) == wanted
        assert done.returncode == 1
        assert "File too large" in done.stderr
    with pytest.raises(AssertionError, match="PYTHONHASHSEED is read when a process starts"):
        Forked([sys.executable, "-c", ""], env={**os.environ, "PYTHONHASHSEED": "7"})
    with pytest.raises(subprocess.TimeoutExpired):
        run_forked([sys.executable, "-c", "import time; time.sleep(100)"], timeout=0.1)
