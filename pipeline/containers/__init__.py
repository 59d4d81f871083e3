"""Arrays out of files that others made: npy, MATLAB, HDF5, idx, CIFAR; bounded, and never a pickle that runs."""
