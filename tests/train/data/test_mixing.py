"""CutMix and EventMix: what a mixed sample shows, what its label weighs, and that runs with them stay reproducible."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from device_steps import Watched, on_device  # noqa: F401
from fake_shards import FakeShardSet, tiny_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import train_in_two_sittings
from run_folders import same_run
from several_processes import SHARED, largest_difference, train_in_double, trained_by_two

from spikebridge.train.config.settings import METHODS, MIXING_METHODS
from spikebridge.train.data.augmentation import augment
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.data.draws import mixing_partners
from spikebridge.train.data.mixing import MIXINGS, AugmentationPlan, mix
from spikebridge.train.errors import RecipeError
from spikebridge.train.losses import Mixture, classification_loss, transfer_loss
from spikebridge.train.methods import find_method
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.studies.compare import compare
from spikebridge.train.studies.grids import load_grid
from spikebridge.train.trainer.run import train

CPU = torch.device("cpu")
NAMES = sorted(MIXINGS)
DTYPES = [torch.uint8, torch.float16, torch.float32]


def frames(dtype=torch.uint8, *, B=40, T=5, S=12, seed=0):
    return torch.randint(0, 5, (B, T, 2, S, S), generator=torch.Generator().manual_seed(seed)).to(dtype)


def mixed(name, own, partner, *, seed=1, epoch=0, draws=None):
    draws = torch.arange(len(own)) if draws is None else draws
    return mix(name, own, partner, seed=seed, epoch=epoch, draws=draws)


def of(name, rows, own, partner):
    """Mask [B,T,1,H,W] and shares [B] for numbers that a test chooses."""
    mask, shares = MIXINGS[name].apply(own, partner, torch.tensor(rows, dtype=torch.float64))
    return mask.expand(-1, own.shape[1], 1, -1, -1), shares


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_cell_is_the_own_or_the_partners_in_both_polarities(name, dtype):
    own, partner = torch.ones_like(frames(dtype)), torch.full_like(frames(dtype), 2)
    y, shares = mixed(name, own, partner)
    assert y.dtype == dtype
    assert set(y.unique().tolist()) == {1, 2}
    assert torch.equal(y[:, :, 0], y[:, :, 1])
    assert shares.dtype == torch.float64
    # of constant frames area and events say the same; a kept / (kept + given) of them, too
    np.testing.assert_allclose(shares, (y == 1).double().mean((1, 2, 3, 4)), atol=1e-12)
    whole = (shares == 1).double().mean()
    assert 0.3 < whole < 0.7  # half are left alone
    assert len(shares.unique()) > 10


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(st.integers(0, 2**40), st.integers(0, 100), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_a_mixture_depends_on_its_own_draw_alone(name, seed, epoch, part):
    own, partner, part = frames(B=10), frames(B=10, seed=1), torch.tensor(part)
    whole = mixed(name, own, partner, seed=seed, epoch=epoch)
    some = mixed(name, own[part], partner[part], seed=seed, epoch=epoch, draws=part)
    recorded = mixed(name, own[part], partner[part], seed=seed, epoch=torch.tensor(epoch), draws=part)
    for a, b, c in zip(whole, some, recorded, strict=True):
        assert torch.equal(a[part], b)
        assert torch.equal(b, c)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(data=st.data())
def test_labels_weigh_what_is_seen(name, data):
    number = st.floats(0, 1, exclude_max=True)
    rows = data.draw(st.lists(st.lists(number, min_size=30, max_size=30), min_size=1, max_size=4))
    own, partner = frames(B=len(rows)), frames(B=len(rows), seed=1)
    numbers = [row[: MIXINGS[name].numbers] for row in rows]
    mask, shares = of(name, numbers, own, partner)
    assert torch.all((shares >= 0) & (shares <= 1))
    inside = mask.expand_as(own)
    if name == "cutmix":
        np.testing.assert_allclose(shares, 1 - inside.double().mean((1, 2, 3, 4)), atol=1e-12)
        return
    cells = mask.flatten(1).sum(1)
    assert cells.tolist() == [math.floor(row[0] * (5 * 12 * 12 + 1)) for row in rows]  # to the cell, ties or not
    kept = (own * ~inside).flatten(1).sum(1).double() / own.flatten(1).sum(1)
    given_ = (partner * inside).flatten(1).sum(1).double() / partner.flatten(1).sum(1)
    np.testing.assert_allclose(shares, kept / (kept + given_), atol=1e-12)


def test_cutmix_is_one_box_that_the_edges_cut_off():
    own = frames(B=3, S=20)
    mask, shares = of("cutmix", [[0.25, 0.5, 0.5], [0.25, 0.0, 0.5], [0.0, 0.5, 0.5]], own, own)
    rows, columns = mask[:, 0, 0].any(2).sum(1), mask[:, 0, 0].any(1).sum(1)
    assert rows.tolist() == [10, 5, 0]  # half of the side: a quarter of the area
    assert columns.tolist() == [10, 10, 0]
    assert shares.tolist() == [0.75, 0.875, 1]
    assert torch.equal(mask[:, 0], mask[:, -1])


def test_eventmix_masks_are_blobs_in_time_and_space():
    own = frames(B=64, T=8, S=16)
    numbers = np.random.default_rng(0).random((64, MIXINGS["eventmix"].numbers))
    numbers[:, 0] = 0.2
    mask, _ = of("eventmix", numbers, own, own)
    mask = mask[:, :, 0].double()  # [B,T,H,W]
    for axis in (1, 2, 3):
        near = (mask * mask.roll(1, axis)).sum() / mask.sum()
        assert near > 0.55  # .2 if the cells were scattered
    assert float(mask.mean((1, 2, 3)).std()) < 1e-12
    lasting = mask.any(1).double().mean((1, 2)) - 0.2
    assert lasting.min() > 0  # no mask is the same in all time bins


def test_one_gaussian_is_where_its_numbers_say():
    own = frames(B=1, T=9, S=9)
    blob = [1.0, 0.5, 0.25, 0.75, 0.2, 0.2, 0.2]  # weight, centre t y x, spread
    row = [[30 / 729, 0.0, *blob, 0.0, *blob[1:], *[0.0] * 14]]
    mask = of("eventmix", row, own, own)[0][0, :, 0].double()
    assert mask.sum() == 30
    t, y, x = (mask.sum([axis for axis in range(3) if axis != own_]) for own_ in range(3))
    middle = [float((line * (torch.arange(9) + 0.5) / 9).sum() / 30) for line in (t, y, x)]
    assert middle == pytest.approx([0.5, 0.25, 0.75], abs=0.03)


def test_recordings_without_events():
    own, empty = frames(B=1), torch.zeros_like(frames(B=1))
    row = [[0.5, *np.random.default_rng(0).random(MIXINGS["eventmix"].numbers - 1)]]
    assert of("eventmix", row, own, empty)[1].tolist() == [1]
    assert of("eventmix", row, empty, own)[1].tolist() == [0]
    assert of("eventmix", row, empty, empty)[1].tolist() == [1]


def test_augmentations_before_see_both_recordings_and_those_behind_the_mixture():
    stored, draws = frames(B=8), torch.arange(8)
    partners, how = torch.tensor([3, 1, 4, 1, 5, 0, 2, 6]), {"seed": 4, "epoch": 2}

    def apply(names):
        return AugmentationPlan.parse(names).apply(stored.__getitem__, **how, draws=draws, partners=partners)

    own = augment("flip", stored, **how, draws=draws)
    partner = augment("flip", stored[partners], **how, draws=partners)
    y, shares = mix("cutmix", own, partner, **how, draws=draws)
    augmented = apply("flip+cutmix+drop_time")
    assert torch.equal(augmented[0], augment("drop_time", y, **how, draws=draws))
    assert torch.equal(augmented[1], shares)
    assert apply("flip+drop_time")[1] is None
    assert AugmentationPlan.parse("cutmix") == AugmentationPlan("none", "cutmix", "none")


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 17), st.integers(0, 2**40), st.integers(0, 99))
def test_mixing_partners_are_draws_of_the_same_batch(samples, batch_size, seed, epoch):
    draws = torch.arange(samples)
    partners = mixing_partners(samples, batch_size, seed=seed, epoch=epoch, draws=draws)
    assert torch.equal(partners // batch_size, draws // batch_size)
    assert partners.min() >= 0
    assert partners.max() < samples


def test_batches_of_ranks_and_residences_hold_the_same_mixtures(tmp_path):
    shards = FakeShardSet(tmp_path / "shards")
    train_settings = tiny_recipe(method="event_only", augmentation="crop+eventmix").train

    def batch(residence="host", **where):
        data = TrainingBatches(shards, train_settings, device=CPU, needs_static=False, residence=residence)
        return data.batch(1, 0, **where)

    whole = batch()
    assert 0 < int((whole.mixture.shares < 1).sum()) < 10
    for residence in ("disk", "device"):
        other = batch(residence)
        assert torch.equal(whole.events, other.events)
        assert torch.equal(whole.mixture.labels, other.mixture.labels)
        assert torch.equal(whole.mixture.shares, other.mixture.shares)
    for rank in range(3):
        part = batch(rank=rank, world=3)
        assert torch.equal(whole.events[:, rank::3], part.events)
        assert torch.equal(whole.mixture.shares[rank::3], part.mixture.shares)


@pytest.mark.parametrize("tet", [True, False])
def test_the_loss_of_a_pair_is_the_sum_by_shares(tet):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 4, generator=generator, dtype=torch.float64)
    first, second = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([3, 1, 0, 2, 2, 0])
    shares = torch.tensor([1.0, 0.5, 0.25, 0.0, 0.9, 0.1], dtype=torch.float64)
    loss = classification_loss(logits, first, tet=tet, mixture=Mixture(second, shares))
    one_hot = shares[:, None] * F.one_hot(first, 4) + (1 - shares)[:, None] * F.one_hot(second, 4)
    if tet:
        soft = torch.stack([F.cross_entropy(step, one_hot) for step in logits]).mean()
        expected = 0.999 * soft + 0.001 * (logits - 0.5).square().mean()
    else:
        expected = F.cross_entropy(logits.mean(0), one_hot)
    torch.testing.assert_close(loss, expected)
    own = classification_loss(logits, first, tet=tet)
    torch.testing.assert_close(
        classification_loss(logits, first, tet=tet, mixture=Mixture(second, shares * 0 + 1)), own
    )


def test_two_streams_refuse_a_mixture():
    class Both:
        static_logits = event_logits = static_features = event_features = torch.zeros(2, 5, 3)

    pair = Mixture(torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.float64))
    with pytest.raises(ValueError, match="no static partner"):
        transfer_loss(Both(), torch.zeros(5, dtype=torch.int64), torch.zeros(2), mixture=pair)


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=pytest.mark.long if name == "self_training" else ()) for name in MIXING_METHODS],
)
def test_methods_that_mix_learn_and_continue_to_the_same_bits(tmp_path, method):
    shards = FakeShardSet(tmp_path / "shards")
    labelled = {"events_per_class": 7 if method == "self_training" else 0}  # others are unlabelled
    recipe = tiny_recipe(method=method, augmentation="crop+cutmix", epochs=4, lr=1e-2, **labelled)
    train(shards, recipe, tmp_path / "whole", device="cpu")
    lines = read_metrics(tmp_path / "whole")
    assert all(math.isfinite(line["loss_event"]) for line in lines)
    train_in_two_sittings(shards, recipe, tmp_path / "parts", step=8)
    same_run(tmp_path / "whole", tmp_path / "parts")
    plain = train(shards, tiny_recipe(method=method, epochs=4, lr=1e-2, **labelled), tmp_path / "plain", device="cpu")
    assert plain["recipe"]["train"]["augmentation"] == "crop"
    same = read_metrics(tmp_path / "plain")[-1]["loss_event"] == lines[-1]["loss_event"]
    assert same is (method == "simulate_only")  # sees no recording


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_a_step_is_that_of_its_mixture(tmp_path, name):
    """Against the loss computed by hand from the batch: the recordings' part of `simulate` too."""
    shards = FakeShardSet(tmp_path / "shards")
    for method in ("event_only", "simulate"):
        cls = find_method(method)
        train_settings = tiny_recipe(method=method, augmentation=name).train
        data = TrainingBatches(
            shards, train_settings, device=CPU, needs_static=cls.needs_static, draw_from_pool=cls.draw_from_pool
        )
        made = cls(train_settings, steps=9)
        made.attach(None, data)
        batch = data.batch(0, 0)
        inputs = made.inputs(batch, 0)
        logits = torch.randn(4, len(inputs.labels), 3, generator=torch.Generator().manual_seed(1))

        class Out:
            static_logits = static_features = None
            event_logits, event_features = logits, torch.zeros(4, len(inputs.labels), 2)

        shares = batch.mixture.shares.float()[:, None]
        soft = shares * F.one_hot(batch.labels, 3) + (1 - shares) * F.one_hot(batch.mixture.labels, 3)
        crossed = torch.stack([F.cross_entropy(step, soft) for step in logits[:, :10]]).mean()
        expected = 0.999 * crossed + 0.001 * (logits[:, :10] - 0.5).square().mean()
        torch.testing.assert_close(made.loss(Out(), inputs, torch.zeros(4), {}).event, expected)


