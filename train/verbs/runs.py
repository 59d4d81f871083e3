"""Verbs about one run: make it, score it, hand it over."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click

from pipeline.terminal import answer, folder, json_option, overwrite_option, progress_bar, say, speaks_for_all
from train.errors import TrainError
from train.recipes import dump_recipe, load_recipe
from train.stopping import listening
from train.verbs.options import backend_option, checkpoint_option, device_option, set_option, shards_option


@click.command("import-checkpoint")
@click.argument("file", type=folder(exists=True, dir_okay=False))
@shards_option
@click.option("--recipe", required=True, help="Recipe whose network it is: a shipped name, or a TOML file.")
@click.option("--run", "run_path", type=folder(), required=True, help="Folder of the run to make.")
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
    partial: bool,
    expect: str | None,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a run of a published checkpoint, and score it.

    FILE is a .pth.tar of timm. Weights alone are taken; nothing in FILE is executed. What does not fit is named and
    refused, or left out with --partial. Recipe and shard set say what the network is: classes, time steps, size.
    The run is finished: evaluate scores it again, report shows it, train --init starts from it.

    \b
    Examples:
      spikebridge import-checkpoint model_best.pth.tar --shards SHARDS --recipe ncaltech101-legacy --run RUN
      spikebridge evaluate RUN --shards SHARDS
    """
    from pipeline.opening import open_set
    from train.importing import import_checkpoint as make_run

    result = make_run(
        file,
        open_set(shards),
        load_recipe(recipe, overrides=overrides),
        run_path,
        partial=partial,
        expect=expect,
        device=device,
        overwrite=overwrite,
    )
    taken = result["imported"]
    lines = [f"{taken['file']}: {taken['fitted']} of {taken['tensors']} tensors fitted"]
    lines += [f"  {kind:20} {', '.join(taken[kind])}" for kind in ("missing", "unexpected", "misfits") if taken[kind]]
    for split in ("test", "validation"):
        accuracy, label = result[f"{split}_accuracy"], " (SIMULATED)" if result["simulated"] else ""
        if accuracy is not None:
            lines.append(f"  {split + ' accuracy':20} {accuracy:.1%} of {result['samples'][split]:,} recordings{label}")
    text = "\n".join([*lines, f"  run                  {run_path}"])
    answer(result, text, as_json=as_json, then=["report", run_path, "--shards", shards])


