"""The table of an ablation, as data and as text; a function of a grid and of finished run folders.

Validation accuracies stand in every row. Test accuracies stand in the rows of the baselines and of the finalist, which
the grid names before anything is run; of the others they are not even read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.methods import find_method
from spikebridge.train.report.format import (
    aligned,
    csv_text,
    markdown,
    points,
    protocol_words,
    spread,
)
from spikebridge.train.report.latex import booktabs, latex, spelled
from spikebridge.train.runs.checkpoints import write_atomic, write_json
from spikebridge.train.runs.folder import open_run, read_metrics
from spikebridge.train.runs.result import NEUROBENCH, NeuroBench, RunResult, accuracy_of
from spikebridge.train.statistics import CONFIDENCE, Difference, difference, mean_and_std
from spikebridge.train.studies.evaluated import (
    EvaluatedRun,
    Spread,
    evaluated_run,
    evaluated_tables,
    evaluated_words,
    spreads_of,
)
from spikebridge.train.studies.grids import AXES, Grid, GridDescription, Row

FORMULA = (
    f"Minus the reference: difference seed by seed over n common seeds, mean and {CONFIDENCE:.0%} confidence interval "
    "mean ± t·s/√n, s their standard deviation (n − 1), t of Student with n − 1 degrees of freedom. It covers the "
    "seeds (labelled recordings, weights, order), not the choice of the data set; nothing is corrected for the number "
    "of rows."
)
Time = Literal["training_seconds", "training_cpu_seconds"]
LABEL_FREE = ("label_free", "simulate_only")
"""Methods that train on no label of a recording."""
DIFFERENCE_COLUMNS = ("mean", "low", "high", "n")
HEADS = ("row", "n", "lr", "validation %", "minus reference", "test %", "minus reference")


class TestAccuracy(TypedDict, total=False):
    """Of a run; in tested rows alone."""

    test_accuracy: float | None


class RunLine(TestAccuracy):
    """A run of a row."""

    evaluated: NotRequired[EvaluatedRun | None]
    """Where the grid asks for it; None where a run has none."""

    run: str
    """Folder name."""
    seed: int
    validation_accuracy: float | None
    best_epoch: int
    epochs: int
    training_seconds: float
    training_cpu_seconds: float | None
    samples_per_second: float | None
    """In training."""
    energy_nj: float | None
    """Per recording, estimated."""
    neurobench: NeuroBench | None


class Accuracies(TypedDict):
    """Means and standard deviations (n - 1) over seeds, and differences to the reference; of test in tested rows."""

    validation_accuracy_mean: float | None
    validation_accuracy_std: float | None
    validation_difference: NotRequired[Difference]
    test_accuracy_mean: NotRequired[float | None]
    test_accuracy_std: NotRequired[float | None]
    test_difference: NotRequired[Difference]


class TableLine(Accuracies):
    """A row at one amount of labelled recordings; costs are means over its runs."""

    row: str
    """Label."""
    role: str
    """`finalist`, `baseline` or empty."""
    method: str
    switches: dict[str, Any]
    protocol: str
    note: str
    amount: float
    """Labelled recordings, in the unit of the grid's axis."""
    n: int
    """Finished runs."""
    learning_rate: float | None
    runs: list[RunLine]
    training_seconds_mean: float | None
    training_cpu_seconds_mean: float | None
    samples_per_second_mean: float | None
    energy_nj_mean: float | None
    neurobench_mean: dict[str, float | None]
    """By the names of `NEUROBENCH`; empty where no run has them."""
    evaluated: NotRequired[dict[str, Spread]]
    """Where the grid asks for it: figures by name, see `figures_of`."""


class Tuning(TypedDict):
    """How a row got its learning rate."""

    row: str
    """Label."""
    chosen: float | None
    """None where no rate went through."""
    validation: dict[str, float | None]
    """Mean validation accuracy by rate; None where a run failed or diverged; empty where nothing was to choose."""


class Failure(TypedDict):
    """A run that did not get to its end."""

    run: str
    """Folder name."""
    label: str
    """Row."""
    kind: str
    """`diverged` or `failed`."""
    message: str
    """Of the error."""


class ShardSetLine(TypedDict):
    """A shard set in use."""

    id: str
    protocol: str


class AblationTable(GridDescription):
    """The content of ablation.json."""

    schema: int
    grid_sha256: str
    dataset: str
    simulated: bool
    shard_sets: list[ShardSetLine]
    samples: dict[str, int]
    """By split."""
    confidence: float
    table: list[TableLine]
    tuning: list[Tuning]
    failures: list[Failure]


