import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikebridge.train.data.augmentation import AUGMENTATIONS, augment, shift_one_by_one, shift_together
from spikebridge.train.data.draws import many_uniforms, uniforms

DTYPES = [torch.uint8, torch.float16, torch.float32]
SHIFTING = {"crop", "crop_flip_rotate", "flip", "rotate", "scale"}
"""What moves cells within a bin."""
IN_TIME = {"drop_time", "time_shift", "time_stretch"}


def frames(dtype=torch.uint8, B=5, S=24, T=3):
    return torch.randint(0, 9, (B, T, 2, S, S), generator=torch.Generator().manual_seed(0)).to(dtype)


def apply(name, x, rows):
    return AUGMENTATIONS[name].apply(x, torch.tensor(rows, dtype=torch.float64))


def drawn(names, x, seed=1, epoch=0, first=0):
    return augment(names, x, seed=seed, epoch=epoch, draws=torch.arange(first, first + len(x)))


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_shape_and_dtype_stay_and_no_value_is_invented(name, dtype):
    x = frames(dtype, T=10)
    y = drawn(name, x)
    assert y.shape == x.shape
    assert y.dtype == dtype
    if name != "drop_events":
        assert set(y.unique().tolist()) <= set(x.unique().tolist()) | {0}
    assert torch.equal(y, drawn(name, x)), "not a function of its arguments"
    if name != "none":
        assert not torch.equal(drawn(name, frames(dtype, B=40, T=10)), frames(dtype, B=40, T=10))


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
@given(st.integers(0, 2**40), st.integers(0, 100), st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_a_draw_does_not_depend_on_its_neighbours(name, seed, epoch, part):
    x, part = frames(S=12), torch.tensor(part)
    whole = augment(name, x, seed=seed, epoch=epoch, draws=torch.arange(5))
    some = augment(name, x[part], seed=seed, epoch=epoch, draws=part)
    assert torch.equal(whole[part], some)


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - IN_TIME - {"drop_events"}))
def test_one_draw_serves_all_time_steps(name):
    x = frames()[:, :1].expand(-1, 3, -1, -1, -1)
    y = drawn(name, x)
    assert torch.equal(y[:, 0], y[:, 2])


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - SHIFTING - IN_TIME - {"polarity_flip"}))
def test_what_drops_only_takes_away(name):
    x = frames(T=10)
    y = drawn(name, x)
    assert torch.all(y <= x)
    assert name == "none" or 0 < int(y.sum()) < int(x.sum())


