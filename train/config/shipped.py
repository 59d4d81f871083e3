"""Shipped TOML files that people list, show and copy: a folder of data/, found by name; no torch needed."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.settings import nearest
from spikebridge.train.errors import RecipeError

DATA = Path(__file__).resolve().parents[2] / "data"


@dataclass(frozen=True)
class Listed:
    """One shipped file, as `list` shows it."""

    name: str
    path: Path
    summary: str
    """First comment line of the file."""


@dataclass(frozen=True)
class Shelf:
    """A folder of shipped files."""

    folder: Path
    what: str
    """What one of them is called: `recipe`, `grid`."""

    def names(self) -> tuple[str, ...]:
        """Sorted; empty when the folder is missing."""
        return tuple(sorted(path.stem for path in self.folder.glob("*.toml")))

    def find(self, name_or_path: str | Path) -> Path:
        """The file of a shipped name or of a path.

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
        hint = (
            f"no such file, and no shipped {self.what} of that name; shipped: {', '.join(names)}{nearest(text, names)}"
        )
        raise RecipeError(text, [hint], what=self.what)

    def read(self, name_or_path: str | Path) -> tuple[str, dict[str, Any]]:
        """Name (the path of a file that is not shipped) and tables.

        Raises:
            RecipeError: no such file, or no TOML.
        """
        path = self.find(name_or_path)
        name = path.stem if path.parent == self.folder else str(path)
        try:
            return name, tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(name, [f"not valid TOML: {error}"], what=self.what) from error

    def listed(self) -> list[Listed]:
        """The shipped files with their first comment line."""
        listed = []
        for name in self.names():
            path = self.folder / f"{name}.toml"
            comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
            listed.append(Listed(name, path, comments[0].lstrip("# ") if comments else ""))
        return listed

    def show(self, name_or_path: str | Path) -> str:
        """Text of a file, comments included.

        Raises:
            RecipeError: no such file.
        """
        return self.find(name_or_path).read_text(encoding="utf-8")

    def copy(self, name: str, destination: str | Path, *, overwrite: bool = False) -> Path:
        """Copy a file into a file or folder and return the new one.

        Raises:
            RecipeError: no such file, or the destination exists and `overwrite` is off.
        """
        source, target = self.find(name), Path(destination)
        if target.is_dir():
            target = target / source.name
        if target.exists() and not overwrite:
            raise RecipeError(name, [f"{target} exists; choose another name or pass --overwrite"], what=self.what)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        return target


RECIPES = Shelf(DATA / "recipes", "recipe")
GRIDS = Shelf(DATA / "grids", "grid")
