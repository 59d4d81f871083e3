"""Progress without a terminal: lines half a minute apart with the time left, on a clock of the test's own."""

import sys

import click
import numpy as np
import pytest
from click.testing import CliRunner

from spikebridge.pipeline.ui import terminal
from spikebridge.pipeline.ui.lines import LineProgress


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_line_comes_every_half_minute_with_figures_and_the_time_left():
    clock, written = Clock(), []
    lines = LineProgress(total=300, desc="kt seed 0", write=written.append, unit="step", initial=100, clock=clock)
    for _ in range(100):
        clock.seconds += 1
        lines.update(1)
        lines.set_postfix({"left": "9:99", "validation": "0.912"})
    assert written == [
        "kt seed 0: 130 of 300 steps (43 %), 0:30 gone, 2:50 left; validation 0.912",
        "kt seed 0: 160 of 300 steps (53 %), 1:00 gone, 2:20 left; validation 0.912",
        "kt seed 0: 190 of 300 steps (63 %), 1:30 gone, 1:50 left; validation 0.912",
    ]
    clock.seconds = 7300
    lines.update(0)
    assert "2:01:40 gone" in written[-1]


def test_it_counts_items_and_bytes_and_what_has_no_end():
    clock, written = Clock(), []
    for _ in LineProgress([1, 2], desc="files", write=written.append, clock=clock):
        clock.seconds += 40
    assert written == [
        "files: 1 of 2 (50 %), 0:40 gone, 0:40 left",
        "files: 2 of 2 (100 %), 1:20 gone, 0:00 left",
    ]
    with LineProgress(
        total=5 * 10**9, desc="pull", write=written.append, unit="B", unit_scale=True, clock=clock
    ) as bar:
        clock.seconds += 50
        bar.update(10**9)
    assert written[-1] == "pull: 1,000 of 5,000 MB (20 %), 0:50 gone, 3:20 left"
    assert list(LineProgress(np.arange(3), desc="rows", write=written.append, clock=clock)) == [0, 1, 2]
    endless = LineProgress(iter([1]), desc="samples", write=written.append, clock=clock)
    clock.seconds += 31
    endless.update(0)
    assert written[-1] == "samples: 0, 0:31 gone"
    estimated = LineProgress(total=300, desc="fit", write=written.append, unit="run", clock=clock)
    for _ in range(2):
        clock.seconds += 30
        estimated.update(155)
    assert written[-2:] == ["fit: 155 of 300 runs (52 %), 0:30 gone, 0:28 left", "fit: 310 runs, 1:00 gone"]


@pytest.mark.parametrize(("terminal_there", "quiet", "kind"), [(0, 0, "LineProgress"), (1, 0, "tqdm"), (0, 1, "tqdm")])
def test_a_bar_lines_or_nothing(monkeypatch, terminal_there, quiet, kind):
    made = []

    @click.command()
    @terminal.quiet_option
    def verb():
        monkeypatch.setattr(sys.stderr, "isatty", lambda: bool(terminal_there), raising=False)
        bar = terminal.progress_bar(total=3, desc="x", unit="step")
        made.extend([type(bar).__name__, bar.disable])
        bar.close()

    assert CliRunner().invoke(verb, ["--quiet"] if quiet else []).exit_code == 0
    assert made == [kind, bool(quiet)]
