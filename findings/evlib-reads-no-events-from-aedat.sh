#!/usr/bin/env bash
# evlib 0.13.2: valid AEDAT 3.1 and AEDAT 2.0 files give 0 events, without an error.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check evlib==0.13.2 numpy==2.4.6 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata
import struct

import evlib
import numpy as np

print("evlib", importlib.metadata.version("evlib"))
n = 1000
rng = np.random.default_rng(0)
t, x, y, p = np.sort(rng.integers(0, 300_000, n)), rng.integers(0, 128, n), rng.integers(0, 128, n), rng.integers(0, 2, n)
# AEDAT 3.1 of a DVS128, as in DVS128 Gesture: one packet of polarity events, all valid.
data = np.column_stack([x << 17 | y << 2 | p << 1 | 1, t]).astype("<u4").tobytes()
header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
open("gesture.aedat", "wb").write(header + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, n, n, n) + data)
# AEDAT 2.0 of a DVS128, as in CIFAR10-DVS.
data = np.column_stack([(127 - x) << 1 | y << 8 | 1 - p, t]).astype(">u4").tobytes()
header = b"#!AER-DAT2.0\r\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
open("dvs128.aedat", "wb").write(header + data)
for name in ("gesture.aedat", "dvs128.aedat"):
    frame = evlib.load_events(name)
    count = len(frame.collect() if hasattr(frame, "collect") else frame)
    print(f"{name}: {n} events written, {count} read, no error")
    assert count == 0, "it reads some now"
PY
