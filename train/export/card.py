"""The model card of an exported network, with the front matter that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from spikebridge.train.runs.environment import origin_words

USE = {
    "nir": """A graph from one frame (P,H,W) to logits (K,), by the convention `{convention}`. {integration} with a time
step of {dt:g} s gives what was trained: a neuron's potential starts at 0, and it fires {fires}. Test vectors stand
beside it.

    import nir
    graph = nir.read("{file}")    # graph.metadata["spikebridge"]: the description, as JSON
""",
    "speck": """For the chip Speck, in NIR as sinabs 3.1.3 reads it, with nir 1.0.4, nothing changed. A time step gives
as many spikes as thresholds fit in a potential; each takes one away, and no potential falls below minus the threshold.
Other readers of NIR have other neurons. Test vectors stand beside it.

    import nir
    from sinabs.nir import from_nir
    net = from_nir(nir.read("{file}"), num_timesteps={time_steps})
    spikes, _ = net(frames)    # float32 [B*T,P,H,W], a recording's steps together -> whole numbers [B*T,K]
""",
    "torch": """A torch.export program in float32. Opening one can run code, so know who wrote it.

    import torch
    net = torch.export.load("{file}").module()
    logits = net(frames)    # float32 frames [T,B,P,H,W] -> [T,B,K]
""",
    "safetensors": """Weights; the header (`spikebridge`, JSON) says which network. In a clone of spikebridge:

    from pathlib import Path
    import torch
    from spikebridge.train.networks.build import load_network
    net, _ = load_network(Path("{file}"), device=torch.device("cpu"))
    logits = net(None, frames).event_logits    # frames [T,B,P,H,W] -> [T,B,K]
""",
}
INTEGRATION = {"euler": "Explicit Euler", "exponential": "The exact solution for an input that stays"}
FIRES = {"above": "above its threshold", "at": "AT its threshold, which is the next float32 above the trained one"}
LIBRARY = {"nir": "nir", "speck": "sinabs", "torch": "pytorch", "safetensors": "pytorch"}


def model_card(described: dict[str, Any], file: str, *, format: str, notes: Sequence[str], licence: str) -> str:
    """Return the text of the card (Markdown behind YAML); a function of its arguments alone.

    Args:
        described: what the exported file says about itself.
        file: its name.
        format: its format.
        notes: what became of parts of the network for which the format has no word.
        licence: identifier as hubs list them; `other` says that nothing was decided.
    """
    dataset, network = described["dataset"], described["network"]
    simulated = "\n**Trained and scored on SIMULATED event recordings.**\n" if described["simulated"] else ""
    if described.get("protocol") == "leaky":
        simulated += (
            "\n**LEAKY: static images of held-out recordings were in the static pool; no accuracy is a result.**\n"
        )
    scores = "\n".join(
        f"| {split} | {described[f'{split}_accuracy']:.1%} | {described['samples'][split]:,} |"
        for split in ("test", "validation")
        if described[f"{split}_accuracy"] is not None
    )
    note_lines = "\n".join(f"- {note}" for note in notes)
    preprocessing = "\n".join(f"| {name} | {value} |" for name, value in described["preprocessing"].items())
    target = described.get("target")
    use = USE[target or format].format(
        file=file,
        time_steps=network["time_steps"],
        dt=described.get("time_step_seconds", 0.0),
        convention=described.get("convention"),
        integration=INTEGRATION.get(described.get("integration", "")),
        fires=FIRES.get(described.get("fires", "")),
    )
    decides = "logits [T,B,K] whose mean over T" if target is None else "spikes [T,B,K] whose sum over T"
    undecided = " (not decided; that of the data may bind too)" if licence == "other" else ""
    return f"""---
{_front_matter(described, format=format, licence=licence)}---
# {network["name"]} on {dataset}
{simulated}
A spiking neural network for event frames, trained with `{described["method"]}` by spikebridge (static-to-event
transfer).
Input: [T,B,P,H,W] = [{network["time_steps"]},B,{network["in_channels"]},{"x".join(map(str, network["input_size"]))}] \
event frames (P: 0 = OFF, 1 = ON); output: {decides}
decides between {len(described["classes"])} classes.

| split | accuracy | recordings |
|---|---|---|
{scores}
{_chip(described) if target else ""}
Weights: epoch {described["epoch"]} ({described["selection"]}), seed {described["seed"]}.{_origin(described)}
Shard set: `{described["shard_set"]}`.

## Use

{use}
{note_lines}

`spikebridge evaluate {file} --shards SHARDS` scores it again.

## Preprocessing

| setting | value |
|---|---|
{preprocessing}

Licence: {licence}{undecided}
"""


def _chip(described: dict[str, Any]) -> str:
    """Return what the chip's neurons and 8 bits cost, and the table of its cores."""
    costs = [
        f"{split}: {described[f'trained_{split}_accuracy']:.1%} as trained, {floating:.1%} with the chip's neurons, "
        f"{described[f'{split}_accuracy']:.1%} with 8 bits too.\n"
        for split, floating in described["float_accuracy"].items()
    ] or ["Not scored with 8 bits; the line of `evaluate` below does.\n"]
    rows = [
        f"| {core['layer']} | {core['core']} | {core['weights']:,} of {core['weights_of']:,} | "
        f"{core['neurons']:,} of {core['neurons_of']:,} | {core['kernel']} | "
        f"{', '.join(map(str, core['pools'])) or 'output'} |"
        for core in described["cores"]
    ]
    head = ["| layer | core | weights | neurons | kernel | sum pools |", "|---|---|---|---|---|---|"]
    return "\n".join(["", *costs, *head, *rows, ""])


def _origin(described: dict[str, Any]) -> str:
    """Return with what and where the network was trained; nothing of runs that do not say."""
    made = described["environment"]
    if made is None:
        return ""
    threads = f", {described['threads']} threads" if made["gpu"] is None and described["threads"] else ""
    return f"\nTrained with {origin_words(made)}, on {made['gpu'] or made['processor']}{threads}."


def _front_matter(described: dict[str, Any], *, format: str, licence: str) -> str:
    """Return the YAML between the lines; JSON strings are YAML strings.

    Source: huggingface/hub-docs, modelcard.md.
    """
    dataset, name = json.dumps(described["dataset"]), described["network"]["name"]
    target = [described["target"]] if "target" in described else []
    tags = ["spiking-neural-networks", "event-camera", "neuromorphic", "image-classification", format, *target, name]
    lines = [
        f"license: {json.dumps(licence)}",
        *(["license_name: not-decided"] if licence == "other" else []),
        f"library_name: {LIBRARY[described.get('target', format)]}",
        "pipeline_tag: image-classification",
        f"tags: {json.dumps(tags)}",
        f"datasets: [{dataset}]",
        "metrics: [accuracy]",
    ]
    if described["test_accuracy"] is not None:
        lines += [
            "model-index:",
            f"- name: {json.dumps(' '.join([name, described['method']]))}",
            "  results:",
            "  - task: {type: image-classification}",
            f"    dataset: {{name: {dataset}, type: {dataset}, split: test}}",
            f"    metrics: [{{type: accuracy, name: test accuracy, value: {described['test_accuracy']!r}}}]",
        ]
    return "\n".join(lines) + "\n"