@click.command()
@click.option("--shards", metavar="PATH|ADDRESS", help="Folder of the shard set, or where it is published.")
@click.option("--recipe", required=True, help="Name of a shipped recipe, or a TOML file.")
@click.option("--run", "run_path", type=folder(), help="Folder of the run.")
@set_option
@click.option("--seed", type=click.IntRange(0), help="Seed of the run; wins over --set and the recipe.")
@device_option
@click.option("--expect", metavar="ID", help="Refuse any shard set but this one.")
@checkpoint_option
@click.option(
    "--residence",
    type=click.Choice(["auto", "device", "host", "disk"]),
    default="auto",
    show_default=True,
    help="Where frames are kept; auto goes by their size.",
)
@backend_option
@click.option("--graph/--no-graph", default=True, help="On CUDA, record each step once and replay it.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard logs to RUN/tensorboard too.")
@click.option("--init", type=folder(), metavar="RUN", help="Begin with the best weights of this finished run.")
@click.option("--settings-hash", is_flag=True, help="Print the hash of the complete recipe and stop.")
@overwrite_option
@json_option
def train(
    shards: str | None,
    recipe: str,
    run_path: Path | None,
    overrides: tuple[str, ...],
    seed: int | None,
    device: str,
    expect: str | None,
    checkpoint_every: str,
    residence: str,
    backend: str,
    graph: bool,
    tensorboard: bool,
    init: Path | None,
    settings_hash: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a network, score it once, write a report.

    An unfinished run continues, killed or stopped at whatever step; of a finished one the result is printed.
    Ctrl-C (exit code 130; twice ends at once), SIGTERM (143) and SIGUSR1 (138) finish the step and write a checkpoint.
    With torchrun several processes train one network; batch_size counts the samples of all.
    With --init the network begins with the weights of another run of the same architecture; what does not fit (other
    classes, another number of time steps) is named and begins fresh.

    \b
    Examples:
      spikebridge train --shards data/shards/digits --recipe digits --run data/runs/digits
      spikebridge train --shards data/shards/digits --recipe digits --run data/runs/e --set method=event_only --seed 1
      torchrun --nproc-per-node 2 -- cli.py train --shards SHARDS --recipe digits --run RUN --set synchronize=true
      spikebridge train --shards data/shards/nmnist --recipe nmnist --run data/runs/fine --init data/runs/digits
    """
    chosen = load_recipe(recipe, overrides=overrides, seed=seed)
    if settings_hash:
        began = b""
        if init is not None:
            from train.initialization import read_start

            began = read_start(init).sha256.encode()
        return click.echo(hashlib.sha256(dump_recipe(chosen).encode() + began).hexdigest()[:12])
    if shards is None or run_path is None:
        raise click.UsageError(f"Missing option {'--shards' if shards is None else '--run'}.")

    from pipeline.opening import open_set

    opened = open_set(shards)  # before torch, which is slow to import: a wrong path is said at once

    from train.loop import train as run_training

    with listening() as stop:
        result = run_training(
            opened,
            chosen,
            run_path,
            device=device,
            expect=expect,
            progress=progress_bar,
            overwrite=overwrite,
            residence=residence,
            backend=backend,
            graph=graph,
            checkpoint_every=checkpoint_every,
            stop=stop,
            tensorboard=tensorboard,
            init=init,
        )
    report_path = run_path / "report.html"
    if speaks_for_all() and (overwrite or not report_path.exists()):
        write_run_report([run_path], report_path, opened)
    step = ["compare", "--shards", shards, "--recipe", recipe, "--out", "DIR"]
    answer(result, result_text(result, run_path), as_json=as_json, then=step)


def result_text(result: dict[str, Any], run_path: Path) -> str:
    """The closing lines of a run."""
    samples = result["samples"]
    lines = [result["method"] + " on " + result["dataset"] + (" (SIMULATED recordings)" if result["simulated"] else "")]
    if result["protocol"] == "leaky":
        lines[0] += " (LEAKY protocol: no result)"
    for split in ("test", "validation"):
        accuracy = result[f"{split}_accuracy"]
        if accuracy is not None:
            lines.append(f"  {split + ' accuracy':20} {accuracy:.1%} of {samples[split]:,} recordings")
    lines += [
        f"  checkpoint           epoch {result['best_epoch']}: {result['selection']}",
        f"  run                  {run_path}",
        f"  report               {run_path / 'report.html'}",
    ]
    return "\n".join(lines)


def write_run_report(runs: list[Path], out: Path, shards: Any) -> None:
    """Write the report of runs; a machine without the packages for pictures still gets its training done."""
    from train.report import write_report

    try:
        write_report(runs, out, shards=shards)
    except TrainError as error:
        say(f"no report: {error}")


@click.command()
@click.argument("run_path", metavar="RUN", type=folder())
@shards_option
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--trust", is_flag=True, help="Open a torch.export program, which can run any code.")
@device_option
@backend_option
@json_option
def evaluate(
    run_path: Path, shards: str, split: str, weights: str, trust: bool, device: str, backend: str, as_json: bool
) -> None:
    """Score a finished run or an exported file again.

    The figure of a run is that of its result.json. NIR and safetensors files hold numbers alone. A torch.export
    program runs code while it is opened: --trust it only if you know who wrote it.

    \b
    Examples:
      spikebridge evaluate data/runs/digits --shards data/shards/digits --split test --json
      spikebridge evaluate digits.nir --shards data/shards/digits
    """
    from train.evaluation import evaluate as score

    result = score(run_path, shards, split=split, weights=weights, device=device, trust=trust, backend=backend)
    text = f"{split} accuracy {result['accuracy']:.1%} of {result['samples']:,} recordings"
    text += " (SIMULATED)" if result["simulated"] else ""
    text += " (LEAKY protocol: no result)" if result["protocol"] == "leaky" else ""
    if result.get("recorded") is not None:
        text += f"; the file says {result['recorded']:.1%}"
    answer(result, text, as_json=as_json)


@click.command()
@click.argument("run_path", metavar="RUN", type=folder())
@click.option("--format", "form", type=click.Choice(["nir", "torch", "safetensors"]), required=True)
@click.option("--out", required=True, help="File to write; its model card is FILE.md. Or a folder, see below.")
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--license", "licence", default="other", show_default=True, help="Identifier for the model card.")
@overwrite_option
@json_option
def export(run_path: Path, form: str, out: str, weights: str, licence: str, overwrite: bool, as_json: bool) -> None:
    """Write a trained network for other tools.

    What is written is its event path in evaluation mode. nir: the interchange format of the spiking field
    (snnTorch, SpikingJelly and others read it). torch: a torch.export program, frames [T,B,P,H,W] to logits
    [T,B,K]. safetensors: weights. Each says what it was trained on and how its input is made. What a format cannot
    express is refused by name; what was folded or left out is said.

    With a folder as --out (one that exists, or a name ending in /) it gets the file and README.md, the card: what a hub
    repository takes as it is.

    \b
    Examples:
      spikebridge export data/runs/digits --format nir --out digits.nir
      spikebridge export data/runs/digits --format safetensors --out clone-of-a-hub-repository/
      spikebridge evaluate digits.nir --shards data/shards/digits
    """
    from train.exporting import export as write

    made = write(run_path, out, format=form, weights=weights, licence=licence, overwrite=overwrite)
    lines = [f"{made.file}: {form}, {made.file.stat().st_size / 1e6:,.1f} MB", *(f"  {note}" for note in made.notes)]
    lines += [f"{made.card}: its model card, the README.md of a hub repository"]
    step: list[str | Path] = ["evaluate", made.file, "--shards", "SHARDS", *(["--trust"] if form == "torch" else [])]
    values = {"file": str(made.file), "card": str(made.card), "format": form, "description": made.description}
    answer(values, "\n".join(lines), as_json=as_json, then=step)
