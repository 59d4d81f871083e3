import subprocess
import sys

from conftest import ROOT

HEAVY = ("numba", "tonic", "webdataset", "PIL", "sklearn", "scipy", "matplotlib", "pandas")


def test_training_needs_torch_numpy_h5py_and_little_else():
    code = (
        "import sys; import spikebridge.train.trainer.run, spikebridge.train.evaluation.score; "
        "import spikebridge.train.studies.compare, spikebridge.pipeline.shards.reader; "
        "import spikebridge.train.methods as m; [m.find_method(name) for name in m.METHODS]; "
        f"found = set({HEAVY!r}) & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