def test_published_augmentations_take_the_published_numbers():
    """What `augmentation = "crop"` did before there were others, bit by bit."""
    x, draws = frames(B=6), torch.arange(3, 9)
    numbers = uniforms(4, "augmentation", 2, draws, 4)
    for name in ("crop", "crop_flip_rotate"):
        expected = AUGMENTATIONS[name].apply(x, numbers)
        assert torch.equal(augment(name, x, seed=4, epoch=2, draws=draws), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shifts_are_the_same_one_by_one_and_together(dtype):
    x = torch.randint(0, 9, (25, 3, 2, 7, 6)).to(dtype).transpose(1, 2)
    down, right = (torch.arange(25) // 5 - 2, torch.arange(25) % 5 - 2)
    one = shift_one_by_one(x, 2 - down, 2 - right, 2)
    assert torch.equal(one, shift_together(x, 2 - down, 2 - right, 2))
    assert torch.equal(one[2 * 5 + 3, ..., 1:], x[2 * 5 + 3, ..., :-1])  # one to the right
    assert not one[2 * 5 + 3, ..., 0].any()


def test_crop_shifts_by_up_to_a_twelfth():
    x = frames(B=3)
    y = apply("crop", x, [[0.5, 0.5], [0, 0], [0.999, 0.5]])
    assert torch.equal(y[0], x[0])
    assert torch.equal(y[1, ..., 2:, 2:], x[1, ..., :-2, :-2])
    assert not y[1, ..., :2, :].any()
    assert torch.equal(y[2, ..., :-2, :], x[2, ..., 2:, :])
    assert not y[2, ..., -2:, :].any()


def test_every_shift_is_equally_likely():
    x = torch.zeros(4000, 1, 1, 24, 24)
    x[..., 12, 12] = 1
    counts = torch.bincount(drawn("crop", x).flatten(1).argmax(1))
    assert len(counts[counts > 0]) == 25
    assert counts[counts > 0].min() > 100


def test_flip_and_rotation():
    x = frames(B=3, S=8)  # 8 // 12 = 0: no shift
    y = apply("crop_flip_rotate", x, [[0, 0, 0.4, 0.5], [0, 0, 0.5, 0.5], [0, 0, 0.6, 0.999]])
    assert torch.equal(y[0], x[0].flip(-1))
    assert torch.equal(y[1], x[1])
    assert not torch.equal(y[2], x[2])


def test_rotation_is_by_fifteen_degrees_at_most():
    x = torch.zeros(1, 1, 1, 49, 49)
    x[..., 24, 24:] = 1  # from the centre to the right edge
    for u, sign in ((0.0, 1), (1 - 1e-9, -1)):
        y = apply("rotate", x, [[u]])[0, 0, 0]
        rows, columns = torch.nonzero(y, as_tuple=True)
        far = columns == columns.max()
        angle = torch.rad2deg(torch.atan2((rows[far] - 24).double().mean(), (columns[far] - 24).double().mean()))
        assert sign * float(angle) == pytest.approx(15, abs=1.5)


def test_scale_keeps_the_centre_and_zooms_by_fifteen_per_cent_at_most():
    x = torch.zeros(3, 1, 1, 41, 41)
    x[..., 10:31, 10:31] = 1  # 10 pixels to each side of the centre
    y = apply("scale", x, [[0.5], [0.0], [1 - 1e-9]])
    assert torch.equal(y[0], x[0])
    widths = y[:, 0, 0, 20].sum(1).tolist()
    assert widths == [21, 17, 25]


def test_drop_area_erases_one_square_in_all_bins():
    x = torch.ones(2, 3, 2, 20, 20)
    y = apply("drop_area", x, [[0.5, 0.5, 0.5], [0.0, 0.5, 0.5]])
    assert torch.equal(y[1], x[1])
    assert (1 - y[0]).sum((-2, -1)).unique().tolist() == [16]  # side .5 * .4 * 20 = 4
    assert not y[0, ..., 8:12, 8:12].any()


def test_drop_time_empties_neighbouring_bins():
    x = frames(T=10, B=3) + 1
    y = apply("drop_time", x, [[0.0, 0.5], [0.999, 0.0], [0.4, 0.999]])
    empty = y.flatten(2).amax(2) == 0
    assert [row.nonzero().flatten().tolist() for row in empty] == [[], [0, 1, 2, 3, 4], [8, 9]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_drop_events_keeps_the_mean_that_its_number_says(dtype):
    x = torch.randint(0, 4, (30, 10, 2, 24, 24), generator=torch.Generator().manual_seed(0)).to(dtype)
    y = drawn("drop_events", x)
    numbers = many_uniforms(1, "augmentation drop_events", 0, torch.arange(30), x[0].numel())[:, 0]
    shares = y.float().sum((1, 2, 3, 4)) / x.float().sum((1, 2, 3, 4))
    np.testing.assert_allclose(shares, 1 - 0.5 * numbers, atol=0.02)
    assert torch.equal(y.float(), y.float().round())


def test_drop_events_leaves_weights_whole():
    x = torch.rand(4, 3, 2, 24, 24) + 0.1
    y = drawn("drop_events", x)
    assert torch.all((y == x) | (y == 0))
    assert 0 < int((y == 0).sum()) < x.numel()


def test_time_moves_and_stretches():
    x = torch.arange(1, 11, dtype=torch.uint8).view(1, 10, 1, 1, 1).expand(3, -1, -1, -1, -1)
    moved = apply("time_shift", x, [[0.0], [0.5], [0.999]]).view(3, 10).tolist()
    assert moved == [[*range(2, 11), 0], [*range(1, 11)], [0, *range(1, 10)]]
    stretched = apply("time_stretch", x, [[0.0], [0.5], [1 - 1e-9]]).view(3, 10)
    assert stretched[1].tolist() == moved[1]
    assert stretched[0].tolist() == sorted(stretched[0].tolist())  # slower: the middle, longer
    assert stretched[0, 0] == 2
    assert stretched[2, 0] == 0  # faster: over before the end
    assert stretched[2, -1] == 0


def test_polarity_flip_exchanges_on_and_off():
    x = frames(B=2)
    y = apply("polarity_flip", x, [[0.2], [0.7]])
    assert torch.equal(y[0], x[0].flip(1))
    assert torch.equal(y[1], x[1])


def test_several_are_applied_in_order():
    x = frames(B=9)
    both = drawn("crop+drop_area", x)
    assert torch.equal(both, drawn("drop_area", drawn("crop", x)))
    assert not torch.equal(both, drawn("drop_area+crop", x))


def test_empty_batch_and_wrong_input():
    assert drawn("crop", frames()[:0]).shape[0] == 0
    with pytest.raises(ValueError, match="unknown augmentation 'cut'"):
        drawn("crop+cut", frames())
    with pytest.raises(ValueError, match="draws"):
        augment("crop", frames(), seed=0, epoch=0, draws=torch.arange(4))
