#!/usr/bin/env bash
# evlib 0.13.2: text with times in seconds is truncated to microseconds: some events come 1 us early.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check evlib==0.13.2 numpy==2.4.6 pyarrow==26.0.1
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import evlib
import numpy as np

print("evlib", importlib.metadata.version("evlib"))
t = np.arange(1, 20001) * 7
open("events.txt", "w").write("".join(f"{one // 10**6}.{one % 10**6:06d} {i % 300} {i % 200} {i % 2}\n" for i, one in enumerate(t)))
frame = evlib.load_events("events.txt")
frame = frame.collect() if hasattr(frame, "collect") else frame
read = frame["t"].dt.total_microseconds().to_numpy()
early = int((read == t - 1).sum())
print(f"{len(t)} events whose times have 6 decimals; {early} are 1 us early, {int((read == t).sum())} as written")
assert early > 0, "they are rounded now"
PY