@dataclass(frozen=True)
class Entry:
    """A finished run and where it belongs."""

    label: str
    """Row."""
    amount: float
    """Labelled recordings, in the unit of the grid's axis."""
    seed: int
    path: Path


def table_of(
    grid: Grid,
    entries: Sequence[Entry],
    tuning: Sequence[Tuning],
    failures: Sequence[Failure],
    *,
    shard_sets: Sequence[ShardSet],
) -> AblationTable:
    """Return the content of ablation.json, from finished runs, a tuning per row, and the shard sets in use."""
    results = {entry.path: open_run(entry.path)[1] for entry in entries}
    tuned = {one["row"]: one for one in tuning}
    rows = []
    for amount in dict.fromkeys(amount for row in grid.rows for amount in row.amounts):
        here = [entry for entry in entries if entry.amount == amount]
        reference = {e.seed: results[e.path] for e in here if e.label == grid.reference}
        for row in grid.rows:
            if amount in row.amounts:
                own = {entry.seed: entry for entry in here if entry.label == row.label}
                rows.append(_row(grid, row, amount, own, results, reference, tuned[row.label]))
    return {
        "schema": 1,
        **grid.described(),
        "grid_sha256": grid.sha256,
        "dataset": grid.recipe.shards.dataset,
        "simulated": any(bool(one.simulated) for one in shard_sets),
        "shard_sets": [{"id": one.id, "protocol": one.settings["protocol"]} for one in shard_sets],
        "samples": {name: len(shard_sets[0].split(name)) for name in ("train", "validation", "test")},
        "confidence": CONFIDENCE,
        "table": rows,
        "tuning": list(tuning),
        "failures": list(failures),
    }


def _row(
    grid: Grid,
    row: Row,
    amount: float,
    own: dict[int, Entry],
    results: dict[Path, RunResult],
    reference: dict[int, RunResult],
    tuning: Tuning,
) -> TableLine:
    own_results = {seed: results[entry.path] for seed, entry in sorted(own.items())}
    runs = [_run_line(own[seed], result, tested=row.label in grid.tested) for seed, result in own_results.items()]
    evaluated: dict[str, dict[str, Spread]] = {}
    if grid.evaluated:
        for run, entry in zip(runs, (own[seed] for seed in own_results), strict=True):
            run["evaluated"] = evaluated_run(entry.path, grid.evaluated)
        evaluated = {"evaluated": spreads_of([run["evaluated"] for run in runs], grid.evaluated)}
    return {
        "row": row.label,
        "role": "finalist" if row.label == grid.finalist else "baseline" if row.label in grid.baselines else "",
        "method": row.method,
        "switches": dict(row.switches),
        "protocol": str({**grid.recipe.tables()["shards"], **row.switches}["protocol"]),
        "note": row.note,
        "amount": amount,
        "n": len(runs),
        "learning_rate": tuning["chosen"],
        **_accuracies(grid, row, own_results, reference),
        "runs": runs,
        "training_seconds_mean": mean_and_std([run["training_seconds"] for run in runs])[0],
        "training_cpu_seconds_mean": mean_and_std([run["training_cpu_seconds"] for run in runs])[0],
        "samples_per_second_mean": mean_and_std([run["samples_per_second"] for run in runs])[0],
        "energy_nj_mean": mean_and_std([run["energy_nj"] for run in runs])[0],
        "neurobench_mean": _neurobench_means(runs),
        **evaluated,  # type: ignore[typeddict-item]
    }


def _accuracies(grid: Grid, row: Row, results: dict[int, RunResult], reference: dict[int, RunResult]) -> Accuracies:
    """Return means and differences by seed; of the test split only where the grid shows it."""

    def summarize(split: str) -> tuple[float | None, float | None, Difference]:
        figures = {seed: accuracy_of(result, split) for seed, result in results.items()}
        minus = {seed: accuracy_of(result, split) for seed, result in reference.items()}
        return (*mean_and_std(list(figures.values())), difference(figures, minus))

    mean, std, gain = summarize("validation")
    line: Accuracies = {"validation_accuracy_mean": mean, "validation_accuracy_std": std}
    if row.label != grid.reference:
        line["validation_difference"] = gain
    if row.label in grid.tested:
        line["test_accuracy_mean"], line["test_accuracy_std"], gain = summarize("test")
        # A test difference needs a reference whose test accuracy may be shown.
        if row.label != grid.reference and grid.reference in grid.tested:
            line["test_difference"] = gain
    return line


