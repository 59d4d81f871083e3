"""The JSON schemas take what the loader takes, and refuse what it refuses, key by key and rule by rule."""

import copy
import json
import tomllib
from dataclasses import fields

import pytest
from click.testing import CliRunner
from json_schema import fits

from spikebridge.cli import main
from spikebridge.train.config.recipes import TABLES, recipe_from
from spikebridge.train.config.schema import RULES, recipe_schema
from spikebridge.train.config.shipped import GRIDS, RECIPES
from spikebridge.train.errors import RecipeError
from spikebridge.train.studies.grid_schema import grid_schema
from spikebridge.train.studies.grids import load_grid

RECIPE, GRID = recipe_schema(), grid_schema()
GOOD = tomllib.loads(RECIPES.show("digits"))


def loads(tables):
    try:
        recipe_from(tables)
    except RecipeError:
        return False
    return True


def test_it_takes_what_is_shipped():
    for name in RECIPES.names():
        assert fits(tomllib.loads(RECIPES.show(name)), RECIPE), name
    for name in GRIDS.names():
        assert fits(tomllib.loads(GRIDS.show(name)), GRID), name


def wrong_values(declared):
    """Values that the declaration of a setting refuses."""
    limits, kind = declared.metadata, str(declared.type)
    several = kind.startswith("tuple")
    yield {"str": 3, "bool": 1, "int": "1", "float": "1"}.get(kind, "1")
    yield True if kind != "bool" else "true"
    for value in (
        *(["no such name"] if "choices" in limits else []),
        *([limits["low"] - 1] if "low" in limits else []),
        *([limits["above"]] if "above" in limits else []),
        *([limits["high"] + 1] if "high" in limits else []),
    ):
        yield [value] if several else value


@pytest.mark.parametrize("table", TABLES)
def test_it_refuses_values_that_the_loader_refuses(table):
    tried = 0
    for declared in fields(TABLES[table]):
        for value in wrong_values(declared):
            bad = copy.deepcopy(GOOD)
            bad[table][declared.name] = value
            assert not loads(bad), (declared.name, value)
            assert not fits(bad, RECIPE), (declared.name, value)
            tried += 1
    assert tried > 2 * len(fields(TABLES[table]))


@pytest.mark.parametrize(
    "change",
    [
        {"milestones": [4]},
        {"schedule": "step"},
        {"step_weights": "bounded", "regularization": False},
        {"method": "tsm", "sliding": "off"},
        {"augmentation": "crop+cutmix"},
        {"augmentation": "cutmix+eventmix", "method": "event_only"},
        {"events_per_class": 3, "events_share": 0.5},
        {"selection": "test"},
        {"epoch": 3},
        {"size": 28},
    ],
    ids=str,
)
def test_it_refuses_contradictions_that_the_loader_refuses(change):
    bad = copy.deepcopy(GOOD)
    bad["train"] |= change
    assert not loads(bad)
    assert not fits(bad, RECIPE)


def test_it_refuses_missing_and_foreign_tables_and_takes_what_each_rule_permits():
    for bad in ({"train": GOOD["train"]}, {**GOOD, "other": {}}, {**GOOD, "train": {"lr": 1.0}}, {**GOOD, "shards": 3}):
        assert not loads(bad)
        assert not fits(bad, RECIPE)
    assert len(RULES) == 6
    for change in (
        {"schedule": "step", "milestones": [4]},
        {"step_weights": "bounded"},
        {"method": "tsm", "sliding": "linear"},
        {"method": "event_only", "augmentation": "crop+cutmix"},
        {"events_per_class": 0, "events_share": 0.5},
        {"lr": 1},
    ):
        good = copy.deepcopy(GOOD)
        good["train"] |= change
        assert loads(good), change
        assert fits(good, RECIPE), change


def test_a_key_says_what_it_means_and_what_it_may_be():
    power = RECIPE["properties"]["train"]["properties"]["sliding_power"]
    assert power["description"].startswith("Exponent of the replacement probability")
    assert (power["type"], power["exclusiveMinimum"], power["default"]) == ("number", 0.0, 3.0)
    assert "kt" in RECIPE["properties"]["train"]["properties"]["method"]["enum"]
    undescribed = [
        name
        for table in RECIPE["properties"].values()
        for name, one in table["properties"].items()
        if "description" not in one
    ]
    assert not undescribed


BASE = {"recipe": "digits", "seeds": [0], "events_per_class": [3], "reference": "a"}
ROW = {"label": "a", "method": "kt"}


@pytest.mark.parametrize(
    ("content", "good"),
    [
        ({**BASE, "rows": [ROW]}, True),
        ({**BASE, "rows": [{**ROW, "switches": {"tet": False}}], "settings": {"epochs": 2}}, True),
        ({"recipe": "digits", "seeds": [0], "sweep": {"lr": [0.1, 1]}}, True),
        ({"recipe": "digits", "seeds": [0], "sweep": {"lr": [0.1]}, "baselines": ["a"]}, False),
        ({"recipe": "digits", "seeds": [0], "sweep": {}}, False),
        ({"recipe": "digits", "seeds": [0], "sweep": {"seed": [1]}}, False),
        ({"recipe": "digits", "seeds": [0], "sweep": {"lr": 0.1}}, False),
        ({"recipe": "digits", "seeds": [0], "sweep": {"sliding_power": [-1.0]}}, False),
        (BASE, False),
        ({**BASE, "rows": [ROW], "seeds": [1, 1]}, False),
        ({**BASE, "rows": [ROW], "events_share": [0.5]}, False),
        ({**BASE, "rows": [{**ROW, "label": "!"}]}, False),
        ({**BASE, "rows": [{"method": "kt"}]}, False),
        ({**BASE, "rows": [{**ROW, "method": "ktt"}]}, False),
        ({**BASE, "rows": [{**ROW, "switches": {"lr": 1.0}}]}, False),
        ({**BASE, "rows": [ROW], "settings": {"seed": 1}}, False),
    ],
    ids=str,
)
def test_grids_are_taken_and_refused_as_the_loader_does(content, good, monkeypatch):
    monkeypatch.setattr(type(GRIDS), "read", lambda self, name: (name, copy.deepcopy(content)))
    monkeypatch.setattr(type(GRIDS), "summary", lambda self, name: "")
    monkeypatch.setattr("spikebridge.train.studies.grids.load_recipe", lambda name: recipe_from(GOOD))
    try:
        load_grid("made")
        loaded = True
    except RecipeError:
        loaded = False
    assert loaded is good
    assert fits(content, GRID) is good


@pytest.mark.parametrize(("verb", "schema"), [("recipes", RECIPE), ("grids", GRID)])
def test_the_verb_prints_it(verb, schema):
    for more in ([], ["--json"]):
        assert json.loads(CliRunner().invoke(main, [verb, "schema", *more]).stdout) == schema
