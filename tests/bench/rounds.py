"""Two ways of doing the same work, timed in turn: ours, theirs, ours, theirs, in one process on one thread.

Import this before numpy and the project: it sets the number of threads, and where the project is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))  # this checkout, installed or not

for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse  # noqa: E402
import json  # noqa: E402
import operator  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from dataclasses import asdict, dataclass, field  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from importlib.metadata import version  # noqa: E402


@dataclass
class Row:
    """One comparison; a ratio of speeds above 1 says that ours is faster.

    A row of quantities (bytes kept) has no times, and its ratio is ours / theirs.
    """

    what: str
    ours: str
    theirs: str
    unit: str
    amount: float = 1.0
    """Units that one of our calls does."""
    their_amount: float | None = None
    """Units that one of their calls does; as many if None."""
    our_seconds: list[float] = field(default_factory=list)
    their_seconds: list[float] = field(default_factory=list)
    quantities: tuple[float, float] | None = None
    bars: tuple[float | None, float | None] = (None, None)
    """What is to be reached: units per second, and the ratio; of quantities the most that ours and the ratio may be."""
    peak: str = ""
    """Which part of the machine's peak ours reaches, with the peak's name; empty where it is not known."""

    @property
    def ratios(self) -> list[float]:
        """Of each round; for quantities the only one."""
        if self.quantities:
            return [self.quantities[0] / self.quantities[1]]
        return [ours / theirs for ours, theirs in zip(*self.speeds, strict=True)]

    @property
    def speeds(self) -> tuple[list[float], list[float]]:
        """Units per second of each round, ours and theirs."""
        theirs = self.amount if self.their_amount is None else self.their_amount
        return [self.amount / s for s in self.our_seconds], [theirs / s for s in self.their_seconds]

    def judged(self) -> str:
        """The bars with what became of them, by the medians; empty where there is none."""
        if self.quantities:
            reached, better = [self.quantities[0], self.ratios[0]], operator.le
            texts = f"{{:,.0f}} {self.unit}", "{:g}"
        else:
            reached = [statistics.median(self.speeds[0]), statistics.median(self.ratios)]
            texts, better = (f"{{:,.0f}} {self.unit}/s", "{:g}x"), operator.ge
        shown = []
        for bar, value, text in zip(self.bars, reached, texts, strict=True):
            if bar is not None:
                shown.append(f"{text.format(bar)} {'reached' if better(value, bar) else 'missed'}")
        return ", ".join(shown)

    def cells(self) -> tuple[str, str, str, str]:
        """What, ours, theirs, ratio as text."""
        if self.quantities:
            ours, theirs = (f"{value:,.1f} {self.unit}" for value in self.quantities)
            ratio = f"{self.ratios[0]:.2f} of theirs"
        else:
            ours, theirs = (f"{_rounded(statistics.median(each))} {self.unit}/s" for each in self.speeds)
            low, median, high = quartiles(self.ratios)
            ratio = f"{median:.2f}x" + (f" ({low:.2f}-{high:.2f})" if len(self.ratios) > 1 else "")
        return self.what, f"{ours} {self.ours}", f"{theirs} {self.theirs}", ratio


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def compare(
    row: Row,
    ours: Callable[[int], object],
    theirs: Callable[[int], object],
    *,
    rounds: int,
    our_repeats: int = 1,
    their_repeats: int = 1,
) -> Row:
    """Time both in turn, after one untimed round, and fill the row with seconds per call.

    Args:
        row: what is compared.
        ours: called with the number of the round, 0 for the untimed one.
        theirs: the same.
        rounds: timed rounds.
        our_repeats: calls per round, so that a fast one is long enough for the clock.
        their_repeats: the same.
    """
    for number in range(rounds + 1):
        for work, repeats, seconds in (
            (ours, our_repeats, row.our_seconds),
            (theirs, their_repeats, row.their_seconds),
        ):
            started = time.perf_counter()
            for _ in range(repeats):
                work(number)
            if number:
                seconds.append((time.perf_counter() - started) / repeats)
    return row


def machine(packages: Sequence[str]) -> dict[str, str]:
    """What the times were taken on, in words; the load says how quiet it was."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line.partition(":")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].strip() if models else cpu
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _commit() -> str:
    """The commit of this checkout, with a + where files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def arguments(
    description: str, more: Callable[[argparse.ArgumentParser], object] = lambda _: None
) -> argparse.Namespace:
    """Command line of a benchmark; `more` adds to it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every round's seconds here, and the table beside it as .md"
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes: shows that it runs, its times mean nothing")
    more(parser)
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}; expected 1 or more.")
    return given


def report(
    rows: Sequence[Row], *, packages: Sequence[str], given: argparse.Namespace, more: Mapping[str, str] | None = None
) -> None:
    """Print the machine (with `more` about it) and the table; write the raw rows where they are wanted."""
    head, table = _told(rows, facts := machine(packages) | dict(more or {}), given)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    print(head)
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    save(rows, facts, given)


def save(rows: Sequence[Row], facts: Mapping[str, str], given: argparse.Namespace) -> None:
    """Write the raw rows with what is known of the machine, and the table beside them, where they are wanted."""
    if not given.json:
        return
    content = {"machine": dict(facts), "small": given.small, "rows": [asdict(row) for row in rows]}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(content, indent=1) + "\n")
    head, table = _told(rows, facts, given)
    lines = [f"| {' | '.join(line)} |" for line in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    given.json.with_suffix(".md").write_text("\n".join((head.replace("\n", "\n\n"), "", *lines)) + "\n")


def _told(
    rows: Sequence[Row], facts: Mapping[str, str], given: argparse.Namespace
) -> tuple[str, list[tuple[str, ...]]]:
    head = "; ".join(f"{name} {value}" for name, value in facts.items() if name != "left out")
    head += f"\none thread; rounds in turn: {given.rounds}; medians, and the ratio's quartiles"
    head += f"\nleft out: {facts['left out']}" if "left out" in facts else ""
    table: list[tuple[str, ...]] = [("what", "ours", "theirs", "ratio", "of the peak", "bar")]
    table += [(*row.cells(), row.peak, row.judged()) for row in rows]
    used = [column for column in range(len(table[0])) if column < 4 or any(line[column] for line in table[1:])]
    return head, [tuple(line[column] for column in used) for line in table]
