"""Events as columns of numbers: HDF5, npy, npz, MATLAB and text, whose meaning is found by name or by content."""
