"""Options that several verbs have."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import click

from spikebridge.pipeline.ui.terminal import FiniteRange
from spikebridge.train.config.recipes import setting_called

log = logging.getLogger(__name__)

TRACKERS = ("wandb", "mlflow", "trackio")
"""As in `train.runs.tracking`, which is slow to import."""


def _name_what_is_given_twice(
    ctx: click.Context, option: click.Parameter, overrides: tuple[str, ...]
) -> tuple[str, ...]:
    """Say which value of a setting counts where several are given."""
    last: dict[str, str] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        key, value = key.strip().rpartition(".")[2], value.strip()
        if last.get(key, value) != value:
            log.warning("--set %s is given twice: %s counts, not %s", key, value, last[key])
        last[key] = value
    return overrides


device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "numba", "triton", "torch"]),
    default="auto",
    show_default=True,
    help="What computes the neurons; auto is numba on a CPU and Triton on CUDA where they are installed, else torch.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_name_what_is_given_twice,
    help="Change a setting of the recipe; of two values the later counts.",
)
checkpoint_option = click.option(
    "--checkpoint-every",
    default="10s",
    show_default=True,
    metavar="TIME|STEPS",
    help="Least time between checkpoints (30s, 10m), or a number of steps.",
)
trust_option = click.option(
    "--trust", is_flag=True, help="Open a torch.export program named as teacher, which can run any code."
)
corrupt_option = click.option(
    "--corrupt",
    metavar="NAME[:LEVEL]",
    multiple=True,
    help="Score also as a failing camera would have recorded it: hot_pixels, background, dropped_bursts, "
    "polarity_imbalance, flicker or clock_jitter, at a level or at four; may be repeated.",
)
early_exit_option = click.option(
    "--early-exit",
    type=FiniteRange(0, 100),
    metavar="POINTS",
    help="Score also with an exit at the first time step that is sure enough, and no answer where none is. The "
    "validation split chooses how sure, so that at most so many points of accuracy are lost, with 90 % confidence; "
    "where it is too small for that, there is no exit.",
)
shards_option = click.option(
    "--shards", required=True, metavar="PATH|ADDRESS", help="Folder of the shard set, or where it is published."
)


def point_to_setting(error: click.NoSuchOption, words: Sequence[str]) -> click.NoSuchOption:
    """Return the error about an option; where that is a setting, it says so: `--epochs 3` is `--set epochs=3`.

    Args:
        error: about an option that its verb does not have.
        words: of the command line, behind the verb.
    """
    setting = setting_called(error.option_name.lstrip("-"))
    if setting is None or error.ctx is None or "overrides" not in [one.name for one in error.ctx.command.params]:
        return error
    given = next((i for i, word in enumerate(words) if word.partition("=")[0] == error.option_name), None)
    value = "VALUE"
    if given is not None:
        _, equals, value = words[given].partition("=")
        following = words[given + 1] if given + 1 < len(words) else ""
        value = value if equals else following if following and not following.startswith("--") else "VALUE"
    message = f"{error.message} It is a setting of the recipe: --set {setting}={value}"
    return click.NoSuchOption(error.option_name, message, ctx=error.ctx)


def whole_numbers(text: str, option: str) -> list[int]:
    """Read numbers separated by commas."""
    if not all(number.strip().isdecimal() for number in text.split(",")):
        raise click.BadParameter(f"{text!r}: expected whole numbers separated by commas", param_hint=option)
    return [int(number) for number in text.split(",")]
