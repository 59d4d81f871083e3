#!/usr/bin/env bash
# tonic 1.7.0: ToVoxelGrid counts OFF events as ON where polarities are booleans, which is the type that tonic.io gives them.
# Its points in time are not those of the paper it names, so that the events together count less than their number.
# Makes a temporary folder, installs pinned packages there, runs them on valid events, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tonic==1.7.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import numpy as np
from tonic.io import events_struct, make_structured_array
from tonic.transforms import ToVoxelGrid

print("tonic", importlib.metadata.version("tonic"), "- its events:", events_struct)
t = np.array([0, 30, 70, 100])
place = np.zeros(4, int)
off = make_structured_array(place, place, t, np.zeros(4, bool))
grid = ToVoxelGrid(sensor_size=(1, 1, 2), n_time_bins=2)(off)
print("four OFF events, booleans:", grid.ravel().round(3).tolist())
assert (grid > 0).all(), "OFF events are subtracted now"

integers = make_structured_array(
    place, place, t, np.zeros(4, int), dtype=np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
)
grid = ToVoxelGrid(sensor_size=(1, 1, 2), n_time_bins=2)(integers)
print("the same, integers:", grid.ravel().round(3).tolist())
assert (grid < 0).all(), "OFF events are added now"

# Zhu et al., CVPR 2019, equation 1: t* = (B - 1)(t - t_first) / (t_last - t_first), so that every event counts 1 in all.
scaled = t / 100
paper = -np.array([(1 - scaled).sum(), scaled.sum()])
print("by the paper:", paper.tolist(), "- in all", paper.sum(), "and here", grid.sum().round(3))
assert not np.allclose(grid.ravel(), paper), "the points in time are those of the paper now"
PY
