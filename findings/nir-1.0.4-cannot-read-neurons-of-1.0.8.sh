#!/usr/bin/env bash
# nir 1.0.4, to which sinabs 3.1.3 is pinned, cannot read IF or LIF in a file of nir 1.0.8: it knows no reset potential.
# It fails with "unexpected keyword argument 'v_reset'"; without that data set it reads the file.
# Makes a temporary folder, installs pinned packages there, runs them on a valid file, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 1.0.8 1.0.4; do
  ${PYTHON:-python3} -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet --disable-pip-version-check nir==$version h5py==3.16.0 numpy==2.4.6
done
cd "$folder"
1.0.8/bin/python - <<'PY'
import nir
import numpy as np

one = np.ones(1)
neuron = nir.IF(r=one, v_threshold=one)
nir.write("if.nir", nir.NIRGraph.from_list(nir.Input(np.array([1])), neuron, nir.Output(np.array([1]))))
PY
1.0.4/bin/python - <<'PY'
import importlib.metadata

import h5py
import nir

print("nir", importlib.metadata.version("nir"))
try:
    nir.read("if.nir")
except TypeError as error:
    print("a file of nir 1.0.8:", error)
else:
    raise AssertionError("it reads the file now")
with h5py.File("if.nir", "r+") as file:
    (name,) = (name for name, node in file["node/nodes"].items() if "v_reset" in node)
    del file[f"node/nodes/{name}/v_reset"]
print("without v_reset:", sorted(type(node).__name__ for node in nir.read("if.nir").nodes.values()))
PY
