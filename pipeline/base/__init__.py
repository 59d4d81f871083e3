"""What every room stands on: errors, whole files or none, processors, and workers on a Dask cluster."""
