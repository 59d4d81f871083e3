"""The tests themselves: what they share lies in tests/support, and they pass in the background as in a terminal."""

import ast
import re
import signal
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT
from interruptible import start_interruptible

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
    process = start_interruptible([sys.executable, "-c", ASKS], stdout=subprocess.PIPE)
    assert process.communicate()[0] == b"True\n"
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_who_sends_sigint_starts_processes_that_hear_it():
    sends = re.compile(r"\b(send_signal|kill|killpg)\(")
    texts = {path: path.read_text() for path in FILES}
    senders = [path for path, text in texts.items() if "SIGINT" in text and sends.search(text)]
    assert len(senders) >= 3
    for path in senders:
        assert "start_interruptible" in texts[path], path
