#!/usr/bin/env bash
# event-vision-library 0.0.6 and evlib 0.13.2 install into one folder: evlib loses all of its functions.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
for package in evlib==0.13.2 event-vision-library==0.0.6; do
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$package"
done
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata
import importlib.util
from pathlib import Path

for name in ("evlib", "event-vision-library"):
    print(name, importlib.metadata.version(name), "installed")
module = Path(importlib.util.find_spec("evlib").origin)
print("evlib/__init__.py speaks of load_events:", "load_events" in module.read_text())
assert "load_events" not in module.read_text(), "they live beside each other now"
PY
