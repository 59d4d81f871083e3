"""From shard sets to runs: imports torch, numpy, h5py, click, tqdm, safetensors and the standard library only."""
