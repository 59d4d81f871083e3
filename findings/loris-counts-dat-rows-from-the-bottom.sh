#!/usr/bin/env bash
# loris 0.5.3 counts y of a Prophesee DAT file from the bottom; expelliarmus 1.1.12 reads the same bytes as stored.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check loris==0.5.3 expelliarmus==1.1.12 numpy==1.26.4 tqdm==4.67.1
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import expelliarmus
import loris
import numpy as np

print(*(f"{name} {importlib.metadata.version(name)}" for name in ("loris", "expelliarmus", "numpy")))
n = 1000
t, x, y, p = np.arange(n) * 100, np.arange(n) % 304, np.arange(n) % 200, np.arange(n) % 2
records = np.stack([t, x | y << 14 | p << 28], axis=1).astype("<u4")
header = b"% Data file containing CD events.\n% Version 2\n% Height 240\n% Width 304\n"
open("cd.dat", "wb").write(header + bytes([0x0C, 8]) + records.tobytes())
one = loris.read_file("cd.dat")["events"]
other = expelliarmus.Wizard(encoding="dat").read("cd.dat")
print("stored y      ", y[:5].tolist())
print("loris         ", one["y"][:5].tolist())
print("expelliarmus  ", other["y"][:5].tolist())
assert (other["y"] == y).all() and (one["x"] == x).all()
assert (one["y"] == 239 - y).all(), "y is as stored now"
PY
