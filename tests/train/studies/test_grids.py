"""Grids: strict files, every recipe behind them sound, and the same number of steps whatever is labelled."""

import numpy as np
import pytest

from spikebridge.train.config.shipped import GRIDS
from spikebridge.train.data import order
from spikebridge.train.errors import RecipeError
from spikebridge.train.studies.grids import labelled, load_grid

GOOD = """# a try
recipe = "digits"
seeds = [0, 1]
events_per_class = [3]
reference = "a"
baselines = ["a"]
[settings]
batch_size = 10
[[rows]]
label = "a"
method = "event_only"
[[rows]]
label = "b"
method = "kt"
switches = { domain_coefficient = 0.0 }
"""


@pytest.fixture
def grid(tmp_path):
    def write(text=GOOD, **options):
        path = tmp_path / "grid.toml"
        path.write_text(text)
        return load_grid(str(path), **options)

    return write


def problems(call, *arguments, **options):
    with pytest.raises(RecipeError) as caught:
        call(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", GRIDS.names())
def test_shipped_grids_load_and_say_what_they_are(name):
    grid = load_grid(name)
    header = GRIDS.show(name).split("recipe =")[0]
    assert grid.summary == GRIDS.catalogue()[GRIDS.names().index(name)].summary != ""
    assert "Command:" in header
    assert "Data:" in header
    if grid.recipe.name != "digits":
        assert "never run on the real data" in header
    recipes = [
        grid.recipe_of(row, amount, seed=seed, lr=lr, per_class=[100] * 10)
        for row in grid.rows
        for amount in row.amounts
        for seed in grid.seeds
        for lr in grid.learning_rates
    ]
    assert len(set(recipes)) == len(recipes)
    assert set(grid.tested) <= {row.label for row in grid.rows}


def test_what_finished_runs_are_asked_is_checked(grid):
    asked = 'corruptions = ["flicker", "background:1"]\nafter_ms = [75]\nearly_exit = 0.5\n[settings]'
    made = grid(GOOD.replace("[settings]", asked)).evaluated
    assert [level for name, level in made.corruptions if name == "flicker"] == [0.003, 0.01, 0.03, 0.1]
    assert (made.after_ms, made.early_exit, made.split) == ((75.0,), 0.5, "validation")
    assert grid().evaluated is None
    wrong = 'corruptions = ["flickr", "background:1", "background:1.0"]\nevaluated_split = "test"\nafter_ms = [0]\n'
    said = problems(grid, GOOD.replace("[settings]", f"{wrong}[settings]"))
    assert "after_ms: 0 is too small" in said
    wrong = wrong.replace("after_ms = [0]\n", "")
    said = problems(grid, GOOD.replace("[settings]", f"{wrong}[settings]"))
    assert "did you mean flicker" in said
    assert "background:1 is given twice" in said
    assert "row 'b' shows no test accuracy" in said
    assert "nothing is evaluated" in problems(
        grid, GOOD.replace("[settings]", 'evaluated_split = "validation"\n[settings]')
    )


def test_what_is_shipped():
    assert {"digits", "leak", "ncaltech101", "cepdvs", "nomniglot"} <= set(GRIDS.names())
    leak = load_grid("leak")
    assert {row.switches.get("protocol", "strict") for row in leak.rows} == {"strict", "leaky"}
    published = {tuple(row.switches) for row in load_grid("ncaltech101").rows}
    single = {("domain_coefficient",), ("regularization",), ("sliding",), ("encoding",)}
    assert single | {("domain_coefficient", "regularization", "sliding")} <= published


def test_the_rows_switches_win_over_set_and_set_over_settings(grid):
    loaded = grid(overrides=["batch_size=7", "domain_coefficient=0.9"])
    a, b = (loaded.recipe_of(row, 3, seed=4, lr=0.5).train for row in loaded.rows)
    assert (a.batch_size, a.domain_coefficient, a.seed, a.lr, a.events_per_class) == (7, 0.9, 4, 0.5, 3)
    assert b.domain_coefficient == 0.0
    assert grid(seeds=[8]).seeds == (8,)
    assert grid().sha256 != loaded.sha256
    assert grid().sha256 == grid().sha256


def test_steps_are_the_same_whatever_is_labelled(grid):
    loaded = grid(GOOD.replace("seeds = [0, 1]", "seeds = [0]\nsteps = 120\nvalidations = 6"))
    row = loaded.rows[1]
    for amount, epochs in ((1, 120), (3, 40), (10, 12)):
        settings = loaded.recipe_of(row, amount, seed=0, lr=0.1, per_class=[9] * 5 + [50] * 5).train
        steps_per_epoch = -(-sum(min(amount, present) for present in [9] * 5 + [50] * 5) // 10)
        assert settings.epochs == pytest.approx(120 / steps_per_epoch, abs=0.5) == epochs
        assert settings.validate_every == epochs // 6
    short = grid(GOOD.replace("seeds = [0, 1]", "seeds = [0]\nsteps = 120"), overrides=["epochs=2"])
    assert short.recipe_of(row, 3, seed=0, lr=0.1, per_class=[50] * 10).train.epochs == 2


@pytest.mark.parametrize(("axis", "amount"), [("events_per_class", 4), ("events_per_class", 0), ("events_share", 0.3)])
def test_labelled_is_what_training_takes(axis, amount):
    labels = np.repeat(np.arange(4), [1, 3, 9, 20])
    keys = [f"train-{label}-{i}" for i, label in enumerate(labels)]
    number, share = (amount, 1.0) if axis == "events_per_class" else (0, amount)
    chosen = order.select_recordings(keys, labels, number, seed=0, share=share)
    assert len(chosen) == sum(labelled(present, axis, amount) for present in (1, 3, 9, 20))
    if share < 1:
        assert set(chosen) < set(order.select_recordings(keys, labels, 0, seed=0, share=0.6))


def test_all_problems_at_once(grid):
    bad = GOOD.replace("seeds = [0, 1]", "seeds = [1, 1]\nsteps = -3\nsedes = 4\nevents_share = [0.5]")
    bad = bad.replace('baselines = ["a"]', 'baselines = "kt"')
    said = problems(grid, bad)
    for part in (
        "did you mean seeds",
        "seeds: a value is given twice",
        "steps: -3 is too small",
        'baselines: found the text "kt", expected a list of texts',
        "expected one of them, found 2",
    ):
        assert part in said
    bad = GOOD.replace('method = "kt"', 'method = "ktt"\nnotes = ""').replace('reference = "a"', 'reference = "c"')
    bad = bad.replace('label = "b"', 'label = "A!"').replace("seeds = [0, 1]", "seeds = [0]\nlearning_rates = [1, 2]")
    said = problems(grid, bad, overrides=["lr=1", "epoch=3"])
    for part in (
        "method: 'ktt' is not known; did you mean kt?",
        "notes: unknown key; did you mean note?",
        "reference: no row 'c'",
        "'a' is given twice",
        "several rates need tuning seeds",
        "lr: decided by the grid itself",
        "epoch: unknown key; did you mean epochs?",
    ):
        assert part in said
    assert said.startswith("grid ")


def test_every_rows_recipe_is_checked(grid):
    bad = GOOD.replace("domain_coefficient = 0.0", 'domain_coefficient = -1.0, selection = "test"')
    said = problems(grid, bad)
    assert "row 'b': [train] domain_coefficient: -1.0 is too small" in said
    assert "row 'b': [train] selection: the test split picks no epoch under protocol strict" in said
    same = GOOD.replace("switches = { domain_coefficient = 0.0 }", "").replace('method = "kt"', 'method = "event_only"')
    assert "row 'b': the same settings as row 'a'" in problems(grid, same)
    assert "no shipped grid" in problems(load_grid, "digit")


SWEEP = """# a sweep
recipe = "digits"
seeds = [0]
[sweep]
lr = [1e-3, 2e-3]
sliding_power = [1.0, 3.0]
"""


def test_a_sweep_is_the_product_of_its_values(grid):
    loaded = grid(SWEEP)
    assert [row.label for row in loaded.rows] == [
        *("lr=0.001, sliding_power=1", "lr=0.001, sliding_power=3"),
        *("lr=0.002, sliding_power=1", "lr=0.002, sliding_power=3"),
    ]
    made = [loaded.recipe_of(row, 3, seed=7, lr=9.0).train for row in loaded.rows]
    assert [(one.lr, one.sliding_power) for one in made] == [(0.001, 1.0), (0.001, 3.0), (0.002, 1.0), (0.002, 3.0)]
    assert {(one.method, one.seed, one.events_per_class) for one in made} == {("kt", 7, 3)}
    assert (loaded.axis, loaded.rows[0].amounts, loaded.reference, loaded.tested) == (
        *("events_per_class", (3,), loaded.rows[0].label, ()),
    )
    assert loaded.described()["sweep"] == {"lr": [1e-3, 2e-3], "sliding_power": [1.0, 3.0]}
    rows = GOOD.replace('baselines = ["a"]\n', "").replace('reference = "a"', "[sweep]\ntet = [true, false]")
    assert [row.label for row in grid(rows).rows] == ["a, tet=true", "a, tet=false", "b, tet=true", "b, tet=false"]
    methods = grid(SWEEP.replace("lr = [1e-3, 2e-3]", 'method = ["kt", "event_only"]')).rows
    assert [row.method for row in methods] == ["kt", "kt", "event_only", "event_only"]


def test_what_is_wrong_with_a_sweep_is_said_at_once(grid):
    bad = SWEEP.replace("lr = [1e-3, 2e-3]", "lr = 1e-3\nseed = [1]\nlearning_rate = [1]\ntet = [true, true]\nxyz = []")
    said = problems(grid, 'baselines = ["a"]\nfinalist = "a"\ntuning_seeds = [1]\n' + bad)
    for part in (
        "sweep: lr: expected a list of values, none twice",
        "sweep: seed: decided by the grid itself",
        "learning_rate: unknown key; did you mean lr?",
        "sweep: tet: expected a list",
        "xyz: unknown key",
        "baselines: a sweep is there to choose from",
        "finalist: a sweep",
        "tuning_seeds: lr is swept",
    ):
        assert part in said
    assert "sliding_power: is swept" in problems(grid, SWEEP, overrides=["sliding_power=2"])
    assert "sliding_power: -1.0 is too small" in problems(grid, SWEEP.replace("[1.0, 3.0]", "[-1.0, 3.0]"))
    assert "at least one setting" in problems(grid, SWEEP.partition("lr =")[0])
