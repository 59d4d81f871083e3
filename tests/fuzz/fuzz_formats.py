"""Coverage-guided fuzzing of everything that parses files from elsewhere.

Command:   make fuzz, or python tests/fuzz/fuzz_formats.py TARGET [options of libFuzzer]
Finding:   any exception but the project's own, a hang of 10 seconds, more than 2 GiB of memory, a crash; the bytes are
           left in a file that libFuzzer names
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(folder) for folder in (TESTS.parent / "src", TESTS, TESTS / "support")]

PIPELINE = TESTS.parent / "pipeline"
KERNELS = [  # numba does not compile what atheris has changed
    ".".join(("spikebridge", *path.relative_to(PIPELINE.parent).with_suffix("").parts))
    for path in PIPELINE.rglob("*.py")
    if "njit" in path.read_text()
]
with atheris.instrument_imports(include=["spikebridge.pipeline", "numpy.lib", "zipfile", "pickle"], exclude=KERNELS):
    from fuzz.format_targets import TARGETS, check


def main(name: str, options: list[str]) -> None:
    """Fuzz one target, from its valid files on."""
    corpus = Path("corpus") / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
        check(name, seed)  # compiles what it needs, which may take longer than an input may
    limits = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=8192", f"-artifact_prefix={name}-"]
    atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], lambda data: check(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: fuzz_formats.py TARGET; one of {', '.join(sorted(TARGETS))}")
    main(sys.argv[1], sys.argv[2:])