def test_accumulated_parts_take_the_update_of_the_whole(tmp_path, monkeypatch):
    recipe = {"method": "event_only", "augmentation": "cutmix", "epochs": 1}
    train_in_double(monkeypatch, tmp_path, "whole", recipe, {"train": 21})
    monkeypatch.undo()
    train_in_double(monkeypatch, tmp_path, "parts", {**recipe, "accumulate": 3}, {"train": 21})
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") < 1e-9


def test_two_processes_take_the_update_of_one(made_once, tmp_path, monkeypatch):
    recipe, sizes = SHARED["eventmix"]
    train_in_double(monkeypatch, tmp_path, "one", recipe, sizes)
    assert largest_difference(tmp_path / "one", trained_by_two(made_once) / "eventmix") < 1e-9


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("name", NAMES)
def test_the_device_step_mixes_the_same(tmp_path, name):
    shards = FakeShardSet(tmp_path / "shards")
    recipe = tiny_recipe(method="event_only", augmentation=f"crop+{name}", batch_size=5, epochs=2)
    train(shards, recipe, tmp_path / "plain", device="cpu", graph=False)
    train(shards, recipe, tmp_path / "device", device="cpu", residence="device")
    assert Watched.taken == tuple(range(10))  # partial batches have a graph of their own
    same_run(tmp_path / "plain", tmp_path / "device")


