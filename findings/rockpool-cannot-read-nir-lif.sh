#!/usr/bin/env bash
# rockpool 3.1.0: from_nir cannot read a nir.LIF, not even one that its own to_nir wrote: it asks the node for tau_mem.
# NIR's LIF has tau; only CubaLIF has tau_mem.
# Makes a temporary folder, installs pinned packages there, runs them on a valid graph, fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "rockpool[nir]==3.1.0" nir==1.0.4 nirtorch==2.0.2 \
  torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import importlib.metadata

import nir
from rockpool.nn.combinators import Sequential
from rockpool.nn.modules import LIFNeuronTorch, LinearTorch
from rockpool.nn.modules.torch.nir import from_nir, to_nir

print("rockpool", importlib.metadata.version("rockpool"))
net = Sequential(LinearTorch((2, 3)), LIFNeuronTorch(3))
graph = to_nir(net)
print("written:", sorted(type(node).__name__ for node in graph.nodes.values()))
nir.write("net.nir", graph)
try:
    from_nir(nir.read("net.nir"))
except AttributeError as error:
    print("read again:", type(error).__name__, error)
    assert "tau_mem" in str(error)
else:
    raise AssertionError("it is read now")
PY
