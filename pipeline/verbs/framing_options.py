"""The options of verbs that choose how events become frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from spikebridge.pipeline.shards.settings import CHOICES
from spikebridge.pipeline.ui.terminal import parse_pair

Command = TypeVar("Command", bound=Callable[..., object])

OPTIONS = (
    click.option("--time-bins", type=int, help="Frames per recording, T."),
    click.option("--size", metavar="N|WxH", help="Height and width of frames and images in pixels."),
    click.option(
        "--fit",
        type=click.Choice(("squash", *CHOICES["fit"])),
        help="Sensors and images of another aspect: squashed, with stripes, or cut  [default: squash]",
    ),
    click.option("--binning", type=click.Choice(CHOICES["binning"]), help="Equal bins, windows, or counts of events."),
    click.option("--window-us", type=int, help="Length of a window (--binning window)."),
    click.option("--events-per-bin", type=int, help="Events of a bin (--binning count)  [default: equal shares]"),
    click.option("--time-window", metavar="START:STOP", help="Part of a recording that is used, in microseconds."),
    click.option("--reduction", type=click.Choice(CHOICES["reduction"]), help="How events become cells."),
    click.option("--tau-us", type=int, help="Time in which a cell decays to 1 / e (--reduction surface)."),
    click.option("--latest-events", type=int, help="Events that a cell shows, a frame each (--reduction tore)."),
    click.option(
        "--extent", type=click.Choice(CHOICES["extent"]), help="Stretch the recording's extent or the sensor."
    ),
    click.option(
        "--dtype",
        type=click.Choice(CHOICES["dtype"]),
        help="Stored type  [default: the narrowest that clips at most 1 %]",
    ),
)


def framing_options(command: Command) -> Command:
    """Add the options to a verb; `framing_flags` reads them."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def framing_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verb's options as settings; what was not given is None or absent."""
    found = dict(flags)
    refusal = "is no part of a recording; expected START:STOP in microseconds, for example 0:100000"
    window, size, fit = found.pop("time_window"), found.pop("size"), found.pop("fit")
    found["time_window_us"] = parse_pair(window, ":", refusal=refusal, option="--time-window") if window else None
    found |= parse_size(size) if size else {}
    found["fit"] = fit if fit != "squash" else ""
    return found


def parse_size(text: str) -> dict[str, int]:
    """Parse `--size` into the settings size and width: one number for a square, or WIDTHxHEIGHT."""
    if text.isdecimal():
        return {"size": int(text), "width": 0}
    refusal = "is no size; expected one number, or WIDTHxHEIGHT in pixels, for example 28 or 64x48"
    width, height = parse_pair(text, "x", refusal=refusal, option="--size")
    if width == 0:  # the setting says "a square" by it
        raise click.BadParameter(f"{text!r} {refusal}", param_hint="--size")
    return {"size": height, "width": width if width != height else 0}
