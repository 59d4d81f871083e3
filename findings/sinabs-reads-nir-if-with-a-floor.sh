#!/usr/bin/env bash
# sinabs 3.1.3: from_nir makes of nir.IF a neuron whose potential stops at minus its threshold, and that spikes several times a step.
# It says nothing of it, and NIR has no floor: 2, -4, 2, 2 at threshold 1 spikes 2, 0, 1, 2 here; by the definition 1, 0, 0, 0.
# Makes a temporary folder, installs pinned packages there, runs them on a valid graph, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check nir==1.0.4 nirtorch==2.0.2 torch==2.13.0 numpy==2.4.6 pbr==7.1.3 matplotlib==3.11.2
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps sinabs==3.1.3
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import nir
import numpy as np
import torch
from sinabs.nir import from_nir

print("sinabs", importlib.metadata.version("sinabs"), "nir", importlib.metadata.version("nir"))
one = np.ones(1)
neuron = nir.IF(r=one, v_threshold=one)
graph = nir.NIRGraph.from_list(nir.Input(np.array([1])), nir.Affine(np.eye(1), 0 * one), neuron, nir.Output(np.array([1])))
steps = [2.0, -4.0, 2.0, 2.0]
with torch.no_grad():
    answer, _ = from_nir(graph, num_timesteps=4)(torch.tensor(steps)[:, None])
spikes = [int(value) for value in answer.flatten()]
v, expected = 0.0, []
for x in steps:  # nir 1.0.4: v > threshold spikes once, and takes the threshold away
    v += x
    expected.append(int(v > 1))
    v -= expected[-1]
print("by the definition", expected, "here", spikes)
assert spikes != expected, "IF is read rightly now"
PY
