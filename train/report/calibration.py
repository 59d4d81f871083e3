"""The page of a calibration: values with their uncertainties, and real recordings beside simulated ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from torch import Tensor

from spikebridge.pipeline.ui.html import (
    facts,
    figure,
    figures,
    page,
    paragraph,
    polarities,
    section,
    table,
    tags,
    thumbnails,
)
from spikebridge.pipeline.ui.paint import preview_png
from spikebridge.pipeline.ui.style import OFF, ON
from spikebridge.train.calibration.fidelity import Fidelity
from spikebridge.train.calibration.parameters import limits_of
from spikebridge.train.config.informing import CELLS
from spikebridge.train.config.profile import BEGIN, SIGN, SURROUND
from spikebridge.train.report.plots.drawing import Drawing, house_style

ROUNDED = 1e-3
"""Part of a value by which what is written of it may differ from it."""
SHOWN = 8
"""Recordings in a row."""

BOTH, NEAREST = ": undecided, training has both", ": undecided, training has the nearest"
VALUES = ("value", "fitted", "uncertainty", "", "what it is")
"""Heads of the table of a camera's values."""
MEANINGS = {
    "light_gamma": "exponent from grey value to light",
    "dark_level": "light of black, relative to the span from black to white",
    "softness": "blur, share of 0.7 px; below 0 sharpened",
    "threshold_on": "ON contrast threshold, natural logarithm",
    "off_ratio": "OFF threshold relative to the ON threshold",
    "threshold_spread": "half-width of the thresholds' relative spread over the pixels",
    "bandwidth": "cut-off under white, angular frequency per recording",
    "dead_time": "blind after an event, share of the recording",
    "leak": "fall of the memorised level in a recording, ON thresholds",
    "noise": "share of the pixels that fire once at random",
    "scale": "size relative to that of the images in the frame",
    "x_start": "place at the start, px to the right of its own",
    "y_start": "place at the start, px below its own",
    "amplitude": "factor on the length of the path",
}
"""Of the values, in the words of `SimulationRanges`."""
IN_UNITS = {"bandwidth": "bandwidth_hz", "dead_time": "refractory_us", "leak": "leak_hz", "noise": "shot_hz"}
"""Those that are relative to a recording's length, and what they are called under [microseconds]."""
RENDERED = {"microseconds": "simulate --camera"}
"""What other ways to make recordings are called, where not by their names."""
FREE = "Recordings move each in its own way."
MOVEMENT = ("movement", "right px", "down px", "start", "duration")
"""Heads of the fields of a leg, behind its number."""


def calibration_page(made: dict[str, Any], fidelity: Fidelity, real: Tensor, simulated: Tensor) -> str:
    """Return the page, HTML.

    Args:
        made: what `calibrate` returns.
        fidelity: of held-out recordings.
        real: frames [T,n,2,S,S] of them.
        simulated: of as many simulated ones.
    """
    width, height = made["sensor"]
    marks, theirs = [("SIMULATED recordings", True)] if made["simulated"] else [], source_word(made)
    heading = f"<header>\n<h1>{escape('Calibration of the training simulator')}</h1>\n{tags(marks)}\n</header>\n"
    source = made["profile"].get("source", {})
    images_from = [source["static_images_from"]] if "static_images_from" in source else []
    known = from_words(source.get("recordings_from", []))
    others = f"; {made['unreadable']:,} others cannot be used" if made["unreadable"] else ""
    summary = facts(
        [
            ("recordings", f"{made['recordings']:,}{known}, of which {real.shape[1]} held out{others}"),
            ("static images", f"{made['static_images']:,}{from_words(images_from)}"),
            ("sensor", f"{width}x{height}, {made['sensor_known']}"),
            ("told apart", told_words(fidelity.accuracy, fidelity.asked, fidelity.interval, fidelity.others)),
            *seen_words(made),
            ("undecided", ", ".join(made["undecided"])),
        ],
        wide=("undecided",),
    )

    def picture(frames: Tensor) -> bytes:
        return preview_png(frames.numpy(), sensor=(width, height))

    pictures = polarities(ON, OFF) + "".join(
        paragraph(f"{title}, ON and OFF over the whole recording.")
        + thumbnails((f"{title} {i + 1}", "", picture(frames[:, i])) for i in _few(frames))
        for title, frames in ((f"{theirs} recordings", real), ("Simulated recordings", simulated))
    )
    return page("Calibration", heading + section("Result", summary) + section("Camera", camera_tables(made))
                + section(f"{theirs} beside simulated", pictures + _plots(fidelity, theirs) + _note()))  # fmt: skip


