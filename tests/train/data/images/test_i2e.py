"""I2E's rendering of static images, against a plain loop over pixels."""

import numpy as np
import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.data.images.i2e import DISPLACEMENTS, I2ESimulator, difference_frames, pairs_of
from spikebridge.train.data.simulation import make_simulator
from spikebridge.train.errors import MethodError

CPU = torch.device("cpu")
USUAL = ((8, 3), (3, 2), (2, 7), (7, 0), (4, 5), (4, 1), (4, 2), (4, 0))
"""First and second pixel of each step where none is drawn, numbered row by row."""


def by_loops(image, pairs, ratio):
    """Return [T,2,H,W] of an image [C,H,W]."""
    value = image.max(0)
    H, W = value.shape
    padded = np.pad(value, 1, mode="edge")
    frames = np.zeros((len(pairs), 2, H, W), np.float32)
    for t, (first, second) in enumerate(pairs):
        for y in range(H):
            for x in range(W):
                a, b = (padded[y + cell // 3, x + cell % 3] for cell in (first, second))
                if a != b and abs(b - a) >= np.float32(ratio) * (value.max() - value.min()):
                    frames[t, int(b > a), y, x] = 1
    return frames


def test_pairs_of_a_step_lie_one_displacement_apart():
    assert tuple(pairs_of(step)[0] for step in range(8)) == USUAL
    assert [len(pairs_of(step)) for step in range(8)] == [2, 2, 2, 2, 6, 6, 4, 4]
    for step, displacement in enumerate(DISPLACEMENTS):
        for first, second in pairs_of(step):
            assert (second // 3 - first // 3, second % 3 - first % 3) == displacement
        assert len(set(pairs_of(step))) == len(pairs_of(step))
    assert pairs_of(9) == pairs_of(1)


@pytest.mark.parametrize("ratio", [0.07, 0.5, 1.0])
def test_frames_are_those_of_a_loop(ratio):
    images = np.random.default_rng(0).random((3, 3, 5, 6)).astype(np.float32)
    firsts, seconds = (torch.tensor(cells)[:, None].expand(-1, 3) for cells in zip(*USUAL, strict=True))
    frames = difference_frames(torch.from_numpy(images), firsts, seconds, ratio=ratio)
    assert frames.shape == (8, 3, 2, 5, 6)
    for i, image in enumerate(images):
        assert np.array_equal(frames[:, i].numpy(), by_loops(image, USUAL, ratio))
    assert frames.any() == (ratio < 1)


def test_an_image_of_one_grey_has_no_events():
    simulator = I2ESimulator(8, ratio=0.1, seed=0)
    assert not simulator.frames(torch.full((2, 1, 4, 4), 0.3), epoch=0, draws=torch.arange(2)).any()


def test_pairs_are_drawn_by_draw_and_step_alone():
    images = torch.from_numpy(np.random.default_rng(1).random((1, 2, 7, 7)).astype(np.float32)).expand(40, -1, -1, -1)
    simulator = I2ESimulator(10, ratio=0.1, seed=3)
    frames = simulator.frames(images, epoch=2, draws=torch.arange(40))
    assert torch.equal(frames[:, 7:9], simulator.frames(images[7:9], epoch=2, draws=torch.tensor([7, 8])))
    assert not torch.equal(frames, simulator.frames(images, epoch=3, draws=torch.arange(40)))
    for step in range(10):
        possible = [by_loops(images[0].numpy(), [pair], 0.1)[0] for pair in pairs_of(step)]
        found = {next(i for i, one in enumerate(possible) if np.array_equal(one, made)) for made in frames[step]}
        assert found == set(range(len(possible)))


def test_a_run_gets_it_by_name_and_frames_that_count(tmp_path):
    settings = tiny_recipe(method="simulate_only", simulation="i2e", i2e_ratio=0.2).train
    for reduction, square in (("sum", True), ("voxel", False)):
        shards = FakeShardSet(tmp_path / reduction)
        data = TrainingBatches(shards, settings, device=CPU, needs_static=True, draw_from_pool=True)
        data.manifest = {"settings": {"reduction": reduction}}
        if square:
            assert make_simulator(data, settings).ratio == 0.2
        else:
            with pytest.raises(MethodError, match="reduction voxel"):
                make_simulator(data, settings)
