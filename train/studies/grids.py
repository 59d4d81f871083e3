"""Grids: what `ablate` does, as a strict TOML file - rows of methods and switches on one base recipe; no torch needed.

recipe = "digits"                 # base: a shipped name or a file
seeds = [0, 1, 2, 3, 4]           # of the runs in the table; each also chooses the labelled recordings
events_per_class = [10]           # labelled recordings; or events_share = [0.1, 1.0], a share of each class
steps = 300                       # of each run, whatever the recordings; 0 or absent: the recipe's epochs
validations = 30                  # looks at the validation split in a run; 0 or absent: the recipe's
learning_rates = [1e-3, 2e-3]     # the same for every row; one is chosen per row on the validation split, by the mean
tuning_seeds = [100, 101]         # over these seeds, at the first of the amounts above; absent: the recipe's lr
reference = "kt"                  # row that differences are taken to, seed by seed
baselines = ["event only", "kt"]  # rows that show test accuracies
finalist = "better"               # one more, named before anything is run
corruptions = ["flicker:0.01"]    # every run of the table also as a failing camera would have recorded it, see evaluate
after_ms = [75, 150]              # accuracy when a recording ends so early
early_exit = 5.0                  # points of accuracy that an early exit may lose; 0 or absent: no exit
evaluated_split = "validation"    # of these three; "test" where every row is a baseline or the finalist
[settings]                        # of all rows, as --set
[[rows]]
label = "kt"                      # name of the row
method = "kt"
switches = { feature = "spikes" } # of this row, as --set; also of [shards]: such a row needs a shard set of its own
note = ""                         # shown beneath the table
events_per_class = [3, 10, 30]    # instead of the grid's

A sweep takes every combination of some values; `rows`, `reference` and the labelled recordings may be left out:

recipe = "digits"
seeds = [0]
[sweep]                           # no run scores the test split: the table is made to choose from
lr = [1e-3, 2e-3]
sliding_power = [1.0, 3.0]
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from spikebridge.pipeline.base.names import suggest
from spikebridge.pipeline.base.settings import field_problems, setting
from spikebridge.train.config.recipes import Recipe, load_recipe, override, parse_override, setting_called
from spikebridge.train.config.settings import METHODS
from spikebridge.train.config.shipped import GRIDS
from spikebridge.train.errors import RecipeError, RunError
from spikebridge.train.evaluation.failures import parse_corruptions

AXES = ("events_per_class", "events_share")
OWNED = ("method", "seed", "lr", *AXES)
"""Settings that the grid itself decides."""


@dataclass(frozen=True)
class GridFile:
    """Keys of a grid file with plain values, and their limits; meanings stand above."""

    recipe: str = setting()
    seeds: tuple[int, ...] = setting(low=0, distinct=True)
    reference: str = setting("")
    baselines: tuple[str, ...] = setting(())
    finalist: str = setting("")
    tuning_seeds: tuple[int, ...] = setting((), low=0, distinct=True)
    learning_rates: tuple[float, ...] = setting((), low=0, distinct=True)
    events_per_class: tuple[int, ...] = setting((), low=0, distinct=True)
    events_share: tuple[float, ...] = setting((), low=0, distinct=True)
    steps: int = setting(0, low=0)
    validations: int = setting(0, low=0)
    corruptions: tuple[str, ...] = setting((), distinct=True)
    after_ms: tuple[float, ...] = setting((), above=0, distinct=True)
    early_exit: float = setting(0.0, low=0, high=100)
    evaluated_split: str = setting("validation", choices=("validation", "test"))


EVALUATED = ("corruptions", "after_ms", "early_exit", "evaluated_split")
"""Keys that say how finished runs are evaluated."""
KEYS = (*GridFile.__dataclass_fields__, "settings", "rows", "sweep")
ROW_KEYS = ("label", "method", "switches", "note", *AXES)


class RowDescription(TypedDict):
    """A row in JSON, with its amounts under the grid's axis."""

    label: str
    method: str
    switches: dict[str, Any]
    note: str
    events_per_class: NotRequired[list[float]]
    events_share: NotRequired[list[float]]


class EvaluatedDescription(TypedDict):
    """`Evaluated` in JSON."""

    corruptions: list[str]
    after_ms: list[float]
    early_exit: float | None
    split: str


