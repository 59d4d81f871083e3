import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from types import SimpleNamespace

import pytest
from conftest import ROOT
from fake_shards import tiny_recipe
from hypothesis import given
from hypothesis import strategies as st

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.train.config import recipes, settings
from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.config.shipped import RECIPES
from spikebridge.train.errors import RecipeError

GOOD = {
    "shards": {
        "dataset": "digits",
        "time_bins": 10,
        "size": 28,
        "reduction": "sum",
        "extent": "canvas",
        "encoding": "v",
        "protocol": "strict",
    },
    "train": {"method": "kt", "model": "scnn", "epochs": 4, "batch_size": 20, "lr": 0.001},
}


def problems_of(call, *args, **kwargs):
    with pytest.raises(RecipeError) as caught:
        call(*args, **kwargs)
    return "\n".join(caught.value.problems), len(caught.value.problems)


@pytest.mark.parametrize("name", RECIPES.names())
def test_shipped_recipes_are_valid_and_say_what_they_are(name):
    recipe = recipes.load_recipe(name)
    assert recipe.name == name
    header = RECIPES.show(name).split("[shards]")[0]
    for word in ("Command:", "Data:", "Result:", "Time:", "Hardware:"):
        assert word in header
    computes = {"auto": "16 bits where the device is fast in them", "fp32": "fp32"}[recipe.train.precision]
    assert f"Precision: {computes}" in header
    assert (recipe.train.precision == "fp32") == (name == "speck")
    assert f"--recipe {name}" in header
    assert next(entry for entry in RECIPES.catalogue() if entry.name == name).summary


PUBLISHED = ("ncaltech101", "cepdvs", "nomniglot")
CLASSES = {"digits": 10, "nmnist": 10, "ncaltech101": 101, "cepdvs": 20, "nomniglot": 1623}
CLASSES |= {"cifar10dvs": 10, "esimagenet": 1000}
UNRUN = [name for name in RECIPES.names() if name != "nmnist" and recipes.load_recipe(name).shards.dataset != "digits"]


def test_what_is_shipped():
    wanted = {*PUBLISHED, *(f"{name}-legacy" for name in PUBLISHED), "digits", "nmnist", "cifar10dvs", "esimagenet"}
    assert wanted <= set(RECIPES.names())


@pytest.mark.parametrize("name", UNRUN)
def test_recipes_that_were_never_run_say_so(name):
    assert "never run on the real data" in RECIPES.show(name).split("[shards]")[0]


@pytest.mark.parametrize("name", RECIPES.names())
def test_shipped_recipes_fit_their_network_reader_and_conversion(name):
    import torch

    from spikebridge.models import build_model
    from spikebridge.pipeline.readers import get_reader
    from spikebridge.train.networks.build import network_arguments

    recipe = recipes.load_recipe(name)
    wanted = recipe.shards
    assert get_reader(wanted.dataset).name == wanted.dataset
    named = name.partition("-")[0]
    assert named not in CLASSES or named == wanted.dataset
    ConversionSettings(**recipe.tables()["shards"])
    shards = SimpleNamespace(
        classes=range(CLASSES[wanted.dataset]), sample_shape=(wanted.time_bins, 2, wanted.size, wanted.size)
    )
    with torch.device("meta"):
        net = build_model(**network_arguments(recipe.train, shards))
    assert net.settings.num_classes == CLASSES[wanted.dataset]
    if name.startswith("ncaltech101"):
        assert sum(p.numel() for p in net.parameters()) + 16 == 10_153_700


@pytest.mark.parametrize("name", PUBLISHED)
def test_legacy_differs_in_the_protocol_alone(name):
    there, here = recipes.load_recipe(name), recipes.load_recipe(f"{name}-legacy")
    assert recipes.differences(there, here) == ["protocol: 'strict' there, 'legacy' asked for"]


