#!/usr/bin/env bash
# loris 0.5.3 skips the first line of every csv: without a line of names the first event is lost.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check loris==0.5.3 numpy==1.26.4 tqdm==4.67.1
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import loris

print("loris", importlib.metadata.version("loris"))
rows = [(100 * i, i % 300, i % 200, i % 2) for i in range(1, 1001)]
open("events.csv", "w").write("".join(f"{t},{x},{y},{p}\n" for t, x, y, p in rows))
read = loris.read_file("events.csv")["events"]
print(f"{len(rows)} events written, the first at {rows[0][0]} us; {len(read)} read, the first at {int(read['t'][0])} us")
assert len(read) == len(rows) - 1, "all are read now"
PY