class GridDescription(TypedDict):
    """A grid in JSON: everything that decides what is run and shown."""

    grid: str
    summary: str
    recipe_name: str
    recipe: dict[str, dict[str, Any]]
    axis: str
    seeds: list[int]
    steps: int
    validations: int
    learning_rates: list[float]
    tuning_seeds: list[int]
    tuning_amount: float
    reference: str
    baselines: list[str]
    finalist: str
    rows: list[RowDescription]
    sweep: NotRequired[dict[str, list[Any]]]
    """Of a sweep: what its rows are the product of."""
    evaluated: NotRequired[EvaluatedDescription]
    """How finished runs are evaluated, where they are."""


@dataclass(frozen=True)
class Evaluated:
    """How the runs of a table are evaluated when they are finished."""

    corruptions: tuple[tuple[str, float], ...]
    """Failures of the camera and their levels."""
    after_ms: tuple[float, ...]
    """Milliseconds after which recordings end."""
    early_exit: float | None
    """Points that answers may lose; None for no exit."""
    split: str

    def described(self) -> EvaluatedDescription:
        """Return it for JSON."""
        return {
            "corruptions": [failure_label(name, level) for name, level in self.corruptions],
            "after_ms": list(self.after_ms),
            "early_exit": self.early_exit,
            "split": self.split,
        }


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    label: str
    method: str
    switches: Mapping[str, Any]
    """Settings that differ from the base recipe."""
    note: str
    """What a reader of the table must know."""
    amounts: tuple[float, ...]
    """Labelled recordings, in the unit of the grid's axis."""

    @property
    def slug(self) -> str:
        """Return the label as a part of folder names."""
        return slug(self.label)

    @property
    def lr(self) -> float | None:
        """Return the learning rate of this row of a sweep; None where the grid has it."""
        rate: float | None = self.switches.get("lr")
        return rate


