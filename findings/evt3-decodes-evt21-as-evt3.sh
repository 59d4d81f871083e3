#!/usr/bin/env bash
# evt3 0.4.1: a valid EVT 2.1 file, which says so in its header, is decoded as EVT 3.0: other events, no error.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check evt3==0.4.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import evt3
import numpy as np

print("evt3", importlib.metadata.version("evt3"))
# EVT 2.1: 64-bit words of a time or of a mask of 32 pixels above x, y and the low bits of the time.
rng = np.random.default_rng(0)
words = []
for step in range(1000):
    words.append((8 << 28 | step) << 32)
    x, y = int(rng.integers(0, 640)), int(rng.integers(0, 480))
    words.append((1 << 28 | 5 << 22 | (x & ~31) << 11 | y) << 32 | 1 << (x & 31))
header = b"% evt 2.1\n% format EVT21;endianness=little;height=480;width=640\n% geometry 640x480\n% end\n"
open("a.raw", "wb").write(header + np.array(words, "<u8").tobytes())
try:
    events = evt3.decode_file("a.raw")
except Exception as error:
    raise SystemExit(f"it is refused now: {error}")
count = len(events.x)
print("1,000 events written as EVT 2.1, whose header says evt 2.1;", count, "events read, no error")
assert count != 1000, "it is read rightly now"
PY