def test_published_settings():
    """The table of the published recipes, written out once more."""
    nc, ce, no = (recipes.load_recipe(name) for name in PUBLISHED)
    for recipe, T, size, model, epochs, batch in (
        (nc, 10, 48, "vgg_snn", 300, 120),
        (ce, 6, 48, "resnet18_snn", 200, 120),
        (no, 12, 28, "scnn", 50, 16),
    ):
        assert (recipe.shards.time_bins, recipe.shards.size, recipe.shards.encoding) == (T, size, "v")
        train = recipe.train
        assert (train.method, train.model, train.width, train.neuron) == ("kt", model, 1.0, "LIF")
        assert (train.epochs, train.batch_size, train.weight_decay, train.seed) == (epochs, batch, 0.01, 42)
        assert (train.domain_coefficient, train.cka, train.feature) == (0.5, "biased", "published")
        assert (train.sliding, train.sliding_power, train.statistics) == ("power", 3.0, "per_step")
        assert (train.coefficient, train.recalibrate, train.events_per_class) == ("learned", False, 0)
    assert [r.train.tet for r in (nc, ce, no)] == [r.train.regularization for r in (nc, ce, no)] == [True, True, False]
    assert [r.train.surrogate for r in (nc, ce, no)] == ["QGateGrad", "QGateGrad", "BackEIGateGrad"]
    assert [r.train.sampling for r in (nc, ce, no)] == ["class_balanced", "shuffle", "shuffle"]
    assert [r.train.augmentation for r in (nc, ce, no)] == ["crop", "crop_flip_rotate", "none"]
    assert [r.shards.reduction for r in (nc, ce, no)] == ["bilinear", "bilinear", "frequency"]
    assert [r.shards.extent for r in (nc, ce, no)] == ["recording", "recording", "canvas"]


def test_settings_know_the_models_that_exist():
    from spikebridge import models
    from spikebridge.models.neurons import NEURONS, make_neuron
    from spikebridge.models.normalization import STATISTICS
    from spikebridge.train.config.simulation_ranges import PROFILES
    from spikebridge.train.data.augmentation import AUGMENTATIONS
    from spikebridge.train.data.mixing import MIXINGS

    assert set(settings.MODELS) == set(models.NETWORKS)
    assert set(settings.SURROGATES) == set(models.SURROGATES)
    assert set(settings.NEURONS) == set(NEURONS)
    resets = [make_neuron("LIF", surrogate="QGateGrad", reset=name).rule.hard_reset for name in settings.RESETS]
    assert resets == [True, False]
    assert set(settings.STATISTICS) == set(STATISTICS)
    assert set(settings.FEATURES) == set(models.FEATURES)
    assert set(settings.AUGMENTATIONS) == set(AUGMENTATIONS)
    assert set(settings.MIXINGS) == set(MIXINGS)
    assert set(settings.SIMULATIONS) == {*PROFILES, "i2e", "auto"}
    assert {"kt", "event_only"} <= set(settings.METHODS)


def test_a_recipe_takes_exactly_what_a_conversion_takes():
    for key, most in (("size", 1024), ("time_bins", 1000)):
        recipe = recipes.recipe_from(GOOD, overrides=[f"{key}={most}"])
        assert ConversionSettings(**recipe.tables()["shards"]).as_dict()[key] == most
        text, _ = problems_of(recipes.recipe_from, GOOD, overrides=[f"{key}={most + 1}"])
        with pytest.raises(SettingsError) as caught:
            ConversionSettings(**{**GOOD["shards"], key: most + 1})
        assert text.removeprefix("[shards] ") in str(caught.value)
    for field in fields(settings.ShardSettings):
        own = ConversionSettings.__dataclass_fields__[field.name]
        choices = tuple(choice for choice in field.metadata.get("choices", ()) if choice)  # "" is what was left out
        limits = {**field.metadata, **({"choices": choices} if choices else {})}
        wanted = {**own.metadata, **({"choices": tuple(filter(None, own.metadata["choices"]))} if choices else {})}
        assert (field.type, limits) == (own.type, {**wanted, **({"low": 0} if field.name == "time_window_us" else {})})


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"tau_us": 9}, "tau_us: goes with reduction surface only; reduction is sum"),
        ({"latest_events": 9}, "latest_events: goes with reduction tore only; reduction is sum"),
        ({"binning": "bins", "window_us": 9}, "window_us: goes with binning window only; binning is bins"),
        ({"binning": "window", "events_per_bin": 9}, "events_per_bin: goes with binning count only; binning is window"),
    ],
)
def test_settings_that_no_shard_set_has_together(given, problem):
    text, count = problems_of(recipes.recipe_from, GOOD, settings=given)
    assert (text, count) == (f"[shards] {problem}", 1)
    with pytest.raises(RecipeError, match=problem):
        settings.ShardSettings(**{**GOOD["shards"], **given})
    recipes.recipe_from(GOOD, settings={"window_us": 9})  # the binning is left to the set