def camera_tables(made: dict[str, Any]) -> str:
    """Return the values and movements of a camera with their uncertainties, HTML, of what `calibrate` returns."""
    return (
        table(VALUES, value_rows(made), words=(3, 4))
        + paragraph(cells_words(made), note=True)
        + (paragraph(FREE, note=True) if made["profile"]["free"] else table(MOVEMENT, movement_rows(made)))
        + paragraph(steps_words(made), note=True)
        + paragraph(hot_pixels_words(made), note=True)
    )


def from_words(folders: Sequence[str]) -> str:
    """Return where recordings or static images were found, in words behind their number; nothing if not known."""
    return f" of {', '.join(folders)}" if folders else ""


def source_word(made: dict[str, Any]) -> str:
    """Return what the recordings of a fit are called beside those of the fitted camera: simulated ones are not real."""
    return "Given" if made["simulated"] else "Real"


def value_rows(made: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a row for each of a camera's values, as `VALUES` names them, of what `calibrate` returns."""
    profile, absolute = made["profile"], made["profile"]["microseconds"]

    cells = CELLS in profile.get("source", {})

    def meaning(name: str) -> str:
        own = IN_UNITS.get(name)
        if cells and name == "softness":
            return MEANINGS[name].replace("px", "cells")
        if cells and name == "dead_time":  # [microseconds] has that of a pixel
            return MEANINGS[name]
        if own is None:
            return MEANINGS[name]
        return f"{MEANINGS[name]}: {number_text(absolute[own])} {'µs' if own.endswith('_us') else 'Hz'}"

    return [
        (
            name,
            number_text(value),
            number_text(profile["uncertainty"][name], 2),
            "undecided"
            if name in made["undecided"]
            else "at its limit"
            if _at_limit(name, value, profile["duration_us"])
            else "",
            meaning(name),
        )
        for name, value in profile["camera"].items()
    ]


def _at_limit(name: str, value: float, duration_us: int) -> bool:
    """Return whether a value is the least or the most that a fit tries: the true one may lie beyond. None is none."""
    return value != 0 and any(math.isclose(value, limit, rel_tol=ROUNDED) for limit in limits_of(name, duration_us))


def cells_words(made: dict[str, Any]) -> str:
    """Return what values are of cells, not of pixels, in words, of what `calibrate` returns; nothing if none are."""
    cells = made["profile"].get("source", {}).get(CELLS)
    if not cells:
        return ""
    return (
        f"The sensor was simulated in {cells[0]}x{cells[1]} cells, each as one pixel. Blur, bandwidth, dead "
        "time and thresholds are those with which a cell does what its pixels did, as training has it; those of the "
        "camera's pixels are others."
    )


def number_text(value: float, digits: int = 3) -> str:
    """Return a number of so many digits, without an exponent where it is large."""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def movement_rows(made: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the fields of each movement, as `MOVEMENT` names them, with uncertainties, of what `calibrate` returns."""
    unsure = made["profile"]["uncertainty"]

    def field(number: int, name: str, value: float) -> str:
        own = unsure.get(f"leg_{number}_{name}")  # a free path has one for its length alone
        return f"{value:.3g}" + (f" ± {own:.2g}" if own is not None else "")

    legs = enumerate(made["profile"]["legs"], 1)
    return [(str(i), *(field(i, name, value) for name, value in leg.items())) for i, leg in legs]


def steps_words(made: dict[str, Any]) -> str:
    """Return what the path does beside its movements, in words, of what `calibrate` returns; nothing if it does not."""
    steps = made["profile"]["steps"]
    if not steps:
        return ""
    most = max(math.hypot(x, y) for x, y in steps)
    about = max(math.hypot(x, y) for x, y in made["profile"]["uncertainty"]["steps"])
    known = f"in each of {len(steps)} equal parts of the recording, known to {about:.2f} px or better."
    return f"Beside these, {f'a step of up to {most:.2f} px' if most else 'no step'} {known}"


def hot_pixels_words(made: dict[str, Any]) -> str:
    """Return which pixels fire by themselves, in words, of what `calibrate` returns; nothing if none does."""
    pixels = made["profile"]["hot_pixels"]
    if not pixels:
        return ""
    x, y, off, on = pixels[0]
    about = math.hypot(*made["profile"]["uncertainty"]["hot_pixels"][0])
    return (
        f"{len(pixels)} hot pixel{'s' if len(pixels) > 1 else ''}, which the fit left out and training has; the "
        f"busiest, x={x} y={y}, fires {off + on:.3g} ± {about:.2g} times in a recording by itself."
    )


def seen_words(made: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the camera saw besides the images, and how it began, in words, of what `calibrate` returns.

    Beside each, how much farther the nearest fit with another is.
    """
    profile, others = made["profile"], made["profile"]["alternatives"]
    grey = {0.0: "black", 1.0: "white", None: "what continues their border"}

    def beside(name: str, other: str) -> str:
        return f"; {other} is {others[name]:.3g} times as far" if name in others else ""

    light = "the negative" if profile["inverted"] else "as they are"
    rest = f"{profile['rest']:.2f} ± {profile['uncertainty']['rest']:.2f}"
    begun = f"{rest} (0: pixels anywhere between their thresholds, 1: on their way to an ON event)"
    if profile["appeared"]:
        begun = f"pixels where the image left them when it appeared, raised since by {rest} ON thresholds of leak"
    begun += beside(BEGIN, "anywhere between their thresholds" if profile["appeared"] else "where the image left them")
    begun += BOTH if profile["either_begin"] else ""
    return [
        (
            "images seen",
            f"{light}, at {profile['camera']['scale']:.2f} of the size that they have in the frame"
            + beside(SIGN, "the reverse")
            + (BOTH if profile["either_sign"] else ""),
        ),
        (
            "around them",
            grey.get(profile["surround"], f"grey {profile['surround']}")
            + beside(SURROUND, "the next")
            + (NEAREST if SURROUND in made["undecided"] else ""),
        ),
        ("at the start", begun),
    ]


def told_words(accuracy: float, asked: int, interval: tuple[float, float], others: Mapping[str, float]) -> str:
    """Return which share of recordings was told apart, and the same of other ways to make recordings, by name."""
    low, high = interval
    beside = "".join(f"; {each}" for each in others_words(others))
    told = f"{100 * accuracy:.0f} % of {asked} (95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
    return f"{told}, 50 % = alike{beside}"


def others_words(others: Mapping[str, float]) -> list[str]:
    """Return the share of each other way to make recordings of the same images, by its name."""
    return [f"{RENDERED.get(name, name)} {100 * share:.0f} %" for name, share in others.items()]


def _few(frames: Tensor) -> list[int]:
    """Return positions of recordings, evenly from all: in the order of their names those of one class are together."""
    found: int = frames.shape[1]
    return np.linspace(0, found - 1, min(SHOWN, found)).round().astype(int).tolist()


def _plots(fidelity: Fidelity, theirs: str) -> str:
    real, made = fidelity.real, fidelity.made
    rows = [
        (name, number_text(real[key], 4), number_text(made[key], 4))
        for name, key in (
            ("events of a recording", "events"),
            ("their standard deviation", "events_deviation"),
            ("share of ON events", "on_share"),
            ("successions of one polarity at a pixel", "same_polarity"),
        )
    ]
    bins = len(real["profile"])
    rate = _lines(
        "rate", "Events in each time bin.", (np.arange(bins) + 0.5) / bins, real["profile"], made["profile"],
        labels=("share of the recording", "events"), theirs=theirs,
    )  # fmt: skip
    gaps = _lines(
        "gaps", "Time between events of one pixel.", np.array(real["gap_bins"]), real["gaps"], made["gaps"],
        labels=("time bins, at least", "share"), theirs=theirs,
    )  # fmt: skip
    return table(("", theirs.lower(), "simulated"), rows) + figures([rate, gaps])


def _lines(
    name: str, title: str, x: Any, real: Sequence[float], made: Sequence[float], *, labels: tuple[str, str], theirs: str
) -> str:
    drawing = Drawing(f"calibration-{name}", f"{title} {theirs} and simulated recordings.")
    with house_style():
        axes = drawing.axes[0]
        axes.plot(x, real, label=theirs.lower())
        axes.plot(x, made, "--", label="simulated")
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set_ylim(bottom=0)
    drawing.legend()
    return figure(drawing.svg(), title=title)


def _note() -> str:
    return paragraph(
        "All recordings here were held out of the fit. The classifier learnt on those of the fit and as many simulated "
        "ones; it is a linear one, so that recordings that it cannot tell apart may still differ.",
        note=True,
    )
