"""A split of a shard set as a plain PyTorch data set, for training loops that are not ours.

    from spikebridge.train.data.dataset import ShardDataset
    data = ShardDataset("shards", "train")
    frames, label = data[0]

It takes the three transforms of tonic's data sets; as one of tonic's own it is `spikebridge.ShardFrames`.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from spikebridge.pipeline.shards.dataset import SplitFrames


class ShardDataset(SplitFrames, Dataset[tuple[Any, Any]]):
    """`SplitFrames` as torch's Dataset: frames [T,P,H,W] as stored (numpy), and class index (int)."""
