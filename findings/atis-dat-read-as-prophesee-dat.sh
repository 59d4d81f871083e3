#!/usr/bin/env bash
# expelliarmus 1.1.12 and evutils 0.3.18 read DAT files of the ATIS (version 1: 9 bits of x, 8 of y, polarity in bit 17) in
# the layout of version 2, without an error: nearly every place is wrong.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check expelliarmus==1.1.12 evutils==0.3.18 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import expelliarmus
import numpy as np
from evutils.io import EventReader

print(*(f"{name} {importlib.metadata.version(name)}" for name in ("expelliarmus", "evutils")))
n = 1000
t, x, y, p = np.arange(n) * 100, np.arange(n) % 304, np.arange(n) % 240, np.arange(n) // 2 % 2
records = np.stack([t, x | y << 9 | p << 17], axis=1).astype("<u4")
header = b"% Data file containing CD events.\n% Version 1\n% Height 240\n% Width 304\n"
open("atis.dat", "wb").write(header + bytes([0x00, 8]) + records.tobytes())
for name, read in (
    ("expelliarmus", expelliarmus.Wizard(encoding="dat").read("atis.dat")),
    ("evutils", EventReader("atis.dat").read_all()),
):
    right = (read["x"] == x) & (read["y"] == y) & (read["p"] == p)
    print(f"{name}: {len(read)} events, {int(right.sum())} as stored; largest x {int(read['x'].max())} of 303")
    assert right.mean() < 0.5, f"{name} reads the layout of the ATIS now"
PY