@dataclass(frozen=True)
class Grid:
    """A complete, checked grid."""

    name: str
    """Shipped name or path."""
    summary: str
    """First comment line of the file."""
    recipe: Recipe
    """The base, with the settings of all rows."""
    fixed: frozenset[str]
    """Settings that `steps` and `validations` do not touch, because somebody set them."""
    rows: tuple[Row, ...]
    """In the order of the table."""
    axis: str
    """One of `AXES`."""
    seeds: tuple[int, ...]
    """Of the runs in the table."""
    learning_rates: tuple[float, ...]
    """Tried for every row; never empty."""
    tuning_seeds: tuple[int, ...]
    """Empty where there is nothing to choose."""
    tuning_amount: float
    """Labelled recordings while tuning."""
    steps: int
    """Of each run; 0 leaves the recipe's epochs."""
    validations: int
    """Looks at the validation split in a run; 0 leaves the recipe's."""
    reference: str
    """Label of the row that the others are compared with."""
    baselines: tuple[str, ...]
    """Labels of rows with test accuracies."""
    finalist: str
    """Label of the row that was chosen beforehand; empty for none."""
    sweep: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Settings and their values, of which the rows are the product; empty where the file names the rows alone. No run
    of a sweep scores the test split."""
    evaluated: Evaluated | None = None
    """None where the grid asks for accuracies alone."""

    @property
    def tested(self) -> tuple[str, ...]:
        """Return the labels of the rows whose test accuracy is shown."""
        return tuple(dict.fromkeys([*self.baselines, *([self.finalist] if self.finalist else [])]))

    def recipe_of(
        self, row: Row, amount: float, *, seed: int, lr: float, per_class: Sequence[int] | None = None
    ) -> Recipe:
        """Return the complete recipe of a run.

        Args:
            row: of this grid.
            amount: labelled recordings, in the unit of the axis.
            seed: of the run.
            lr: of the run.
            per_class: training recordings of each class in the shard set; without it `steps` counts for nothing.

        Raises:
            RecipeError: every problem at once.
        """
        values = {"lr": lr, **row.switches, "method": row.method, "seed": seed, self.axis: amount}
        if self.axis == "events_share":
            values["events_per_class"] = 0
        fixed = self.fixed | set(row.switches)
        if self.steps and per_class is not None and "epochs" not in fixed:
            batch = int(values.get("batch_size", self.recipe.train.batch_size))
            per_epoch = max(1, -(-self.samples(amount, per_class) // batch))
            values["epochs"] = max(1, round(self.steps / per_epoch))
        if self.validations and "validate_every" not in fixed:
            epochs = int(values.get("epochs", self.recipe.train.epochs))
            values["validate_every"] = max(1, epochs // self.validations)
        return override(self.recipe, **values)

    def samples(self, amount: float, per_class: Sequence[int]) -> int:
        """Count the labelled recordings in all."""
        return sum(labelled(present, self.axis, amount) for present in per_class)

    def described(self) -> GridDescription:
        """Return everything that decides what is run and shown, for JSON."""
        described: GridDescription = {
            "grid": Path(self.name).stem,
            "summary": self.summary,
            "recipe_name": self.recipe.name,
            "recipe": self.recipe.tables(),
            "axis": self.axis,
            "seeds": list(self.seeds),
            "steps": self.steps,
            "validations": self.validations,
            "learning_rates": list(self.learning_rates),
            "tuning_seeds": list(self.tuning_seeds),
            "tuning_amount": self.tuning_amount,
            "reference": self.reference,
            "baselines": list(self.baselines),
            "finalist": self.finalist,
            "rows": [self._describe(row) for row in self.rows],
        }
        if self.sweep:
            described["sweep"] = {key: list(values) for key, values in self.sweep.items()}
        if self.evaluated:
            described["evaluated"] = self.evaluated.described()
        return described

    def _describe(self, row: Row) -> RowDescription:
        described: RowDescription = {
            "label": row.label,
            "method": row.method,
            "switches": dict(row.switches),
            "note": row.note,
        }
        if self.axis == "events_share":
            described["events_share"] = list(row.amounts)
        else:
            described["events_per_class"] = list(row.amounts)
        return described

    @property
    def sha256(self) -> str:
        """Return the hash of `described`: which rows show test accuracies was decided before this grid ran."""
        return hashlib.sha256(json.dumps(self.described(), sort_keys=True).encode()).hexdigest()


def failure_label(name: str, level: float) -> str:
    """Return a failure and its level as one writes them behind --corrupt."""
    return f"{name}:{level:.12g}"


def slug(label: str) -> str:
    """Return letters, digits and dashes of a label."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def labelled(present: int, axis: str, amount: float) -> int:
    """Count the labelled recordings of a class with so many, as `order.select_recordings` takes them."""
    if axis == "events_share":
        return min(present, max(1, round(amount * present)))
    return min(present, int(amount)) if amount else present