def test_others_refuse_before_anything_is_written(tmp_path):
    shards = FakeShardSet(tmp_path / "shards")
    others = [name for name in METHODS if name not in MIXING_METHODS]
    assert {"event_only", "pretrain", "simulate"} <= set(MIXING_METHODS)
    assert {"kt", "kt_fixed", "tsm", "distill", "simulate_kt"} <= set(others)
    for method in others:
        with pytest.raises(RecipeError, match=f"cutmix makes recordings of two classes, and method {method} takes"):
            tiny_recipe(method=method, augmentation="crop+cutmix")
    with pytest.raises(RecipeError, match="method kt takes"):
        compare(
            shards,
            tiny_recipe(method="event_only", augmentation="eventmix"),
            methods=["event_only", "kt"],
            seeds=[0],
            out=tmp_path,
        )
    assert [path.name for path in tmp_path.iterdir()] in ([], ["shards"])
    with pytest.raises(RecipeError, match="cutmix and eventmix both mix labels"):
        tiny_recipe(augmentation="cutmix+crop+eventmix")


def test_a_grid_with_such_a_row_is_refused(tmp_path):
    text = 'recipe = "digits"\nseeds = [0]\nevents_per_class = [2]\nreference = "a"\n'
    text += '[settings]\ntime_bins = 4\nsize = 16\n[[rows]]\nlabel = "a"\nmethod = "event_only"\n'
    text += '[[rows]]\nlabel = "b"\nmethod = "kt"\nswitches = { augmentation = "cutmix" }\n'
    (tmp_path / "grid.toml").write_text(text)
    with pytest.raises(RecipeError, match=r"row 'b': \[train\] augmentation: .* method kt takes recordings"):
        load_grid(str(tmp_path / "grid.toml"))
