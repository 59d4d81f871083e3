"""Settings are given with `--set`; who gives one otherwise is told so."""

import pytest
from click.testing import CliRunner

from spikebridge.cli import main


def said(*arguments, code):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "--epochs", "3", "--shards", "x"], "--set epochs=3"),
        (["train", "--shards", "x", "--learning-rate=0.1"], "--set lr=0.1"),
        (["compare", "--bs", "--shards", "x"], "--set batch_size=VALUE"),
        (["recipes", "validate", "digits", "--wd", "0"], "--set weight_decay=0"),
    ],
)
def test_an_option_that_is_a_setting_is_pointed_to(arguments, hint):
    assert said(*arguments, code=2).endswith(f" It is a setting of the recipe: {hint}\n")


@pytest.mark.parametrize("arguments", [["train", "--nonsense", "3"], ["verify", "--epochs", "3"]])
def test_other_options_are_not(arguments):
    assert "setting" not in said(*arguments, code=2)


def test_a_setting_given_twice_is_named(caplog):
    valid = ["recipes", "validate", "digits", "--set", "epochs=4"]
    said(*valid, "--set", "train.epochs = 5", "--set", "seed=1", code=0)
    assert caplog.messages == ["--set epochs is given twice: 5 counts, not 4"]
    caplog.clear()
    said(*valid, "--set", "epochs=4", code=0)
    assert not caplog.messages
