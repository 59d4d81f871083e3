#!/usr/bin/env bash
# snn-mlir 1.0.0: a nir.LIF with r = 1 (the form without gain) is read as a neuron without memory, whatever its tau.
# It takes tau / r for the time step, `check` finds nothing, and no argument gives the time step.
# Makes a temporary folder, installs pinned packages there, runs them on a valid graph, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check snn-mlir==1.0.0 nir==1.0.8 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import nir
import numpy as np
from snn_mlir import check
from snn_mlir._graph import parse_graph

print("snn-mlir", importlib.metadata.version("snn-mlir"))
one = np.ones(1)
decays = {}
for name, r in (("r = tau / dt", 20.0), ("r = 1", 1.0)):
    neuron = nir.LIF(tau=0.02 * one, r=r * one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)
    graph = nir.NIRGraph.from_list(nir.Input(np.array([1])), nir.Linear(np.eye(1)), neuron, nir.Output(np.array([1])))
    nir.write("net.nir", graph)
    report = check("net.nir")
    (layer,) = (layer for layer in parse_graph(graph) if hasattr(layer, "decay"))
    decays[name] = layer.decay
    print(f"{name}: tau 20 ms, dt 1 ms; check ok: {report.ok}, findings {len(report.findings)}; decay {layer.decay}")
    assert report.ok
assert np.isclose(decays["r = tau / dt"], 0.95)
assert decays["r = 1"] == 0, "r = 1 is read otherwise now"
PY