def test_all_problems_at_once_with_the_nearest_name():
    text, count = problems_of(
        recipes.recipe_from,
        {
            "shards": {**GOOD["shards"], "time_bin": 3, "size": "28"},
            "train": {
                **GOOD["train"],
                "metod": "kt",
                "model": "scn",
                "epochs": 2.5,
                "tet": 1,
                "lr": -1,
                "dataset": "digits",
                "warmup_epochs": -1,
                "seed": True,
            },
            "extra": {},
        },
        overrides=["epoch=3", "sliding='on'"],
    )
    for part in (
        "[extra]: unknown table",
        "time_bin: unknown key; did you mean time_bins?",
        'size: found the text "28", expected a whole number',
        "metod: unknown key; did you mean method?",
        '"scn" is not known; expected one of vgg_snn, resnet18_snn, resnet34_snn, scnn, nmnist_snn, speck_snn; '
        "did you mean scnn?",
        "epochs: found the number 2.5, expected a whole number",
        "tet: found the number 1, expected true or false",
        "lr: -1 is too small; expected more than 0.0",
        "dataset: belongs in [shards]",
        "warmup_epochs: -1 is too small",
        "seed: found the boolean true, expected a whole number",
        "--set epoch: unknown key; did you mean epochs?",
        'sliding: "on" is not known',
    ):
        assert part in text
    assert count == 13


def test_missing_keys_and_contradictions():
    text, count = problems_of(
        recipes.recipe_from,
        {"shards": GOOD["shards"], "train": {"method": "kt", "schedule": "step", "epochs": 3, "warmup_epochs": 4}},
    )
    assert count == 5
    assert "model: missing" in text
    assert "warmup_epochs: 4 is more than the run's 3 epochs" in text
    assert "needs at least one" in text
    text, _ = problems_of(recipes.recipe_from, GOOD, overrides=["milestones=[3, 2]", "lr_min=1"])
    assert "only schedule" in text
    assert "do not increase" in text
    assert "the floor 1" in text
    text, _ = problems_of(recipes.recipe_from, GOOD, overrides=["milestones=[9]", "schedule=step"])
    assert "outside a run of 4 epochs" in text


def test_settings_check_themselves():
    with pytest.raises(RecipeError, match="too small"):
        settings.TrainSettings(method="kt", model="scnn", epochs=0, batch_size=1, lr=0.1)
    with pytest.raises(RecipeError, match="expected one of"):
        settings.ShardSettings(**{**GOOD["shards"], "encoding": "hsl"})


def test_precedence_of_seed_and_overrides():
    recipe = recipes.recipe_from(
        {**GOOD, "train": {**GOOD["train"], "seed": 1}}, overrides=["seed=2", "lr=1", "size=32"], settings={"seed": 3}
    )
    assert recipe.train.seed == 3
    assert recipe.train.lr == 1.0
    assert isinstance(recipe.train.lr, float)
    assert recipe.shards.size == 32
    assert recipes.override(recipe, ["train.epochs=9"], seed=4, method="event_only").train.method == "event_only"
    assert recipes.override(recipe, size=48, lr=2.0) == recipes.override(recipe, ["size=48", "lr=2.0"])
    for name in ("recipe", "overrides"):
        with pytest.raises(RecipeError, match=f"{name}: unknown key"):
            recipes.override(recipe, **{name: 1})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("model=scnn", "scnn"),
        ('model="scnn"', "scnn"),
        ("shards.dataset=n-mnist", "n-mnist"),
        ("lr=1e-3", 1e-3),
        ("tet=false", False),
        ("milestones=[1, 2]", [1, 2]),
    ],
)
def test_override_values_are_toml(text, value):
    assert recipes.parse_override(text)[2] == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model=two words", "--set 'model=\"two words\"'"),
        ("tet=True", "is not a TOML value"),
        ("lr=fast", "is not a TOML value"),
        ("lr", "expected key=value"),
        ("lr=", "expected key=value"),
        ("shards.lr=1", "unknown key"),
        ("epochs=1\nseed=2", "is not a TOML value"),
    ],
)
def test_override_errors_show_what_to_write(text, words):
    found, _ = problems_of(recipes.parse_override, text)
    assert words in found


def test_a_word_that_is_toml_is_not_guessed_to_be_text():
    text, _ = problems_of(recipes.recipe_from, GOOD, overrides=["dataset=true"])
    assert "found the boolean true, expected text in quotation marks" in text


@given(
    st.text(min_size=1, max_size=20),
    st.floats(1e-300, 1e300),
    st.lists(st.integers(1, 99), max_size=4, unique=True).map(sorted),
    st.booleans(),
)
def test_written_recipes_read_back_equal(dataset, lr, milestones, tet):
    tables = {
        "shards": {**GOOD["shards"], "dataset": dataset},
        "train": {**GOOD["train"], "epochs": 100, "lr": lr, "tet": tet, "lr_min": 0.0, "milestones": milestones},
    }
    tables["train"]["schedule"] = "step" if milestones else "cosine"
    recipe = recipes.recipe_from(tables)
    assert recipes.recipe_from(tomllib.loads(recipes.dump_recipe(recipe))) == recipe


