"""The verb `doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import json_option, path_type, print_result
from spikebridge.pipeline.verbs.training import Training


@click.command()
@click.option("--data", type=path_type(), default="data", show_default=True, help="Folder of raw/, shards/ and runs/.")
@json_option
@click.pass_obj
def doctor(training: Training, data: Path, as_json: bool) -> None:
    """Show what this machine offers and what is missing.

    Packages, processor, GPU, memory and disk, data found, and which fast paths are active and why not.

    \b
    Example:
      spikebridge doctor
    """
    from spikebridge.pipeline.inspection.machine import examine, format_machine

    machine, state = examine(data), training.examine(data / "runs")
    machine["fast_paths"] += state["fast_paths"]
    machine["data"]["runs"] = state["runs"]
    machine |= {"torch": state["torch"], "gpus": state["gpus"]}
    print_result(machine, format_machine(machine), as_json=as_json)
