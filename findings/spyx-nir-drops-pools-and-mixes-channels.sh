#!/usr/bin/env bash
# spyx 1.0.0: from_nir leaves AvgPool2d out without a word, and flattens channels last under weights for channels first.
# Neurons spike a step late and reset by subtraction, whatever v_reset says.
# Makes a temporary folder, installs pinned packages there, runs them on a valid graph, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check spyx==1.0.0 nir==1.0.8 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import nir
import numpy as np
from spyx.nir import from_nir

print("spyx", importlib.metadata.version("spyx"))
rng = np.random.default_rng(0)


def run(frames, *nodes):
    """Logits of [T,B,C,H,W] or [T,B,F]."""
    shapes = (np.array(frames.shape[2:]), np.array(frames.shape[2:]))
    graph = nir.NIRGraph.from_list(nir.Input(shapes[0]), *nodes, nir.Output(shapes[1]), type_check=False)
    last = frames.transpose(0, 1, 3, 4, 2) if frames.ndim == 5 else frames
    return np.array(from_nir(graph, last, dt=1)[1])


frames = rng.normal(size=(1, 1, 2, 4, 4)).astype(np.float32)
two = np.array([2, 2])
conv = nir.Conv2d((4, 4), np.ones((1, 2, 1, 1), np.float32), 1, 0, 1, 1, np.zeros(1, np.float32))
pooled = run(frames, nir.AvgPool2d(two, two, np.array([0, 0])), conv)
print("average pool of 4x4 by 2x2, then a convolution of 1x1: sides", pooled.shape[2:4])
assert pooled.shape[2:4] == (4, 4), "average pools are read now"

weight = rng.normal(size=(1, 32)).astype(np.float32)
found = run(frames, nir.Flatten(np.array([2, 4, 4]), 0, -1), nir.Affine(weight, np.zeros(1, np.float32)))
print("flatten, then weights: by the definition", weight @ frames.ravel(), "here", found.ravel())
assert not np.allclose(found.ravel(), weight @ frames.ravel(), atol=1e-3), "the order is that of NIR now"

one = np.ones(1, np.float32)
neuron = nir.LIF(tau=2 * one, r=2 * one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)
pulse = np.array([5, 0, 0, 0], np.float32).reshape(4, 1, 1)
spikes = run(pulse, nir.Affine(np.eye(1, dtype=np.float32), 0 * one), neuron).ravel()
print("a pulse of 5 at the first step, reset to 0: by the definition [1. 0. 0. 0.], here", spikes)
assert spikes.tolist() == [0, 1, 1, 0], "it spikes and resets as NIR says now"
PY
