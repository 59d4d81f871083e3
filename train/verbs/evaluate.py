"""The verb `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikebridge.pipeline.ui.terminal import json_option, overwrite_option, path_type, print_result, require_free
from spikebridge.train.verbs.options import (
    backend_option,
    corrupt_option,
    device_option,
    early_exit_option,
    shards_option,
)


@click.command()
@click.argument("run_path", metavar="RUN", type=path_type())
@shards_option
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@click.option("--weights", type=click.Choice(["best", "last"]), default="best", show_default=True)
@click.option("--foreign", is_flag=True, help="Score on another set with the same classes; the result says so.")
@corrupt_option
@click.option("--corrupt-seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the failures.")
@early_exit_option
@click.option(
    "--adapt-normalization/--no-adapt-normalization",
    default=None,
    help="Mix BatchNorm's statistics with those of the recordings scored, labels unused (test-time adaptation). "
    "[default: as the run's recipe]",
)
@click.option(
    "--adaptation-prior",
    type=float,
    metavar="N",
    help="Recordings that the trained statistics count as; 0 leaves them out. [default: as the recipe, or 16]",
)
@click.option("--html", type=path_type(), help="Page with accuracy over time, and over the levels of --corrupt.")
@click.option("--keep", is_flag=True, help="Write the result to RUN/evaluation.json, too, which report shows.")
@click.option("--trust", is_flag=True, help="Open a torch.export program, which can run any code.")
@device_option
@backend_option
@overwrite_option
@json_option
def evaluate(
    run_path: Path,
    shards: str,
    split: str,
    weights: str,
    foreign: bool,
    corrupt: tuple[str, ...],
    corrupt_seed: int,
    early_exit: float | None,
    adapt_normalization: bool | None,
    adaptation_prior: float | None,
    html: Path | None,
    keep: bool,
    trust: bool,
    device: str,
    backend: str,
    overwrite: bool,
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
      spikebridge evaluate data/runs/digits --shards data/shards/digits --corrupt background --corrupt hot_pixels:0.01
      spikebridge evaluate data/runs/digits --shards data/shards/digits --early-exit 0.5 --html over-time.html
      spikebridge evaluate data/runs/digits --shards data/shards/digits --adapt-normalization --adaptation-prior 64
      spikebridge evaluate data/runs/digits --shards data/shards/digits --corrupt flicker --split validation --keep
    """
    from spikebridge.train.evaluation.evaluate import evaluate as score
    from spikebridge.train.evaluation.failures import parse_corruptions

    if keep and (adapt_normalization is not None or adaptation_prior is not None):
        raise click.UsageError("--keep is for a run as its recipe scores it; set adapt_normalization in the recipe.")
    if keep and foreign:
        raise click.UsageError("--keep is for a run's own shard set; its report would show figures of another.")
    require_free(html, overwrite=overwrite)
    if keep:
        from spikebridge.train.runs.evaluation import require_place

        require_place(run_path, overwrite=overwrite)
    if html is not None:
        from spikebridge.train.report.write import require_matplotlib

        require_matplotlib("a page of curves needs")
    options: dict[str, Any] = {"split": split, "weights": weights, "device": device, "backend": backend}
    options |= {"corrupt": parse_corruptions(corrupt), "corrupt_seed": corrupt_seed, "early_exit": early_exit}
    options |= {"adapt_normalization": adapt_normalization, "adaptation_prior": adaptation_prior}
    result = score(run_path, shards, trust=trust, foreign=foreign, **options)
    text = f"{split} accuracy {result['accuracy']:.1%} of {result['samples']:,} recordings"
    text += " (SIMULATED)" if result["simulated"] else ""
    text += " (FOREIGN set: the network was trained on another)" if result["foreign"] else ""
    text += " (LEAKY protocol: no result)" if result["protocol"] == "leaky" else ""
    if "adapted" in result:
        text += _adapted_text(**result["adapted"])
    if result.get("recorded") is not None:
        text += f"; the file says {result['recorded']:.1%}"
    if early_exit is not None:
        text += "\n" + _early_exit_text(result)
    if corrupt:
        text += "\n" + _corrupted_text(result)
    if html is not None:
        from spikebridge.train.report.robustness import robustness_page
        from spikebridge.train.runs.checkpoints import write_atomic

        write_atomic(html, robustness_page(result, source=str(run_path)).encode())
        text += f"\n  page  {html}"
    if keep:
        from spikebridge.train.runs.evaluation import keep_evaluation

        keep_evaluation(run_path, result)
        text += f"\n  kept  {run_path / 'evaluation.json'}"
    print_result(result, text, as_json=as_json)


def _adapted_text(prior: float, layers: int) -> str:
    """Return what was adapted, for the line of the accuracy."""
    if not layers:
        return " (nothing to ADAPT: the network has no BatchNorm)"
    return f" (BatchNorm ADAPTED to these recordings, labels unused; the trained statistics count as {prior:g})"


def _early_exit_text(result: dict[str, Any]) -> str:
    """Return accuracy after each time step, and what the exit does."""
    from spikebridge.train.report.format import aligned
    from spikebridge.train.report.robustness import early_exit_words, over_time_rows

    return f"{aligned(over_time_rows(result))}\n{early_exit_words(result)}"


def _corrupted_text(result: dict[str, Any]) -> str:
    """Return a row for every failure and level."""
    from spikebridge.train.report.format import aligned
    from spikebridge.train.report.robustness import corrupted_rows

    return aligned(corrupted_rows(result, meanings=True))
