#!/usr/bin/env bash
# expelliarmus 1.1.12: times of EVT 3.0 run up to twice as fast as the time words say.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check expelliarmus==1.1.12 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import expelliarmus
import numpy as np

print("expelliarmus", importlib.metadata.version("expelliarmus"))
# One event every 100 us for 300 ms; TIME_HIGH and TIME_LOW words before each, as a camera writes them.
t = np.arange(0, 300_000, 100)
words = [w for one in t.tolist() for w in (0x8000 | one >> 12, 0x6000 | one & 0xFFF, 0x0005, 0x2000 | 10)]
header = b"% evt 3.0\n% format EVT3;height=480;width=640\n% geometry 640x480\n% end\n"
open("a.raw", "wb").write(header + np.array(words, "<u2").tobytes())
read = expelliarmus.Wizard(encoding="evt3").read("a.raw")["t"].astype(np.int64)
print(f"{len(t)} events, the last at {t[-1]:,} us; read: {len(read)}, the last at {read[-1]:,} us")
assert read[-1] != t[-1], "times are right now"
PY
