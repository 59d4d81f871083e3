"""Options that a verb passes on under their own names are parameters of the function that takes them."""

import inspect

import pytest

from spikebridge.train.studies.compare import compare
from spikebridge.train.trainer.import_published import import_checkpoint
from spikebridge.train.trainer.run import train
from spikebridge.train.verbs.compare import compare as compare_verb
from spikebridge.train.verbs.import_checkpoint import import_checkpoint as import_verb
from spikebridge.train.verbs.train import train as train_verb


@pytest.mark.parametrize(
    ("verb", "function"),
    [(train_verb, train), (compare_verb, compare), (import_verb, import_checkpoint)],
    ids=["train", "compare", "import-checkpoint"],
)
def test_every_option_finds_its_parameter(verb, function):
    named = inspect.signature(verb.callback).parameters
    passed_on = {option.name for option in verb.params if option.expose_value} - set(named)
    assert passed_on
    assert "options" in named
    assert passed_on <= set(inspect.signature(function).parameters)
