"""The verb `export`."""

from __future__ import annotations

from pathlib import Path

import click

from spikebridge.pipeline.ui.terminal import json_option, overwrite_option, path_type, print_result


@click.command()
@click.argument("run_path", metavar="RUN", type=path_type())
@click.option("--format", "form", type=click.Choice(["nir", "torch", "safetensors"]), required=True)
@click.option("--out", required=True, help="File to write; its model card is FILE.md. Or a folder, see below.")
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option(
    "--convention",
    type=click.Choice(["whole-input", "r-one", "sum-pools", "exponential"]),
    help="How NIR says a neuron's step, see below.  [default: whole-input]",
)
@click.option("--threshold-nudge", is_flag=True, help="NIR for libraries that fire AT the threshold (SpikingJelly).")
@click.option("--license", "licence", default="other", show_default=True, help="Identifier for the model card.")
@overwrite_option
@json_option
def export(
    run_path: Path,
    form: str,
    out: str,
    weights: str,
    convention: str | None,
    threshold_nudge: bool,
    licence: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a trained network for other tools.

    Writes its event path in evaluation mode. nir: the interchange format of the spiking field (snnTorch, SpikingJelly
    and others read it), with test vectors beside it, NAME.vectors.nir. torch: a torch.export program, float32 frames
    [T,B,P,H,W] of the run's T to logits [T,B,K], any batch size. safetensors: weights. Each
    names the training data and how its input is made. Refuses by name what a format cannot express, and prints what
    was folded or left out.

    With a folder as --out (one that exists, or a name ending in /) it gets the file and README.md, the card: what a hub
    repository takes as it is.

    Importers of NIR differ in the equations that they read rightly. --convention whole-input: LIF with r = tau / dt, IF
    as a LIF without leak (snnTorch, SpikingJelly, snn-mlir). r-one: LIF and IF with r = 1. sum-pools: r-one with pools
    that sum (Norse). exponential: LIF for exact integration (jaxpike). --threshold-nudge: thresholds are the next
    float32 above, for a library that fires AT the threshold. `evaluate` scores each alike.

    \b
    Examples:
      spikebridge export data/runs/digits --format nir --out digits.nir
      spikebridge export data/runs/digits --format nir --out norse.nir --convention sum-pools
      spikebridge export data/runs/digits --format safetensors --out clone-of-a-hub-repository/
      spikebridge evaluate digits.nir --shards data/shards/digits
    """
    from spikebridge.train.export.write import export as write

    exported = write(
        run_path,
        out,
        format=form,
        weights=weights,
        licence=licence,
        overwrite=overwrite,
        convention=convention,
        threshold_nudge=threshold_nudge,
    )
    lines = [
        f"{exported.file}: {form}, {exported.file.stat().st_size / 1e6:,.1f} MB",
        *(f"  {note}" for note in exported.notes),
    ]
    if exported.vectors:
        lines += [f"{exported.vectors}: frames, and the answer of every neuron, to check another reader by"]
    lines += [f"{exported.card}: its model card, the README.md of a hub repository"]
    step: list[str | Path] = [
        "evaluate",
        exported.file,
        "--shards",
        "SHARDS",
        *(["--trust"] if form == "torch" else []),
    ]
    values = {
        "file": str(exported.file),
        "card": str(exported.card),
        "vectors": str(exported.vectors) if exported.vectors else None,
        "format": form,
        "description": exported.description,
    }
    print_result(values, "\n".join(lines), as_json=as_json, then=step)