def _run_line(entry: Entry, result: RunResult, *, tested: bool) -> RunLine:
    test: TestAccuracy = {"test_accuracy": result["test_accuracy"]} if tested else {}
    return {
        "run": entry.path.name,
        "seed": entry.seed,
        "validation_accuracy": result["validation_accuracy"],
        **test,
        "best_epoch": result["best_epoch"],
        "epochs": result["epochs"],
        "training_seconds": result["training_seconds"],
        "training_cpu_seconds": result.get("training_cpu_seconds"),
        "samples_per_second": _speed(entry.path),
        "energy_nj": result.get("energy_nj"),
        "neurobench": result.get("neurobench"),
    }


def _neurobench_means(runs: Sequence[RunLine]) -> dict[str, float | None]:
    known = [dict(figures) for run in runs if (figures := run["neurobench"])]
    return {name: mean_and_std([one[name] for one in known])[0] for name in NEUROBENCH} if known else {}  # type: ignore[misc]


def _speed(run: Path) -> float | None:
    """Return the training samples per second over the whole run, validation not counted."""
    shares = [1 / line["samples_per_second"] for line in read_metrics(run) if line.get("samples_per_second")]
    return len(shares) / sum(shares) if shares else None


def write_tables(table: AblationTable, out: Path) -> None:
    """Write ablation.json, .csv (one line per row and amount, numbers in full), .md and .tex."""
    write_atomic(out / "ablation.csv", csv_text([_flat(line) for line in table["table"]]).encode())
    write_atomic(out / "ablation.md", markdown_text(table).encode())
    write_atomic(out / "ablation.tex", latex_text(table).encode())
    write_json(out / "ablation.json", table)


def _flat(line: TableLine) -> dict[str, Any]:
    """Return the numbers and texts of a line; a difference becomes four columns."""
    flat = {name: value for name, value in line.items() if not isinstance(value, dict | list)}
    flat["switches"] = words(line["switches"])
    flat |= {f"{name}_mean": value for name, value in line["neurobench_mean"].items()}
    for name, one in line.get("evaluated", {}).items():
        flat |= {f"{name}_mean": one["mean"], f"{name}_std": one["std"]}
    for split in ("validation", "test"):
        if gain := difference_of(line, split):
            flat |= {f"{split}_difference_{name}": value for name, value in gain.items() if name in DIFFERENCE_COLUMNS}
    return flat


def accuracies_of(line: TableLine, split: str) -> tuple[float | None, float | None]:
    """Return mean and standard deviation of the accuracy on `validation` or `test`; None where it is not shown."""
    if split == "test":
        return line.get("test_accuracy_mean"), line.get("test_accuracy_std")
    return line["validation_accuracy_mean"], line["validation_accuracy_std"]


def difference_of(line: TableLine, split: str) -> Difference | None:
    """Return the difference to the reference on `validation` or `test`; None where there is none."""
    return line.get("test_difference") if split == "test" else line.get("validation_difference")


def words(switches: dict[str, Any]) -> str:
    """Format switches as one writes them behind --set."""
    return ", ".join(
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in switches.items()
    )


def amount_words(table: AblationTable, amount: float) -> str:
    """Return an amount of labelled recordings in words; of a table whose methods read no label, that there is none."""
    if all(line["method"] in LABEL_FREE for line in table["table"]):
        return "no recording labelled"
    if table["axis"] == AXES[1]:
        return "all recordings labelled" if amount == 1 else f"{100 * amount:g} % of the recordings labelled"
    return f"{amount:g} labelled recording{'s' * (amount != 1)} per class" if amount else "all recordings labelled"


def amounts_of(table: AblationTable) -> list[float]:
    """Return the amounts of labelled recordings in the table, ascending; 0 (all of them) last."""
    return sorted({line["amount"] for line in table["table"]}, key=lambda amount: (amount == 0, amount))


def time_column(table: AblationTable) -> tuple[Time, str]:
    """Return key and head of the training time to show: processor time where any run counted it, else the clock's."""
    counted = any(line["training_cpu_seconds_mean"] is not None for line in table["table"])
    return ("training_cpu_seconds", "CPU s") if counted else ("training_seconds", "seconds")


