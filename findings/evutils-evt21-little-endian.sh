#!/usr/bin/env bash
# evutils 0.3.18: an EVT 2.1 file in today's order of bytes (endianness=little) gives many times its events.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check evutils==0.3.18 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import numpy as np
from evutils.io import EventReader

print("evutils", importlib.metadata.version("evutils"))
rng = np.random.default_rng(0)
words = []
for step in range(1000):
    words.append((8 << 28 | step) << 32)
    x, y = int(rng.integers(0, 640)), int(rng.integers(0, 480))
    words.append((1 << 28 | 5 << 22 | (x & ~31) << 11 | y) << 32 | 1 << (x & 31))
header = b"% evt 2.1\n% format EVT21;endianness=little;height=480;width=640\n% geometry 640x480\n% end\n"
open("a.raw", "wb").write(header + np.array(words, "<u8").tobytes())
count = len(EventReader("a.raw").read_all())
print("1,000 events written;", f"{count:,} events read, no error")
assert count != 1000, "it is read rightly now"
PY
