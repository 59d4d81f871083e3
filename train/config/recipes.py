"""Recipes: strict flat TOML files, read, overridden, compared and written; no torch needed."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.files import sha256_once
from spikebridge.pipeline.base.names import suggest
from spikebridge.pipeline.base.settings import field_problems
from spikebridge.train.config.profile import CAMERA_FILE, FILE, INLINE, read_profile_file
from spikebridge.train.config.settings import (
    SYNONYMS,
    TEACHER_FILES,
    TEACHER_SUM,
    ShardSettings,
    TrainSettings,
    cross_problems,
    shard_problems,
)
from spikebridge.train.config.shipped import RECIPES
from spikebridge.train.config.toml_values import toml_value
from spikebridge.train.errors import RecipeError

TABLES: dict[str, type] = {"shards": ShardSettings, "train": TrainSettings}
_HOME = {setting.name: table for table, kind in TABLES.items() for setting in fields(kind)}
_LATER = (
    "event_augmentation", "i2e_ratio", "unlabelled_per_recording", "unlabelled_weight", "unlabelled_augmentation",
    "pseudo_label_threshold", "self_training_from", "adapt_normalization", "adaptation_prior",
    "simulated_background", "simulated_hot_pixels", "teacher", "teacher_output", "teacher_mean", "teacher_std",
    "weight_average", "least_steps", "optimizer",
)  # fmt: skip
"""Settings of `[train]` that recipes had before they were there: left out at their default, so that hashes stay."""
SUM_SHOWN = 8
"""Hexadecimal digits of a sum, in sentences."""
_BARE_WORD = re.compile(r"[A-Za-z./][A-Za-z0-9_./-]*")  # or a path


@dataclass(frozen=True)
class Recipe:
    """A complete, checked recipe."""

    shards: ShardSettings
    """The shard set it is made for."""
    train: TrainSettings
    name: str = field(default="recipe", compare=False)
    """Where it came from; two recipes with the same settings are the same recipe."""
    camera: str = field(default="", compare=False, repr=False)
    """Text of the profile's file of which `simulation` holds what decides; empty where none is known."""

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return both tables as plain dicts, tuples as lists, in the order of the declaration.

        What may be left out of `[shards]` and was is not there, nor what came later to `[train]` and is at its default.
        """
        train = _plain(self.train)
        defaults = _as_lists({key: TrainSettings.__dataclass_fields__[key].default for key in _LATER})
        train = {key: value for key, value in train.items() if key not in defaults or value != defaults[key]}
        return {"shards": _as_lists(self.shards.given()), "train": train}

    def settings(self) -> dict[str, Any]:
        """Return all settings of both tables, given or not, tuples as lists."""
        return {**_plain(self.shards), **_plain(self.train)}


def setting_called(name: str) -> str | None:
    """Return the setting of this name, or of which the field has this name; None where there is none."""
    key = name.replace("-", "_")
    return key if key in _HOME else SYNONYMS.get(key.lower())


def _suggest(key: str, names: Iterable[str]) -> str:
    meant = setting_called(key)
    return f"; did you mean {meant}?" if meant else suggest(key, names)


def _plain(settings: Any) -> dict[str, Any]:
    return _as_lists(asdict(settings))


def _as_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def fitting_recipe(settings: Mapping[str, Any], *, wish: str | None = None) -> str | None:
    """Return the name of the recipe that is made for a shard set with these settings; None where there is none.

    The `wish` comes first, a shipped name or a file, then the shipped ones, of these the one named like the data set.
    """
    shipped = sorted(RECIPES.names(), key=lambda name: (name != settings["dataset"], name))
    for name in [wish, *shipped] if wish else shipped:
        shards = load_recipe(name).tables()["shards"]
        if all(settings.get(key) == value for key, value in shards.items()):
            return name
    return None


def load_recipe(name_or_path: str | Path, *, overrides: Iterable[str] = (), seed: int | None = None) -> Recipe:
    """Read a recipe by name or path; overrides win over the file, `seed` over both.

    Args:
        name_or_path: shipped name, or path of a TOML file (a run's config.toml is one, and has its camera beside it).
        overrides: texts `key=value`, the value in TOML; see `parse_override`.
        seed: replaces `train.seed`.

    Raises:
        RecipeError: every problem of file and overrides at once.
    """
    name, tables = RECIPES.read(name_or_path)
    folder = RECIPES.find(name_or_path).parent
    own = {} if seed is None else {"seed": seed}
    recipe = recipe_from(tables, name=name, overrides=overrides, settings=own, folder=folder)
    return recipe if recipe.camera else replace(recipe, camera=_camera_beside(folder, recipe.train.simulation))


def override(recipe: Recipe, overrides: Iterable[str] = (), /, **settings: Any) -> Recipe:
    """Return the recipe with other settings, each in the table where it belongs; keywords win over `overrides`.

    Raises:
        RecipeError: every problem at once.
    """
    other = recipe_from(recipe.tables(), name=recipe.name, overrides=overrides, settings=settings)
    same = other.train.simulation == recipe.train.simulation
    return replace(other, camera=recipe.camera) if same and not other.camera else other


def recipe_from(
    tables: Mapping[str, Any],
    *,
    name: str = "recipe",
    overrides: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    folder: Path = Path(),
) -> Recipe:
    """Check plain tables and make them a recipe; order of precedence: `settings` by key, overrides, tables.

    A profile that `simulation` names is looked for in the working folder, then in `folder`, and taken over.

    Raises:
        RecipeError: every problem at once.
    """
    problems = [
        f"[{table}]: unknown table; a recipe has [shards] and [train]" for table in tables if table not in TABLES
    ]
    merged: dict[str, dict[str, Any]] = {}
    asked = set(settings or ())
    for table in TABLES:
        content = tables.get(table, {})
        if isinstance(content, Mapping):
            merged[table] = dict(content)
        else:
            problems.append(f"{table}: found a value, expected a table [{table}]")
            merged[table] = {}
    for text in overrides:
        try:
            table, key, value = parse_override(text)
        except RecipeError as error:
            problems.extend(error.problems)
        else:
            merged[table][key] = value
            asked.add(key)
    for key, value in (settings or {}).items():
        merged[_HOME.get(key, "train")][key] = value
    if "epochs" in asked and "least_steps" not in asked:
        merged["train"].pop("least_steps", None)  # whoever asks for so many epochs wants no more
    camera = _take_profile(merged["train"], folder, problems)
    _take_teacher(merged["train"], folder, problems)
    values = {}
    for table, kind in TABLES.items():
        known = _known_values(table, kind, merged[table], problems)
        wrong = field_problems(kind, known)
        problems.extend(f"[{table}] {problem}" for problem in wrong)
        sound = {key: value for key, value in known.items() if not field_problems(kind, {key: value})}
        contradictions = cross_problems(sound) if table == "train" else shard_problems(sound)
        problems.extend(f"[{table}] {problem}" for problem in contradictions)
        values[table] = known
    if values["train"].get("selection") == "test" and values["shards"].get("protocol") == "strict":
        problems.append("[train] selection: the test split picks no epoch under protocol strict; use validation")
    if problems:
        raise RecipeError(name, problems)
    shards, train = ShardSettings(**_typed(values["shards"])), TrainSettings(**_typed(values["train"]))
    return Recipe(shards, train, name=name, camera=camera)


def _take_profile(train: dict[str, Any], folder: Path, problems: list[str]) -> str:
    """Put what decides of a profile's file in the place of its name; return the file's text, empty without one."""
    named = train.get("simulation")
    if not isinstance(named, str) or named.startswith(INLINE) or not named.endswith(FILE):
        return ""
    path = next((path for path in (Path(named), folder / named) if path.is_file()), Path(named))
    try:
        profile, text = read_profile_file(path)
    except RecipeError as error:
        problems += [f"[train] simulation: {path}: {problem}" for problem in error.problems]
        return ""
    train["simulation"] = profile.inline()
    return text


def _camera_beside(folder: Path, simulation: str) -> str:
    """Return the profile that lies beside a run's recipe; empty where there is none, or that of another camera."""
    path = folder / CAMERA_FILE
    if not simulation.startswith(INLINE) or not path.is_file():
        return ""
    try:
        profile, text = read_profile_file(path)
    except RecipeError:
        return ""  # nothing depends on it
    return text if profile.inline() == simulation else ""


def _take_teacher(train: dict[str, Any], folder: Path, problems: list[str]) -> None:
    """Put the SHA-256 of a teacher's file behind its name, so that a run and its settings know which file it was."""
    named = train.get("teacher")
    if not isinstance(named, str) or not named.endswith(TEACHER_FILES):
        return
    path = next((path for path in (Path(named), folder / named) if path.is_file()), None)
    if path is None:
        problems.append(f"[train] teacher: {named}: no such file; expected a torch.export program or safetensors")
    else:
        train["teacher"] = f"{path}{TEACHER_SUM}{sha256_once(path)}"


def _known_values(table: str, kind: type, given: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Keep the known keys; unknown and missing ones become problems."""
    names = [setting.name for setting in fields(kind)]
    for key in given:
        if key not in names:
            if key in _HOME:
                problems.append(f"[{table}] {key}: belongs in [{_HOME[key]}]")
            else:
                problems.append(f"[{table}] {key}: unknown key{_suggest(key, _HOME)}")
    for setting in fields(kind):
        if setting.default is MISSING and setting.name not in given:
            problems.append(f"[{table}] {setting.name}: missing")
    return {key: value for key, value in given.items() if key in names}


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn whole numbers where a float belongs into floats, and lists into tuples: equal settings compare equal."""
    kinds = {setting.name: setting.type for kind in TABLES.values() for setting in fields(kind)}
    casts: dict[str, Callable[[Any], Any]] = {"float": float, "tuple[int, ...]": tuple, "tuple[float, ...]": _floats}
    return {key: casts.get(str(kinds[key]), lambda same: same)(value) for key, value in values.items()}


def parse_override(text: str) -> tuple[str, str, Any]:
    """Read `key=value` (or `table.key=value`) of `--set`; the value is TOML.

    A bare word or path counts as text where the key takes text and nothing else could be meant; otherwise quote it.

    Returns:
        Table, key, value.

    Raises:
        RecipeError: no equals sign, unknown key, or a value that is not TOML.
    """
    key, equals, raw = (part.strip() for part in text.partition("="))
    if not equals or not key or not raw:
        raise RecipeError(text, [f"--set {text}: expected key=value, e.g. --set epochs=10"])
    table, _, short = key.rpartition(".")
    if short not in _HOME or (table and table != _HOME[short]):
        raise RecipeError(text, [f"--set {key}: unknown key{_suggest(short, _HOME)}"])
    table = _HOME[short]
    try:
        parsed = tomllib.loads(f"value = {raw}")
        if len(parsed) > 1:
            raise tomllib.TOMLDecodeError("more than one value")
        return table, short, parsed["value"]
    except (ValueError, RecursionError):  # a number of too many digits, too
        kind = next(setting.type for setting in fields(TABLES[table]) if setting.name == short)
        if kind == "str" and _BARE_WORD.fullmatch(raw):
            return table, short, raw
        raise RecipeError(
            text, [f"--set {key}: {raw} is not a TOML value; text needs quotation marks: --set '{key}=\"{raw}\"'"]
        ) from None


def changed_settings(first: Recipe, second: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, each with both values, in the order of the declaration."""
    there, here = first.settings(), second.settings()
    return {key: (there[key], here[key]) for key in there if there[key] != here[key]}


def differences(recorded: Recipe, asked: Recipe) -> list[str]:
    """Return the settings that differ, one sentence each: `lr: 0.001 there, 0.002 asked for`."""
    changed = changed_settings(recorded, asked)
    return [f"{key}: {brief(there)!r} there, {brief(here)!r} asked for" for key, (there, here) in changed.items()]


def brief(value: Any) -> Any:
    """Return a setting's value for people: of a profile that a recipe took over its sum; of sums the beginning."""
    if not isinstance(value, str):
        return value
    if value.startswith(INLINE):
        return INLINE + hashlib.sha256(value.encode()).hexdigest()[:SUM_SHOWN]
    name, between, digest = value.partition(TEACHER_SUM)
    return name + between + digest[:SUM_SHOWN]


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as TOML; reading it back gives an equal recipe, floats to the last bit."""
    lines = []
    for table, values in recipe.tables().items():
        lines += [f"[{table}]", *(f"{key} = {toml_value(value)}" for key, value in values.items()), ""]
    return "\n".join(lines[:-1]) + "\n"
