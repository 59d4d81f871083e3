"""One reader per data-set pair, in a file of its own; a new file is all that a new data set takes."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.names import suggest
from spikebridge.pipeline.datasets.pairs import READERS, PairReader
from spikebridge.pipeline.datasets.tables import DEFAULT, FolderOptions
from spikebridge.pipeline.formats.tables.columns import TableOptions
from spikebridge.pipeline.plugins.loading import load_plugins
from spikebridge.pipeline.readers.folders import Folders


def list_readers() -> list[PairReader]:
    """Return every reader, by name.

    Raises:
        SettingsError: see `pipeline.plugins.loading.load_plugins`.
    """
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    load_plugins()
    return [READERS[name]() for name in sorted(READERS)]


def get_reader(name: str, *, folders: FolderOptions = DEFAULT, **options: Any) -> PairReader:
    """Return the reader of a data set; `folders`, and `options` of `TableOptions`, go with the data set folders alone.

    Raises:
        SettingsError: no such data set, and the message lists near matches; or options that do not fit it.
    """
    readers = {reader.name: reader for reader in list_readers()}
    if name not in readers:
        raise SettingsError(f"no data set is called {name!r}; known: {', '.join(readers)}{suggest(name, readers)}")
    reader, table = readers[name], TableOptions(**options)
    if isinstance(reader, Folders):
        reader.table, reader.options = table, folders
    elif table != TableOptions() or folders != DEFAULT:
        raise SettingsError(
            "columns, group, time unit, labels, class map, group-by and pairing go with data set folders only; "
            f"{name} knows its own."
        )
    return reader
