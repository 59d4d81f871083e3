"""Write frames as RVT's preprocessing stores its representation; run by `sizes.py` in an environment with hdf5plugin.

Usage:   PYTHON rvt_h5.py FRAMES.npy FOLDER: frames [n,T,P,H,W] uint8, a file each, read back and compared.
Source:  uzh-rpg/RVT at b55ee3c6c0, scripts/genx/preprocess_dataset.py and utils/preprocessing.py: a data set
         [N, 2 * bins, H, W] uint8 in chunks of one representation, filter 32001 (Blosc) with Zstandard at level 1 and
         byte shuffle. Its stacked histogram counts up to 10 in a cell; here counts stay as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np


def main() -> None:
    """Write the files."""
    for number, frames in enumerate(np.load(sys.argv[1])):
        stacked = frames.transpose(1, 0, 2, 3).reshape(1, -1, *frames.shape[2:])  # [1,P*T,H,W], as RVT stacks them
        path = Path(sys.argv[2]) / f"{number}.h5"
        most = (None, *stacked.shape[1:])
        packed = hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=stacked, chunks=stacked.shape, maxshape=most, **packed)
        with h5py.File(path) as file:
            assert np.array_equal(file["data"], stacked)


if __name__ == "__main__":
    main()
