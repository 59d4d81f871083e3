"""The commands that make a run again, from raw data on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.ui.html import paragraph, preformatted
from spikebridge.train.report.records import RunRecord

BUILT_IN = "digits"
"""The data set whose raw data a command of this program makes."""
TABLES = {"splits_sha256": "SPLITS.csv", "labels_sha256": "LABELS.csv", "class_map_sha256": "CLASSES.csv",
          "pairs_sha256": "PAIRS.csv"}  # fmt: skip
"""Settings that are the sum of a file, which goes into the option of that name."""
OPTIONS: dict[str, Callable[[Any], tuple[str, str]]] = {
    "sensor": lambda size: ("--sensor", "x".join(map(str, size))),
    "time_window_us": lambda window: ("--time-window", ":".join(map(str, window))),
    "classes": lambda names: ("--classes", ",".join(names)),
    "columns": lambda names: ("--columns", ",".join(names)),
    "cut_us": lambda us: ("--cut", f"{us}us"),
    "pauses_us": lambda us: ("--cut", f"pauses:{us}us"),
    "overlap_us": lambda us: ("--overlap", f"{us}us"),
    "published": lambda name: ("--splits", name),
}
"""Settings that options of `preprocess` write otherwise."""


def reproduce(record: RunRecord, shards: ShardSet | None) -> str:
    """Return the commands that make a run again, HTML, and what proves that the data is the same."""
    result = record.result
    settings = result.get("recipe", {}).get("shards", {})
    words = conversion_words(settings | (shards.settings if shards else {}), also=settings)
    simulates = bool(result.get("simulated")) and settings.get("dataset") == BUILT_IN
    events, static = ("RAW/events", "RAW/static") if simulates else ("EVENTS", "STATIC")
    commands = [f"spikebridge simulate {BUILT_IN} --out RAW"] if simulates else []
    commands += [
        f"spikebridge preprocess {shlex.join(words)} --events {events} --static {static} --out SHARDS",
        f"spikebridge train --shards SHARDS --recipe config.toml --run RUN --expect {result.get('shard_set', 'ID')}",
        "spikebridge evaluate RUN --shards SHARDS --json",
    ]
    text = (
        "Save the settings above as config.toml. --expect refuses any other shard set. Equal bits need the same "
        f"torch build ({result.get('torch', 'unknown')}), device ({result.get('device', 'unknown')}) and number of "
        f"threads ({result.get('threads', 'unknown')})."
    )
    if shards is None:
        text += " The shard set is not at hand: what it was made with beside the settings above is left out."
    return preformatted("\n".join(commands)) + paragraph(text)


def conversion_words(settings: Mapping[str, Any], *, also: Mapping[str, Any] | None = None) -> list[str]:
    """Return the options of `preprocess` that give a set's settings, as words of a command line.

    Args:
        settings: of the set, as its manifest has them; a file's sum becomes a name that stands for the file.
        also: what is written out where it is as by default, too.
    """
    words = list[str]()
    for field in fields(ConversionSettings):
        value, name = settings.get(field.name), field.name
        always = name in (also or {}) or name in ("dataset", "seed", "dtype") or field.default is MISSING
        if not field.compare or name == "width" or value in (None, "", (), []):
            continue
        if name == "splits_sha256" and settings.get("published"):
            continue  # the sum of a list that has a name
        if not always and value == field.default:
            continue
        if name == "size" and settings.get("width"):
            words += ["--size", f"{settings['width']}x{value}"]
        elif name in TABLES:
            words += [f"--{name.removesuffix('_sha256').replace('_', '-')}", TABLES[name]]
        elif name in OPTIONS:
            words += OPTIONS[name](value)
        else:
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return words
