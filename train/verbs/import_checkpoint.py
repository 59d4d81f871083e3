"""The verb `import-checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.ui.terminal import json_option, overwrite_option, path_type, print_result
from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.runs.result import accuracy_of
from spikebridge.train.verbs.options import device_option, set_option, shards_option


@click.command("import-checkpoint")
@click.argument("file", type=path_type(exists=True, dir_okay=False))
@shards_option
@click.option("--recipe", required=True, help="Recipe whose network it is: a shipped name, or a TOML file.")
@click.option("--run", "run_path", type=path_type(), required=True, help="Folder of the run to make.")
@set_option
@click.option("--partial", is_flag=True, help="Accept weights that do not all fit; the others stay fresh.")
@click.option("--expect", metavar="ID", help="Refuse any shard set but this one.")
@device_option
@overwrite_option
@json_option
def import_checkpoint(
    file: Path,
    shards: str,
    recipe: str,
    run_path: Path,
    overrides: tuple[str, ...],
    as_json: bool,
    **options: Any,  # of `import_published.import_checkpoint`, by the same names
) -> None:
    """Make a run of a published checkpoint, and score it.

    FILE is a .pth.tar of timm. Takes weights alone and executes nothing in FILE. Names and refuses what does not fit,
    or leaves it out with --partial. Recipe and shard set define the network: classes, time steps, size.
    The run is finished: evaluate scores it again, report shows it, train --init starts from it.

    \b
    Examples:
      spikebridge import-checkpoint model_best.pth.tar --shards SHARDS --recipe ncaltech101-legacy --run RUN
      spikebridge evaluate RUN --shards SHARDS
    """
    from spikebridge.pipeline.sharing.open import open_set
    from spikebridge.train.trainer.import_published import import_checkpoint as make_run

    result = make_run(file, open_set(shards), load_recipe(recipe, overrides=overrides), run_path, **options)
    imported = result["imported"]
    lines = [f"{imported['file']}: {imported['fitted']} of {imported['tensors']} tensors fitted"]
    lines += [
        f"  {kind:20} {', '.join(imported[kind])}" for kind in ("missing", "unexpected", "misfits") if imported[kind]
    ]
    for split in ("test", "validation"):
        accuracy, label = accuracy_of(result, split), " (SIMULATED)" if result["simulated"] else ""
        if accuracy is not None:
            lines.append(f"  {split + ' accuracy':20} {accuracy:.1%} of {result['samples'][split]:,} recordings{label}")
    text = "\n".join([*lines, f"  run                  {run_path}"])
    print_result(result, text, as_json=as_json, then=["report", run_path, "--shards", shards])
