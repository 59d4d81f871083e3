#!/usr/bin/env bash
# snntorch 1.0.0: import_from_nir makes of nir.IF, which leaks nothing, a neuron with beta 0.9 that resets by subtraction.
# It says nothing of it. 0.3 at every step crosses 0.85 at steps 3, 6, 9, 12; here at 4, 7, 10.
# Makes a temporary folder, installs pinned packages there, runs them on a valid graph, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check snntorch==1.0.0 nir==1.0.8 nirtorch==2.6 torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import contextlib
import importlib.metadata
import io

import nir
import numpy as np
import torch
from snntorch.import_nir import import_from_nir

print("snntorch", importlib.metadata.version("snntorch"))
one = np.ones(1)
neuron = nir.IF(r=one, v_threshold=0.85 * one, v_reset=0 * one)
graph = nir.NIRGraph.from_list(nir.Input(np.array([1])), nir.Affine(np.eye(1), 0 * one), neuron, nir.Output(np.array([1])))
with contextlib.redirect_stdout(io.StringIO()):
    net = import_from_nir(graph)
(made,) = (module for module in net.modules() if type(module).__name__ == "Leaky")
print("nir.IF became Leaky with beta", float(made.beta), "and reset by", made.reset_mechanism)
potential, spikes = torch.zeros(1), []
for _ in range(12):
    fired, potential = made(torch.full((1,), 0.3), potential)
    spikes.append(int(fired))
v, expected = 0.0, []
for _ in range(12):
    v += 0.3
    expected.append(int(v > 0.85))
    v = 0.0 if v > 0.85 else v
print("by the definition", expected, "here", spikes)
assert spikes != expected, "IF is read rightly now"
PY
