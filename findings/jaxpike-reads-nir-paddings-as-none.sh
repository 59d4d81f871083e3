#!/usr/bin/env bash
# jaxpike 0.1.4: from_nir reads every padding of a Conv2d in numbers as none; only the word 'same' is kept.
# A convolution of 3x3 with padding 1 over 4x4 gives 2x2, without a word.
# Makes a temporary folder, installs pinned packages there, runs them on a valid graph, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jaxpike[nir]==0.1.4 nir==1.0.8 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import nir
import numpy as np
from jaxpike import unroll
from jaxpike.nir import from_nir

print("jaxpike", importlib.metadata.version("jaxpike"))
sides = {}
for padding in ((1, 1), "same"):
    conv = nir.Conv2d((4, 4), np.ones((1, 1, 3, 3), np.float32), 1, padding, 1, 1, np.zeros(1, np.float32))
    print("padding", padding, "- NIR says", conv.output_type["output"].tolist())
    graph = nir.NIRGraph.from_list(nir.Input(np.array([1, 4, 4])), conv, nir.Output(np.array([1, 4, 4])))
    logits, _ = unroll(from_nir(graph, dt_seconds=1e-3), np.ones((1, 1, 4, 4, 1), np.float32))
    sides[str(padding)] = logits.shape[2:4]
    print("  here", logits.shape[2:4])
assert sides["same"] == (4, 4)
assert sides["(1, 1)"] == (2, 2), "paddings in numbers are read now"
PY
