"""Everything that does not fit into `make test`: all tests, the fuzzing, random crossings; and a summary to keep.

Command:   make test-long [SECONDS=60], which calls python tests/long_run.py --seconds 60 --out docs/results/...md
Exit code: that of pytest, the fuzzing or the crossings; the summary is written in either case.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "bench"))

from rounds import machine  # noqa: E402

SLOW_S = 20
"""Tests that take longer are named in the summary, in seconds."""


def run_tests(options: list[str]) -> tuple[int, list[str]]:
    """Run pytest; returns its exit code and lines of the summary."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        started = time.monotonic()
        code = subprocess.run([sys.executable, "-m", "pytest", *options, f"--junitxml={report}"], cwd=ROOT).returncode  # noqa: PLW1510
        minutes = (time.monotonic() - started) / 60
        suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    counts = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    lines = [
        f"pytest {' '.join(options)}: {counts['tests']:,} tests in {minutes:.0f} minutes, {counts['failures']} failed, "
        f"{counts['errors']} errors, {counts['skipped']} skipped, exit code {code}.",
        "",
        "| test | seconds | outcome |",
        "|---|---|---|",
    ]
    cases = [(float(case.get("time", "0")), case) for case in suite.iter("testcase")]
    for seconds, case in sorted(cases, key=lambda pair: -pair[0]):
        bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        if seconds >= SLOW_S or bad:
            name = f"{case.get('classname', '').removeprefix('tests.')}.{case.get('name')}".replace("|", "\\|")
            lines.append(f"| `{name}` | {seconds:.0f} | {bad[0] if bad else 'passed'} |")
    return code, lines


def run_fuzzing(seconds: int) -> tuple[int, list[str]]:
    """Run `make fuzz`; returns its exit code and lines of the summary."""
    command = ["make", "--no-print-directory", "fuzz", f"SECONDS={seconds}"]
    lines = ["", f"make fuzz SECONDS={seconds}:", "", "| parser | inputs | seconds |", "|---|---|---|"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as fuzzing:
        assert fuzzing.stdout is not None
        parser = "?"
        for line in fuzzing.stdout:
            if began := re.search(r"artifact_prefix=(\w+)-|found in corpus/(\w+)", line):
                parser = began[1] or began[2]
            if done := re.search(r"Done (\d+) runs in (\d+) second", line):
                lines.append(f"| {parser} | {int(done[1]):,} | {done[2]} |")
            elif "ERROR" in line or "Test unit written" in line or "Traceback" in line:
                lines.append(f"| {parser} | {line.strip()} | |")
            print(line, end="", flush=True)
    return fuzzing.returncode, [*lines, "", f"Exit code {fuzzing.returncode}."]


def run_chaos(seconds: int) -> tuple[int, list[str]]:
    """Run `make chaos`; returns its exit code and lines of the summary."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "chaos.md"
        command = ["make", "--no-print-directory", "chaos", f"SECONDS={seconds}", f"REPORT={report}"]
        code = subprocess.run(command, cwd=ROOT).returncode  # noqa: PLW1510
        lines = report.read_text().splitlines()[4:] if report.exists() else ["No summary."]
    return code, ["", f"make chaos SECONDS={seconds}:", "", *lines, "", f"Exit code {code}."]


def main() -> None:
    """Run both and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="fuzzing of each parser, and all crossings; 0: neither")
    parser.add_argument("--out", type=Path, required=True, help="summary, a .md file")
    parser.add_argument("options", nargs="*", default=["-n", "2"], help="options of pytest after -- (default: -n 2)")
    given = parser.parse_args()
    facts = machine(("numpy", "torch", "pytest", "hypothesis"))
    code, lines = run_tests(given.options)
    if given.seconds:
        for run in (run_fuzzing, run_chaos):
            other, more = run(given.seconds)
            code, lines = code or other, lines + more
    head = "; ".join(f"{name} {value}" for name, value in facts.items())
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n".join(["# make test-long", "", head, "", *lines]) + "\n")
    print(f"summary: {given.out}")
    sys.exit(code)


if __name__ == "__main__":
    main()
