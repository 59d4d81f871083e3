"""Tab completes in a real bash after one command; the start file gets one line, once."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest
from conftest import ROOT

PROGRAM = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
from spikebridge.cli import main
main()
"""


@pytest.fixture
def home(tmp_path):
    """A home folder with `spikebridge` on its path, and the environment of someone who lives there."""
    program = tmp_path / "bin" / "spikebridge"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ZDOTDIR"))}
    path = f"{program.parent}:{os.environ['PATH']}"
    return tmp_path, {**kept, "HOME": str(tmp_path), "PATH": path, "SHELL": "/bin/bash", "TERM": "dumb"}


def spikebridge(home, *arguments, check=True):
    folder, environment = home
    command = [folder / "bin" / "spikebridge", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=check)


def type_into_bash(home, keys, expected, seconds=60):
    """What an interactive bash shows after these keys, up to `expected`."""
    folder, environment = home
    terminal, inside = pty.openpty()
    bash = subprocess.Popen(
        ["bash", "-i"], cwd=folder, env=environment, stdin=inside, stdout=inside, stderr=inside, start_new_session=True
    )
    os.close(inside)
    shown, end, sent = "", time.monotonic() + seconds, False
    try:
        while expected not in shown and time.monotonic() < end:
            if not sent and "ready$ " in shown:
                os.write(terminal, keys)
                sent = True
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 4096).decode(errors="replace")
    finally:
        bash.kill()
        bash.wait()
        os.close(terminal)
    return shown


def test_tab_completes_in_bash(home):
    folder, _ = home
    (folder / ".bashrc").write_text("PS1='ready$ '")
    text = spikebridge(home, "completion", "--install").stdout
    assert str(folder / ".bashrc") in text
    # Tab, then to the start of the line: what was completed is echoed rather than run
    shown = type_into_bash(home, b"spikebridge doct\t--js\t\x01echo got: \n", "got: spikebridge doctor --json")
    assert "got: spikebridge doctor --json" in shown


def test_installing_twice_adds_one_line(home):
    folder, _ = home
    (folder / ".bashrc").write_text("export A=1")
    for _ in range(2):
        spikebridge(home, "completion", "--install")
    lines = (folder / ".bashrc").read_text().splitlines()
    assert len(lines) == 2
    assert lines[0] == "export A=1"
    assert "spikebridge.bash" in lines[1]


@pytest.mark.parametrize(
    ("shell", "changed"),
    [
        ("zsh", [".local/share/spikebridge/spikebridge.zsh", ".zshrc"]),
        ("fish", [".config/fish/completions/spikebridge.fish"]),
    ],
)
def test_other_shells(home, shell, changed):
    folder, _ = home
    script = spikebridge(home, "completion", shell).stdout
    assert "_SPIKEBRIDGE_COMPLETE" in script
    spikebridge(home, "completion", shell, "--install")
    assert (folder / changed[0]).read_text() == script
    made = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert made == {"bin/spikebridge", *changed}
    if shutil.which(shell):
        subprocess.run([shell, "-n", folder / changed[0]], check=True)


def test_an_unknown_shell_is_told(home):
    folder, environment = home
    done = spikebridge((folder, {**environment, "SHELL": "/bin/csh"}), "completion", check=False)
    assert done.returncode == 2
    assert "bash, zsh or fish" in done.stderr
