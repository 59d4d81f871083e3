"""One reader per data-set pair, in a file of its own; a new file is all that a new data set takes."""

from __future__ import annotations

import importlib
import pkgutil

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.names import suggest
from spikebridge.pipeline.datasets.pairs import READERS, PairReader


def list_readers() -> list[PairReader]:
    """Return every reader, by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return [READERS[name]() for name in sorted(READERS)]


def get_reader(name: str) -> PairReader:
    """Return the reader of a data set.

    Raises:
        SettingsError: no such data set; the message lists near matches.
    """
    readers = {reader.name: reader for reader in list_readers()}
    if name not in readers:
        raise SettingsError(f"no data set is called {name!r}; known: {', '.join(readers)}{suggest(name, readers)}")
    return readers[name]