def cells(table: AblationTable, amount: float) -> list[tuple[str, ...]]:
    """Return head and rows for one amount of labelled recordings; columns without any entry are left out."""
    lines = [line for line in table["table"] if line["amount"] == amount]
    time, time_head = time_column(table)
    heads = (*HEADS, time_head, "samples/s", "µJ")
    body = [
        (
            line["row"] + (" (finalist)" if line["role"] == "finalist" else ""),
            str(line["n"]),
            "–" if line["learning_rate"] is None else f"{line['learning_rate']:g}",
            spread(*accuracies_of(line, "validation")) or "–",
            _minus(table, line, "validation"),
            spread(*accuracies_of(line, "test")),
            _minus(table, line, "test"),
            _plain(line["training_seconds_mean" if time == "training_seconds" else "training_cpu_seconds_mean"], 1)
            or "–",
            _plain(line["samples_per_second_mean"], 1),
            _plain(line["energy_nj_mean"], 1e-3),
        )
        for line in lines
    ]
    filled = [column for column in range(len(heads)) if any(row[column] for row in body)]
    return [tuple(row[column] for column in filled) for row in (heads, *body)]


def evaluated_cells(table: AblationTable, amount: float) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return tables about failures, time and an early exit, each with its title; none where none is asked."""
    if (asked := table.get("evaluated")) is None:
        return []
    lines = [line for line in table["table"] if line["amount"] == amount]
    return evaluated_tables(asked, {line["row"]: line.get("evaluated", {}) for line in lines})


def _minus(table: AblationTable, line: TableLine, split: str) -> str:
    gain = difference_of(line, split)
    if gain is None or gain["mean"] is None:
        return "reference" if line["row"] == table["reference"] and split == "validation" else ""
    low, high = gain["low"], gain["high"]
    return points(gain["mean"]) + ("" if low is None or high is None else f" [{points(low)}, {points(high)}]")


def _plain(value: float | None, scale: float) -> str:
    return "" if value is None else f"{scale * value:,.3g}" if scale * value < 100 else f"{scale * value:,.0f}"


def facts_of(table: AblationTable) -> list[str]:
    """Return what a reader of the table must know, a sentence or two each."""
    samples, sets = table["samples"], table["shard_sets"]
    facts = [
        f"{table['dataset']}{' (SIMULATED recordings)' if table['simulated'] else ''}, "
        + " and ".join(f"protocol {protocol_words(one['protocol'])} (shard set {one['id'][:12]})" for one in sets)
        + f": {samples['validation']:,} validation and {samples['test']:,} test recordings.",
        "± is the standard deviation over seeds (n − 1). " + FORMULA,
        _tested_words(table),
    ]
    if table["tuning_seeds"]:
        facts.append(
            "Learning rate: for each row that of "
            + ", ".join(f"{lr:g}" for lr in table["learning_rates"])
            + f" with the highest mean validation accuracy over seeds {_join(table['tuning_seeds'])} at "
            + f"{amount_words(table, table['tuning_amount'])}; of equals the smallest. Rows: seeds "
            + f"{_join(table['seeds'])}."
        )
    elif "lr" in table.get("sweep", {}):
        facts.append(f"Learning rate: the row's. Seeds {_join(table['seeds'])}.")
    else:
        facts.append(f"Learning rate: the recipe's, not tuned. Seeds {_join(table['seeds'])}.")
    if table["simulated"] and any(find_method(row["method"]).simulates for row in table["rows"]):
        facts.append(
            "Methods that simulate: their simulator is not the one that made these recordings, and draws thresholds, "
            "noise and motion from other, wider ranges. Both are simulators: what such a row gains here proves nothing "
            "about cameras."
        )
    if table["steps"]:
        facts.append(f"Every run takes about {table['steps']} steps, whatever the number of labelled recordings.")
    if (asked := table.get("evaluated")) is not None:
        facts.append(evaluated_words(asked))
    if any(line["energy_nj_mean"] is not None for line in table["table"]):
        facts.append(
            "µJ: estimated energy of one recording from counted operations, 0.9 pJ an addition and 4.6 pJ a "
            "multiplication with addition (Horowitz 2014, 45 nm); see the report of a run."
        )
    if time_column(table)[1] == "CPU s":
        facts.append(
            "CPU s: processor time of one run, training with validation, which depends little on what else the machine "
            "does; – where runs did not count it. Samples/s: training alone, by the clock."
        )
    else:
        facts.append("Seconds: training with validation, of one run on one thread where runs share a machine.")
    return facts


def _tested_words(table: AblationTable) -> str:
    """Return which rows show test accuracies, and who decided that."""
    if table.get("sweep"):
        return "A sweep: no run scored the test split."
    return (
        f"Test accuracies: the baselines ({', '.join(table['baselines']) or 'none'}) and the finalist "
        f"({table['finalist'] or 'none'}), both named in the grid before it ran (grid {table['grid']}, sha256 "
        f"{table['grid_sha256'][:12]}); all other rows show the validation split alone, on which each run also chose "
        "its checkpoint."
    )


def _join(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def notes_of(table: AblationTable) -> list[tuple[str, str]]:
    """Return each row with its method, switches and note."""
    notes = []
    for row in table["rows"]:
        switches = f" with {words(row['switches'])}" if row["switches"] else ""
        notes.append((row["label"], f"{row['method']}{switches}." + (f" {row['note']}" if row["note"] else "")))
    return notes


def tuning_cells(table: AblationTable) -> list[tuple[str, ...]]:
    """Return the mean validation accuracy by learning rate; empty where nothing was tuned."""
    tuned = [one for one in table["tuning"] if one["validation"]]
    if not tuned:
        return []
    rates = list(tuned[0]["validation"])
    body = [
        (
            one["row"],
            *(spread(one["validation"][lr], None) or "failed" for lr in rates),
            "–" if one["chosen"] is None else f"{one['chosen']:g}",
        )
        for one in tuned
    ]
    return [("row", *(f"lr {lr}" for lr in rates), "chosen"), *body]


def failure_lines(table: AblationTable) -> list[str]:
    """Return one line for each run that did not get to its end."""
    return [f"{one['run']} {one['kind']}: {one['message'].splitlines()[0]}" for one in table["failures"]]


def markdown_text(table: AblationTable) -> str:
    """Format the table as a Markdown document."""
    parts = [f"# {table['summary'] or table['grid']}"]
    for amount in amounts_of(table):
        title = amount_words(table, amount)
        parts += [f"## {title[:1].upper()}{title[1:]}", markdown(cells(table, amount))]
        for name, rows in evaluated_cells(table, amount):
            parts += [f"### {name}", markdown(rows)]
    parts += ["\n".join(f"- {fact}" for fact in facts_of(table))]
    parts += ["## Rows", "\n".join(f"- **{label}**: {note}" for label, note in notes_of(table))]
    if tuned := tuning_cells(table):
        parts += ["## Learning rates, mean validation accuracy in %", markdown(tuned)]
    if failed := failure_lines(table):
        parts += ["## Runs that failed", "\n".join(f"- {line}" for line in failed)]
    return "\n\n".join(parts) + "\n"


def best_of_sweep(table: AblationTable) -> str:
    """Return the row of a sweep with the highest mean validation accuracy, as one trains it; empty for other tables."""
    lines = [line for line in table["table"] if line["validation_accuracy_mean"] is not None]
    if not table.get("sweep") or not lines:
        return ""
    best = max(lines, key=lambda line: line["validation_accuracy_mean"] or 0.0)
    options = {"method": best["method"], **best["switches"], table["axis"]: best["amount"]}
    settings = " ".join(f"--set {words({key: value})}" for key, value in options.items())
    mean = spread(*accuracies_of(best, "validation"))
    return f"best on validation, {mean} %: train --recipe {table['recipe_name']} {settings} (and the grid's [settings])"


def latex_text(table: AblationTable) -> str:
    """Format the tables as LaTeX to be included in a paper that uses booktabs; what must be known stands beneath."""
    parts = [r"% \usepackage{booktabs}", f"% {latex(table['summary'] or table['grid'])}"]
    for amount in amounts_of(table):
        title = amount_words(table, amount)
        parts += [f"% {latex(title)}", booktabs(cells(table, amount)), ""]
        for name, rows in evaluated_cells(table, amount):
            parts += [f"% {latex(name)}", booktabs(rows), ""]
    facts = "\n".join(spelled(fact) for fact in facts_of(table)[:2])
    return "\n".join([*parts, rf"\par\smallskip{{\footnotesize {facts}}}"]) + "\n"


def terminal_text(table: AblationTable) -> str:
    """Format the table for a terminal."""
    parts = []
    for amount in amounts_of(table):
        parts += [f"{amount_words(table, amount)}", aligned(cells(table, amount)), ""]
        for name, rows in evaluated_cells(table, amount):
            parts += [name, aligned(rows), ""]
    marks = " (SIMULATED recordings)" if table["simulated"] else ""
    protocols = ", ".join(protocol_words(one["protocol"]) for one in table["shard_sets"])
    parts += [
        f"{table['dataset']}{marks}, protocol {protocols}; ± is the standard deviation (n - 1), [] the "
        f"{CONFIDENCE:.0%} confidence interval of the difference to {table['reference']}, seed by seed"
    ]
    parts += [sentence] if (sentence := best_of_sweep(table)) else []
    return "\n".join([*parts, *(f"FAILED {line}" for line in failure_lines(table))])
