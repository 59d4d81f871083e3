"""The JSON schema of grids; see `train.config.schema`."""

from __future__ import annotations

from spikebridge.train.config.recipes import TABLES
from spikebridge.train.config.schema import DIALECT, Schema, closed, table_properties
from spikebridge.train.config.settings import METHODS
from spikebridge.train.studies.grids import AXES, OWNED, GridFile


def grid_schema() -> Schema:
    """Return the JSON schema of a grid."""
    settings = {name: one for table in TABLES.values() for name, one in table_properties(table).items()}
    free = {name: one for name, one in settings.items() if name not in OWNED}
    swept = {name: one for name, one in settings.items() if name not in ("seed", *AXES)}
    values = {name: {"type": "array", "items": one, "minItems": 1, "uniqueItems": True} for name, one in swept.items()}
    keys = table_properties(GridFile)
    row: dict[str, Schema] = {
        "label": {"type": "string"},
        "method": {"enum": list(METHODS)},
        "switches": closed(free),
        "note": {"type": "string"},
        **{axis: keys[axis] for axis in AXES},
    }
    content = {
        **keys,
        "settings": closed(free),
        "rows": {"type": "array", "minItems": 1, "items": closed(row, ["method"])},
        "sweep": {**closed(values), "minProperties": 1},
    }
    label = {"required": ["label"], "properties": {"label": {"pattern": "[A-Za-z0-9]"}}}
    return {
        "$schema": DIALECT,
        "title": "spikebridge grid",
        **closed(content, ["recipe", "seeds"]),
        "not": {"required": list(AXES)},
        "if": {"required": ["sweep"]},
        "then": {"properties": {"baselines": {"maxItems": 0}, "finalist": {"const": ""}}},
        "else": {
            "required": ["reference", "rows"],
            "anyOf": [{"required": [axis]} for axis in AXES],
            "properties": {"rows": {"items": label}},
        },
    }