def load_grid(name_or_path: str, *, overrides: Iterable[str] = (), seeds: Sequence[int] = ()) -> Grid:
    """Read a grid by name or path.

    Args:
        name_or_path: shipped name, or path of a TOML file.
        overrides: texts `key=value` for all rows; they win over `[settings]`, and the row's switches over them.
        seeds: instead of the grid's, where given.

    Raises:
        RecipeError: every problem at once.
    """
    name, content = GRIDS.read(name_or_path)
    problems = [f"{key}: unknown key{suggest(key, KEYS)}" for key in content if key not in KEYS]
    required = ("recipe", "seeds") if "sweep" in content else ("recipe", "reference", "seeds", "rows")
    problems += [f"{key}: missing" for key in required if key not in content]
    if seeds:
        content["seeds"] = list(seeds)
    problems += field_problems(GridFile, content)
    axes = [axis for axis in AXES if axis in content]
    if len(axes) != 1 and not (not axes and "sweep" in content):
        problems.append(f"{' and '.join(AXES)}: expected one of them, found {len(axes)}")
    tables = [key for key in ("settings", "sweep") if not isinstance(content.get(key, {}), dict)]
    problems += [f"{key}: expected a table" for key in tables]
    if "sweep" in content and not tables:
        problems += _sweep_problems(content)
    rows = content.get("rows", [{}] if "sweep" in content else [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        problems.append("rows: expected at least one [[rows]]")
    if problems:
        raise RecipeError(name, problems, what="grid")
    if "sweep" in content:
        content = _with_defaults(content)
    return _checked(name, GRIDS.summary(name_or_path), content, overrides)


def _sweep_problems(content: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the table of a sweep, but for values that a recipe refuses."""
    sweep, problems = content["sweep"], []
    if not sweep:
        problems.append("sweep: expected at least one setting, e.g. lr = [1e-3, 2e-3]")
    for key, values in sweep.items():
        if key in ("seed", *AXES):
            problems.append(f"sweep: {key}: decided by the grid itself; it has a key of its own, seeds or {AXES[0]}")
        elif (meant := setting_called(key)) != key:
            problems.append(f"sweep: {key}: unknown key" + (f"; did you mean {meant}?" if meant else ""))
        elif not isinstance(values, list) or not values or any(values.count(value) > 1 for value in values):
            problems.append(f"sweep: {key}: expected a list of values, none twice")
    lacks = [key for key in ("baselines", "finalist") if content.get(key)]
    problems += [f"{key}: a sweep is there to choose from and shows no test accuracy; leave it out" for key in lacks]
    if "lr" in sweep:
        rates = [key for key in ("learning_rates", "tuning_seeds") if content.get(key)]
        problems += [f"{key}: lr is swept; leave one of the two out" for key in rates]
    return problems


def _with_defaults(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a sweep with what it may leave out: one row with the recipe's method, its recordings."""
    train = load_recipe(content["recipe"]).train
    content = dict(content)
    if not any(axis in content for axis in AXES):
        axis = AXES[1] if train.events_share != 1.0 else AXES[0]
        content[axis] = [getattr(train, axis)]
    content.setdefault("rows", [{"method": train.method}])
    return content


def _swept(rows: Iterable[Row], sweep: Mapping[str, Sequence[Any]]) -> tuple[Row, ...]:
    """Return every row with every combination of the values, the last setting changing fastest."""
    made = []
    for row, values in itertools.product(rows, itertools.product(*sweep.values())):
        switches = {**row.switches, **dict(zip(sweep, values, strict=True))}
        named = ", ".join(f"{key}={_value_text(switches[key])}" for key in sweep)
        label = f"{row.label}, {named}" if row.label else named
        method = str(switches.pop("method", row.method))
        made.append(replace(row, label=label, method=method, switches=switches))
    return tuple(made)


def _value_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _checked(name: str, summary: str, content: Mapping[str, Any], overrides: Iterable[str]) -> Grid:
    """Check what needs sound types: the second half of `load_grid`."""
    problems: list[str] = []
    settings = dict(content.get("settings", {}))
    for text in overrides:
        try:
            _, key, value = parse_override(text)
            settings[key] = value
        except RecipeError as error:
            problems += error.problems
    problems += [f"{key}: decided by the grid itself, not by [settings] or --set" for key in OWNED if key in settings]
    axis = next(axis for axis in AXES if axis in content)
    amounts = tuple(content[axis])
    sweep = content.get("sweep", {})
    alone = bool(sweep) and len(content["rows"]) == 1
    rows = tuple(
        _row(number, row, axis, amounts, problems, nameless=alone)
        for number, row in enumerate(content["rows"], start=1)
    )
    problems += [f"{key}: is swept; leave it out of [settings], --set and switches" for key in sweep if key in settings]
    problems += [f"row {row.label!r}: {key} is swept" for row in rows for key in sweep if key in row.switches]
    rows = _swept(rows, sweep) if sweep and not problems else rows
    labels = [row.label for row in rows]
    problems += [f"rows: {label!r} is given twice" for label, count in Counter(map(slug, labels)).items() if count > 1]
    pointers = {
        "reference": [content["reference"]] if content.get("reference") else [],
        "finalist": [content["finalist"]] if content.get("finalist") else [],
    }
    for key, named in {**pointers, "baselines": content.get("baselines", [])}.items():
        problems += [f"{key}: no row {one!r}{suggest(str(one), labels)}" for one in named if one not in labels]
    rates, tuning = tuple(map(float, content.get("learning_rates", ()))), tuple(content.get("tuning_seeds", ()))
    if (len(rates) > 1) != bool(tuning):
        problems.append("learning_rates and tuning_seeds: several rates need tuning seeds, and the other way round")
    evaluated = _evaluated(content, labels, problems)
    if problems:
        raise RecipeError(name, problems, what="grid")
    base = override(load_recipe(content["recipe"]), **settings)
    grid = Grid(
        name=name,
        summary=summary,
        recipe=base,
        fixed=frozenset(settings),
        rows=rows,
        axis=axis,
        seeds=tuple(content["seeds"]),
        learning_rates=rates or (base.train.lr,),
        tuning_seeds=tuning,
        tuning_amount=amounts[0],
        steps=content.get("steps", 0),
        validations=content.get("validations", 0),
        reference=content.get("reference") or labels[0],
        baselines=tuple(content.get("baselines", ())),
        finalist=content.get("finalist", ""),
        sweep=sweep,
        evaluated=evaluated,
    )
    _require_sound_rows(grid)
    return grid


def _evaluated(content: Mapping[str, Any], labels: Sequence[str], problems: list[str]) -> Evaluated | None:
    """Return how finished runs are evaluated; None where no key asks for it."""
    if not any(key in content for key in EVALUATED):
        return None
    corruptions: list[tuple[str, float]] = []
    for text in content.get("corruptions", ()):
        try:
            corruptions += parse_corruptions([text], option="corruptions: ")
        except RunError as error:
            problems.append(str(error))
    twice = [one for one, count in Counter(corruptions).items() if count > 1]
    problems += [f"corruptions: {name}:{level:g} is given twice" for name, level in twice]
    points, split = float(content.get("early_exit", 0)), content.get("evaluated_split", "validation")
    untested = [one for one in labels if one not in {*content.get("baselines", []), content.get("finalist", "")}]
    if split == "test" and untested:
        problems.append(
            f"evaluated_split: row {untested[0]!r} shows no test accuracy; name every row in baselines or finalist, or "
            "leave evaluated_split out"
        )
    after = tuple(map(float, content.get("after_ms", ())))
    if not content.get("corruptions") and not after and not points:
        problems.append("evaluated_split: nothing is evaluated; give corruptions, after_ms or early_exit")
    return Evaluated(tuple(corruptions), after, points or None, split)


def _row(
    number: int,
    content: Mapping[str, Any],
    axis: str,
    amounts: tuple[float, ...],
    problems: list[str],
    *,
    nameless: bool,
) -> Row:
    label = str(content.get("label", ""))
    where = f"row {label!r}" if slug(label) else f"row {number}"
    if not slug(label) and not nameless:
        problems.append(f"{where}: label: expected a name with at least a letter or digit")
    problems += [f"{where}: {key}: unknown key{suggest(key, ROW_KEYS)}" for key in content if key not in ROW_KEYS]
    method, switches, own = content.get("method", ""), content.get("switches", {}), content.get(axis, list(amounts))
    if method not in METHODS:
        problems.append(f"{where}: method: {method!r} is not known{suggest(str(method), METHODS)}")
    if not isinstance(switches, dict):
        problems.append(f"{where}: switches: expected a table, e.g. {{ tet = false }}")
        switches = {}
    problems += [f"{where}: switches: {key} is decided by the grid itself" for key in OWNED if key in switches]
    problems += [f"{where}: {other}: the grid counts in {axis}" for other in AXES if other != axis and other in content]
    wrong = field_problems(GridFile, {axis: own})
    problems += [f"{where}: {problem}" for problem in wrong]
    return Row(label, str(method), switches, str(content.get("note", "")), () if wrong else tuple(own))


def _require_sound_rows(grid: Grid) -> None:
    """Check every recipe that the grid can ask for.

    Raises:
        RecipeError: with the rows' names.
    """
    problems: list[str] = []
    labels: dict[Recipe, str] = {}
    for row in grid.rows:
        try:
            for amount in dict.fromkeys([*row.amounts, grid.tuning_amount]):
                for lr in grid.learning_rates:  # a row of a sweep may have its own
                    recipe = grid.recipe_of(row, amount, seed=grid.seeds[0], lr=lr)
            if recipe in labels:
                problems.append(f"row {row.label!r}: the same settings as row {labels[recipe]!r}")
            labels[recipe] = row.label
        except RecipeError as error:
            problems += [f"row {row.label!r}: {problem}" for problem in error.problems]
    if problems:
        raise RecipeError(grid.name, list(dict.fromkeys(problems)), what="grid")
