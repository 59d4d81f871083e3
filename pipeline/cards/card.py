"""The data set card of a shard set: its README.md, with the front matter that model hubs read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.datasets.pairs import DatasetCard
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.manifest import SPLITS, Content, Derivation

JOIN = "+"
"""Between the names of data sets whose recordings one set holds."""
PAIRING_TEXT = {
    "exact": "Every recording names the photograph it shows. `spikebridge verify` proves that no photograph of a "
    "held-out recording is in the static pool, by name and by the hash of its pixels.",
    "class": "Recordings and photographs share classes only; which photograph a recording shows is not known, so the "
    "absence of leaks cannot be proved.",
}
PROTOCOL_TEXT = {
    "strict": "Protocol `strict`: validation is carved out of training, and the static pool holds no photograph of the "
    "official test subset or of a validation or test recording.",
    "legacy": "Protocol `legacy`: the published splits, without a validation split; the checkpoint is chosen on the "
    "test set and figures are comparable with published ones only.",
    "leaky": "**LEAKY.** Protocol `leaky`: the splits of `strict`, but the pool holds EVERY photograph, even those "
    "that validation and test recordings were made from. It serves to measure what such leakage is worth; no accuracy "
    "reached with this set is a result.",
}


def dataset_card(content: Content, card: DatasetCard) -> str:
    """Return the text of the card, a function of the unsealed manifest and the reader's facts alone."""
    settings, sample = content["settings"], content["sample"]
    simulated = "\n**The event recordings are simulated.**\n" if content["simulated"] else ""
    splits = "\n".join(f"| {name} | {split['samples']:,} |" for name, split in content["splits"].items())
    roles = "\n".join(f"| {role} | {count:,} |" for role, count in content["static"]["roles"].items())
    notes = "".join(f"- {_escape(note)}\n" for note in content["notes"])
    empty = content["static"]["classes_without_pool"]
    notes += f"- no static image is left in the pool of: {_escape(', '.join(empty))}\n" if empty else ""
    notes += (
        f"- {content['rejected']} recordings or images were dropped, see rejects.jsonl\n" if content["rejected"] else ""
    )
    notes = f"\nNotes:\n\n{notes}" if notes else ""
    shape = "x".join(map(str, sample["shape"]))
    events = content["events"]
    both = ", and as the events that they are made of" if settings.get("store") == "both" else ""
    listed = "\n".join(f"| {name} | {_escape(str(value))} |" for name, value in settings.items())
    return f"""---
{_front_matter(content, card)}---
# {card.title}
{simulated}
Frame tensors and static images for static-to-event transfer training, made by spikebridge. One sample is one recording
as {settings["dtype"]} frames [T,P,H,W] = [{shape}] (P: 0 = OFF, 1 = ON){both}.

| split | recordings |
|---|---|
{splits}

| static images | number |
|---|---|
{roles}

{PROTOCOL_TEXT[settings["protocol"]]}
{"" if settings["protocol"] == "leaky" else PAIRING_TEXT[content["pairing"]["kind"]]}

{events["events"]:,} events were read; {events["dropped_events"]:,} after the last whole time bin were dropped;
{events["saturated_cells"]:,} cells in {events["saturated_samples"]:,} samples reached the
largest count that the type holds.
{notes}{_history(content)}
## Settings

| setting | value |
|---|---|
{listed}

## Source

{card.download}

Licence: {card.licence}

Please cite: {card.citation}
"""


def split_by_shards(content: Content) -> str:
    """Return how the stock WebDataset reader shares the splits among workers; empty where there are no tars."""
    shards = {name: sum(e["name"].startswith(f"events-{name}-") for e in content["files"]) // 2 for name in SPLITS}
    if content["settings"]["format"] != "webdataset":
        return ""
    counts = ", ".join(f"{count:,} {name}" for name, count in shards.items())
    return (
        f"Tars: {counts}; the stock WebDataset reader shares a split among as many workers, or more with "
        "empty_check=False."
    )


def dataset_facts(dataset: str) -> DatasetCard:
    """Return the facts of a data set by name, or those of several, whose names are joined by `JOIN`, together.

    Raises:
        SettingsError: an unknown data set.
    """
    cards = [get_reader(name).card for name in dataset.split(JOIN)]
    if len(cards) == 1:
        return cards[0]
    titles = " and ".join(card.title for card in cards)
    several: dict[str, Any] = {
        name: "\n\n".join(f"{card.title}: {getattr(card, name)}" for card in cards)
        for name in ("download", "licence", "citation")
    }
    return replace(cards[0], title=titles, simulated=any(card.simulated for card in cards), **several)


def _history(content: Content) -> str:
    """Return the lines on the sets that a set was made of; empty where it was made of raw data."""
    lines = []
    for step in content.get("made_from", []):
        asked = "".join(f"; {name.replace('_', ' ')}: {_words(value)}" for name, value in _selection(step))
        sets = ", ".join(
            f"`{one['id']}` ({_escape(one['dataset'])}, {one['samples']:,} samples)" for one in step["sets"]
        )
        gave = f", which gave `{step['gave']}`" if "gave" in step else ""
        lines.append(f"- `{step['verb']}` of {sets}{asked}{gave}\n")
    return "\nMade of other sets:\n\n" + "".join(lines) if lines else ""


def _selection(step: Derivation) -> list[tuple[str, Any]]:
    return sorted(step.get("selection", {}).items())


def _words(value: Any) -> str:
    return _escape(value if isinstance(value, str) else json.dumps(value, sort_keys=True))


def _escape(text: str) -> str:
    """Return what others wrote as a line of the card, whole."""
    return show(text, most=len(text))


def size_category(samples: int) -> str:
    """Return what hubs call a set of so many samples."""
    if samples < 1000:
        return "n<1K"
    bounds = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    rank = min(len(str(samples)) - 4, len(bounds) - 2)
    return f"{bounds[rank]}<n<{bounds[rank + 1]}"


def _front_matter(content: Content, card: DatasetCard) -> str:
    """Return the YAML between the lines; JSON strings are YAML strings.

    Source: huggingface/hub-docs, datasetcard.md.
    """
    samples = {name: split["samples"] for name, split in content["splits"].items()}
    container = content["settings"]["format"]
    tags = ["event-camera", "neuromorphic", "spiking-neural-networks", container]
    tags += ["simulated"] if content["simulated"] else []
    lines = [
        f"pretty_name: {json.dumps(card.title)}",
        "license: other",
        f"license_name: {content['settings']['dataset']}-terms",
        f"license_details: {json.dumps(card.licence)}",
        "task_categories: [image-classification]",
        f"size_categories: [{size_category(sum(samples.values()))}]",
        f"tags: {json.dumps(tags)}",
    ]
    if container == "webdataset":  # the loaders of hubs know no HDF5 of ours
        lines += ["configs:", "- config_name: default", "  data_files:"]
        lines += [f"  - {{split: {name}, path: events-{name}-*.tar}}" for name in SPLITS if samples.get(name)]
    return "\n".join(lines) + "\n"
