#!/usr/bin/env bash
# numpy 2.4.6 on Python 3.11: numpy.load of valid files in several threads ends in a SystemError now and then. numpy
# evaluates the header of an .npy as Python's literals; when the garbage collector runs in the middle and something listens
# to it (gc.callbacks: Dask's workers and Hypothesis do), another thread's evaluation shifts Python's count of its depth.
# Python 3.12 and 3.13 were not seen to do so. Makes a temporary folder, installs numpy there, fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3.11} -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import gc
import io
import sys
import threading
import time

import numpy as np


def stored(dtype):
    file = io.BytesIO()
    np.save(file, np.zeros(2, dtype))
    return file.getvalue()


files = [stored("<f4"), stored([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "?")])]
errors, seen, deadline = [], threading.Event(), time.monotonic() + 300


def read(data):
    while not seen.is_set() and time.monotonic() < deadline:
        try:
            np.load(io.BytesIO(data))
        except SystemError as error:
            errors.append(str(error))
            seen.set()


gc.set_threshold(7)  # what a long program reaches by itself, sooner
gc.callbacks.append(lambda *_: time.sleep(1e-5))
threads = [threading.Thread(target=read, args=(data,)) for data in files * 3]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("Python", sys.version.split()[0], "numpy", np.__version__, "numpy.load of valid files:", errors)
assert sys.version_info[:2] == (3, 11), "the behaviour is that of Python 3.11"
assert "recursion depth mismatch" in errors[0], "it reads in threads now"
PY
