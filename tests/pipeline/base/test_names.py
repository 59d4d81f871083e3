"""Registries and near names."""

import pytest

from spikebridge.pipeline.base.names import near_names, register, suggest


def test_a_registry_refuses_a_second_entry_of_a_name():
    registry = {}
    assert register(registry, "digits", 1) == 1
    with pytest.raises(ValueError, match="'digits' is registered twice"):
        register(registry, "digits", 2)
    assert registry == {"digits": 1}


def test_the_nearest_name_is_suggested_where_one_is_near():
    assert suggest("nmnst", ["digits", "nmnist"]) == "; did you mean nmnist?"
    assert suggest("nmnst", []) == suggest("x", ["digits", "nmnist"]) == ""
    assert near_names("train-3-1", ["train-3-10", "train-3-11", "test-1-1"], most=2) == ["train-3-11", "train-3-10"]
