#!/usr/bin/env bash
# tonic 1.7.0: read_dvs_ibm (AEDAT 3.1, DVS128 Gesture) fails on every file: it takes two of three values of its own function.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tonic==1.7.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata
import struct

import numpy as np
from tonic.io import read_dvs_ibm

print("tonic", importlib.metadata.version("tonic"))
n = 1000
rng = np.random.default_rng(0)
t, x, y, p = np.sort(rng.integers(0, 300_000, n)), rng.integers(0, 128, n), rng.integers(0, 128, n), rng.integers(0, 2, n)
data = np.column_stack([x << 17 | y << 2 | p << 1 | 1, t]).astype("<u4").tobytes()
header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
open("gesture.aedat", "wb").write(header + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, n, n, n) + data)
try:
    _, events = read_dvs_ibm("gesture.aedat")
except ValueError as error:
    print(f"{n} events written; read_dvs_ibm: {error}")
else:
    raise AssertionError(f"it reads {len(events)} now")
PY
