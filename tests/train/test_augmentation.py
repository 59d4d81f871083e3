import numpy as np
import pytest
import torch

from train.augmentation import AUGMENTATIONS, augment


def frames(dtype=torch.uint8, B=5, S=24):
    return torch.randint(0, 9, (B, 3, 2, S, S), generator=torch.Generator().manual_seed(0)).to(dtype)


def draws(rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_shape_and_dtype_stay(name, dtype):
    x = frames(dtype)
    y = augment(name, x, torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    assert y.shape == x.shape
    assert y.dtype == dtype


def test_crop_shifts_by_up_to_a_twelfth():
    x = frames(B=3)
    y = augment("crop", x, draws([[0.5, 0.5, 0, 0], [0, 0, 0, 0], [0.999, 0.5, 0, 0]]))
    assert torch.equal(y[0], x[0])
    assert torch.equal(y[1, ..., 2:, 2:], x[1, ..., :-2, :-2])
    assert not y[1, ..., :2, :].any()
    assert torch.equal(y[2, ..., :-2, :], x[2, ..., 2:, :])
    assert not y[2, ..., -2:, :].any()


def test_every_shift_is_equally_likely():
    x = torch.zeros(4000, 1, 1, 24, 24)
    x[..., 12, 12] = 1
    u = torch.from_numpy(np.random.default_rng(0).random((4000, 4)))
    places = augment("crop", x, u).flatten(1).argmax(1)
    counts = torch.bincount(places)
    assert len(counts[counts > 0]) == 25
    assert counts[counts > 0].min() > 100


def test_flip_and_rotation():
    x = frames(B=3, S=8)  # 8 // 12 = 0: no shift
    y = augment("crop_flip_rotate", x, draws([[0, 0, 0.4, 0.5], [0, 0, 0.5, 0.5], [0, 0, 0.6, 0.999]]))
    assert torch.equal(y[0], x[0].flip(-1))
    assert torch.equal(y[1], x[1])
    assert not torch.equal(y[2], x[2])
    assert set(y[2].unique().tolist()) <= set(x[2].unique().tolist()) | {0}


def test_rotation_is_by_fifteen_degrees_at_most():
    x = torch.zeros(1, 1, 1, 49, 49)
    x[..., 24, 24:] = 1  # from the centre to the right edge
    for u, sign in ((0.0, 1), (1 - 1e-9, -1)):
        y = augment("crop_flip_rotate", x, draws([[0.5, 0.5, 0.9, u]]))[0, 0, 0]
        rows, columns = torch.nonzero(y, as_tuple=True)
        far = columns == columns.max()
        angle = torch.rad2deg(torch.atan2((rows[far] - 24).double().mean(), (columns[far] - 24).double().mean()))
        assert sign * float(angle) == pytest.approx(15, abs=1.5)


def test_one_draw_serves_all_time_steps():
    x = frames()[:, :1].expand(-1, 3, -1, -1, -1)
    y = augment(
        "crop_flip_rotate", x, torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )
    assert torch.equal(y[:, 0], y[:, 2])


def test_empty_batch_and_wrong_input():
    assert augment("crop", frames()[:0], torch.zeros(0, 4)).shape[0] == 0
    with pytest.raises(ValueError, match="unknown augmentation"):
        augment("cut", frames(), torch.zeros(5, 4))
    with pytest.raises(ValueError, match="draws"):
        augment("crop", frames(), torch.zeros(4, 4))
