import subprocess
import sys
from pathlib import Path

import train

HEAVY = ("numba", "tonic", "webdataset", "PIL", "sklearn", "scipy", "matplotlib", "pandas")


def test_training_needs_torch_numpy_h5py_and_little_else():
    code = (
        "import sys; import train.loop, train.evaluation, train.comparison, pipeline.shardset; "
        "import train.methods as m; [m.find_method(name) for name in m.METHODS]; "
        f"found = set({HEAVY!r}) & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(train.__file__).parents[1])
