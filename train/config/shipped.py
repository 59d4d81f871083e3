"""Recipes and grids that come with the project, by name: folders of TOML files in data/; no torch needed."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.names import suggest
from spikebridge.pipeline.base.places import in_the_way
from spikebridge.train.errors import RecipeError

MOST_BYTES = 2**20
"""Longest recipe or grid that is read."""
DATA = Path(__file__).resolve().parents[2] / "data"


@dataclass(frozen=True)
class CatalogueEntry:
    """A shipped file, as `list` shows it."""

    name: str
    path: Path
    summary: str
    """First comment line of the file."""


@dataclass(frozen=True)
class ShippedFiles:
    """A folder of shipped files."""

    folder: Path
    kind: str
    """Word for one of them: `recipe`, `grid`."""

    def names(self) -> tuple[str, ...]:
        """Return the sorted names; none where the folder is missing."""
        return tuple(sorted(path.stem for path in self.folder.glob("*.toml")))

    def find(self, name_or_path: str | Path) -> Path:
        """Return the file of a shipped name or of a path.

        Raises:
            RecipeError: neither a shipped name nor a file.
        """
        text = str(name_or_path)
        shipped = self.folder / f"{text}.toml"
        if "/" not in text and shipped.is_file():
            return shipped
        path = Path(text)
        if path.is_file():
            return path
        names = self.names()
        shipped_names = f"shipped: {', '.join(names)}{suggest(text, names)}"
        problem = f"no such file, and no shipped {self.kind} of that name; {shipped_names}"
        raise RecipeError(text, [problem], what=self.kind)

    def read(self, name_or_path: str | Path) -> tuple[str, dict[str, Any]]:
        """Read the tables of a file; its name is the shipped one, or the path.

        Raises:
            RecipeError: no such file, or no TOML.
        """
        path = self.find(name_or_path)
        name = path.stem if path.parent == self.folder else str(path)
        text = self._text(path)
        try:
            return name, tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # a number of too many digits, too
            raise RecipeError(name, [f"not valid TOML: {_toml_problem(text, error)}"], what=self.kind) from error

    def _text(self, path: Path) -> str:
        """Return the text of a file.

        Raises:
            RecipeError: it cannot be read, is longer than any recipe, or no text.
        """
        problem = f"longer than {MOST_BYTES:,} bytes; expected a {self.kind}"
        try:
            with open(path, "rb") as file:
                data = file.read(MOST_BYTES + 1)
            if len(data) <= MOST_BYTES:
                return data.decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            problem = f"not valid TOML: {error}"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        raise RecipeError(str(path), [problem], what=self.kind)

    def catalogue(self) -> list[CatalogueEntry]:
        """Return the shipped files with their first comment lines."""
        return [CatalogueEntry(name, self.folder / f"{name}.toml", self.summary(name)) for name in self.names()]

    def summary(self, name_or_path: str | Path) -> str:
        """Return the comment on a file's first line; empty without one.

        Raises:
            RecipeError: no such file.
        """
        line = self.show(name_or_path).partition("\n")[0]
        return line.lstrip("# ") if line.startswith("#") else ""

    def show(self, name_or_path: str | Path) -> str:
        """Return the text of a file, comments included.

        Raises:
            RecipeError: no such file.
        """
        return self._text(self.find(name_or_path))

    def copy(self, name: str, destination: str | Path, *, overwrite: bool = False) -> Path:
        """Copy a file into a file or folder and return the new one.

        Raises:
            RecipeError: no such file, or the destination exists and `overwrite` is off.
        """
        source, target = self.find(name), Path(destination)
        if target.is_dir():
            target = target / source.name
        if reason := in_the_way(target, overwrite=overwrite):
            raise RecipeError(name, [f"{target} {reason}"], what=self.kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self._text(source), encoding="utf-8")
        return target


RECIPES = ShippedFiles(DATA / "recipes", "recipe")
GRIDS = ShippedFiles(DATA / "grids", "grid")


def _toml_problem(text: str, error: ValueError | RecursionError) -> str:
    """Return what is wrong with a text that is no TOML: a key given twice by its name, else the parser's words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    place = re.search(r"overwrite a value \(at (?:line (\d+)|end of document)", str(error))
    if place is None:
        return str(error)
    lines = text.rstrip("\n").split("\n")
    line = int(place[1] or len(lines))
    return f"line {line} gives {show(lines[line - 1].partition('=')[0].strip())} a second time"
