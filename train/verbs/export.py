"""The verb `export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.ui.terminal import json_option, overwrite_option, path_type, print_result


@click.command()
@click.argument("run_path", metavar="RUN", type=path_type())
@click.option("--format", "form", type=click.Choice(["nir", "torch", "safetensors"]), help="Needed without --target.")
@click.option("--target", type=click.Choice(["speck"]), help="For this chip, in NIR; see below.")
@click.option("--shards", help="With --target: score on this set what the chip's neurons and its 8 bits cost.")
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
    form: str | None,
    target: str | None,
    shards: str | None,
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

    --target speck writes what the cores of that chip compute, for sinabs 3.1.3 (nir 1.0.4): weights of 8 bits, sums for
    pools. Prints the core of each layer, or refuses by name the first that does not fit. speck_snn with neuron IF and
    reset soft is a network that fits (recipe speck).

    \b
    Examples:
      spikebridge export data/runs/digits --format nir --out digits.nir
      spikebridge export data/runs/digits --format nir --out norse.nir --convention sum-pools
      spikebridge export data/runs/digits --format safetensors --out clone-of-a-hub-repository/
      spikebridge evaluate digits.nir --shards data/shards/digits
      spikebridge export data/runs/speck --target speck --shards data/shards/digits --out speck.nir
    """
    from spikebridge.train.export.write import TARGETS, files_of
    from spikebridge.train.export.write import export as write

    form = form or TARGETS.get(target or "")
    if form is None:
        raise click.UsageError("Missing option '--format' (nir, torch, safetensors) or '--target' (speck).")
    if target and form != TARGETS[target]:
        raise click.UsageError(f"--target {target} is written in {TARGETS[target]}; leave --format {form} out.")
    if shards and not target:
        raise click.UsageError("--shards scores what --target costs; for other files there is `evaluate`.")
    scored = None
    if shards:
        files_of(out, format=form, overwrite=overwrite)  # before what takes minutes

        from spikebridge.train.evaluation.chip import score_on_speck

        scored = score_on_speck(run_path, shards, weights=weights)
    exported = write(
        run_path,
        out,
        format=form,
        weights=weights,
        licence=licence,
        overwrite=overwrite,
        convention=convention,
        threshold_nudge=threshold_nudge,
        target=target,
        scored=scored,
    )
    lines = [
        f"{exported.file}: {form}, {exported.file.stat().st_size / 1e6:,.1f} MB",
        *(f"  {note}" for note in exported.notes),
        *(_chip_lines(exported.description) if target else []),
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
        "target": target,
        "description": exported.description,
    }
    print_result(values, "\n".join(lines), as_json=as_json, then=step)


def _chip_lines(described: Mapping[str, Any]) -> list[str]:
    """Return a table of the cores, and what they cost."""
    lines = ["  layer        core    weights      of    neurons      of  kernel  pool"]
    for core in described["cores"]:
        pools = ", ".join(map(str, core["pools"])) or "out"
        lines.append(
            f"  {core['layer']:12} {core['core']:4} {core['weights']:10,} {core['weights_of']:7,} "
            f"{core['neurons']:10,} {core['neurons_of']:7,}  {core['kernel']:6}  {pools}"
        )
    for split, floating in described["float_accuracy"].items():
        trained, whole = described[f"trained_{split}_accuracy"], described[f"{split}_accuracy"]
        lines.append(
            f"  {split} accuracy {trained:.1%} as trained, {floating:.1%} with the chip's neurons, {whole:.1%} with "
            "8 bits too"
        )
    if not described["float_accuracy"]:
        lines.append("  accuracy with 8 bits: not scored; pass --shards, or run evaluate below")
    return lines
