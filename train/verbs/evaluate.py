"""The verb `evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import json_option, path_type, print_result
from spikebridge.train.verbs.options import backend_option, device_option, shards_option


@click.command()
@click.argument("run_path", metavar="RUN", type=path_type())
@shards_option
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--foreign", is_flag=True, help="Score on another set with the same classes; the result says so.")
@click.option("--trust", is_flag=True, help="Open a torch.export program, which can run any code.")
@device_option
@backend_option
@json_option
def evaluate(
    run_path: Path,
    shards: str,
    split: str,
    weights: str,
    foreign: bool,
    trust: bool,
    device: str,
    backend: str,
    as_json: bool,
) -> None:
    """Score a finished run or an exported file again.

    The figure of a run is that of its result.json. NIR and safetensors files hold numbers alone. A torch.export
    program runs code while it is opened: --trust it only if you know who wrote it.

    \b
    Examples:
      spikebridge evaluate data/runs/digits --shards data/shards/digits --split test --json
      spikebridge evaluate digits.nir --shards data/shards/digits
      spikebridge evaluate data/runs/simulated --shards data/shards/recorded --foreign
    """
    from spikebridge.train.evaluation.evaluate import evaluate as score

    options = {"split": split, "weights": weights, "device": device, "backend": backend}
    result = score(run_path, shards, trust=trust, foreign=foreign, **options)
    text = f"{split} accuracy {result['accuracy']:.1%} of {result['samples']:,} recordings"
    text += " (SIMULATED)" if result["simulated"] else ""
    text += " (FOREIGN set: the network was trained on another)" if result["foreign"] else ""
    text += " (LEAKY protocol: no result)" if result["protocol"] == "leaky" else ""
    if result.get("recorded") is not None:
        text += f"; the file says {result['recorded']:.1%}"
    print_result(result, text, as_json=as_json)