def test_what_came_later_changes_no_hash_and_is_compared_all_the_same():
    plain = recipes.recipe_from(GOOD)
    assert not set(recipes._LATER) & set(plain.tables()["train"])
    assert {"preview", "binning"}.isdisjoint(plain.tables()["shards"])
    later = recipes.recipe_from(
        {"shards": {**GOOD["shards"], "preview": True}, "train": {**GOOD["train"], "event_augmentation": "rotate"}}
    )
    assert recipes.changed_settings(plain, later) == {
        "preview": (False, True),
        "event_augmentation": ("none", "rotate"),
    }
    assert recipes.changed_settings(later, plain)["preview"] == (True, False)
    assert recipes.recipe_from(tomllib.loads(recipes.dump_recipe(later))) == later


def test_differences_name_what_differs():
    lines = recipes.differences(tiny_recipe(), tiny_recipe(lr=0.5, tet=False))
    assert lines == ["lr: 0.003 there, 0.5 asked for", "tet: True there, False asked for"]


def test_a_recipe_is_found_for_a_shard_set():
    name = "nomniglot"
    wanted = recipes.load_recipe(name).tables()["shards"]
    assert recipes.fitting_recipe({**wanted, "codec": "raw"}) == name
    assert recipes.fitting_recipe({**wanted, "protocol": "legacy"}) == "nomniglot-legacy"
    assert recipes.fitting_recipe({**wanted, "size": 29}) is None
    best = recipes.load_recipe("best").tables()["shards"]
    assert [recipes.fitting_recipe(best, wish=wish) for wish in (None, "best", name)] == ["digits", "best", "digits"]


def test_find_copy_and_show(tmp_path):
    copied = RECIPES.copy("digits", tmp_path)
    assert copied.name == "digits.toml"
    assert recipes.load_recipe(copied) == recipes.load_recipe("digits")
    text, _ = problems_of(RECIPES.copy, "digits", copied)
    assert "--overwrite" in text
    RECIPES.copy("digits", copied, overwrite=True)
    text, _ = problems_of(recipes.load_recipe, "digit")
    assert "did you mean digits?" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[train\n", "not valid TOML"),
        (b"[train]\nlr = 1e-3\nepochs = 3\nlr = 2e-3\nseed = 1\n", "not valid TOML: line 4 gives lr a second time"),
        (b"[train]\nlr = 1e-3\nlr = 2e-3", "not valid TOML: line 3 gives lr a second time"),
        (b"a = " + b"[" * 100_000, "not valid TOML: nested too deeply"),
        (b"\xff\xfe", "not valid TOML: .* codec"),
        (b" " * (2**20 + 1), "longer than 1,048,576 bytes; expected a recipe"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, content, expected):
    (tmp_path / "broken.toml").write_bytes(content)
    text, _ = problems_of(recipes.load_recipe, tmp_path / "broken.toml")
    assert re.search(expected, text)


def test_recipes_and_method_names_need_no_torch():
    root = ROOT
    code = (
        "import sys; import spikebridge.train.config.recipes, spikebridge.train.methods; "
        "assert not {'torch', 'numpy', 'h5py'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_a_setting_is_found_by_what_the_field_calls_it():
    known = {field.name for kind in recipes.TABLES.values() for field in fields(kind)}
    assert set(settings.SYNONYMS.values()) <= known
    assert not set(settings.SYNONYMS) & known
    for name, meant in {**settings.SYNONYMS, "Learning_Rate": "lr", "epochz": "epochs"}.items():
        said, _ = problems_of(recipes.recipe_from, {**GOOD, "train": {**GOOD["train"], name: 1}})
        assert f"[train] {name}: unknown key; did you mean {meant}?" in said
    assert "; did you mean wd" not in problems_of(recipes.recipe_from, GOOD, overrides=["wwd=1"])[0]


def test_what_passes_beside_the_known_values_is_named():
    with pytest.raises(RecipeError, match=r'teacher: "dino" is not known; expected a file ending in \.pt2 or \.safet'):
        load_recipe("digits", overrides=["teacher=dino"])
    with pytest.raises(RecipeError, match=r"expected one of saccades, .* or the \.toml file of a profile"):
        load_recipe("best", overrides=["simulation=camera"])


def test_long_values_are_brief_for_people():
    profile = "profile " + "{" * 2000
    assert recipes.brief(profile) == recipes.brief(profile)[:16] != recipes.brief(profile + "}")
    assert recipes.brief("dino.pt2 sha256:" + "0123456789" * 6) == "dino.pt2 sha256:01234567"
    assert [recipes.brief(value) for value in ("kt", 3, (0.5,), None)] == ["kt", 3, (0.5,), None]
