"""JSON schemas made from declared settings, so that editors complete and check recipes while they are written.

A schema knows every key, its type, range, choices and default, and the rules between keys that JSON Schema can say.
What compares two numbers (`lr_min` with `lr`, milestones with `epochs`) the loader alone knows: `recipes validate`.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from typing import Any

from spikebridge.train.config.recipes import TABLES
from spikebridge.train.config.settings import JOIN, MIXING_METHODS, MIXINGS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TYPES = {"str": "string", "bool": "boolean", "int": "integer", "float": "number"}
Schema = dict[str, Any]


def setting_schema(declared: Field[Any], meaning: str = "") -> Schema:
    """Return the schema of one setting: what `pipeline.base.settings` holds its values against."""
    limits, kind = declared.metadata, str(declared.type)
    single = kind.removeprefix("tuple[").removesuffix(", ...]")
    one: Schema = {"type": TYPES[single]}
    if "joined" in limits:
        names = "|".join(map(re.escape, limits["choices"]))
        one["pattern"] = f"^({names})({re.escape(limits['joined'])}({names}))*$"
    elif "otherwise" in limits:
        one["anyOf"] = [{"enum": list(limits["choices"])}, {"pattern": f"^({limits['otherwise']})$"}]
    elif "choices" in limits:
        one["enum"] = list(limits["choices"])
    for limit, keyword in (("low", "minimum"), ("above", "exclusiveMinimum"), ("high", "maximum")):
        if limit in limits:
            one[keyword] = limits[limit]
    schema = one if single == kind else {"type": "array", "items": one}
    if limits.get("distinct"):
        schema |= {"minItems": 1, "uniqueItems": True}
    if declared.default is not MISSING:
        schema["default"] = list(declared.default) if isinstance(declared.default, tuple) else declared.default
    return schema | ({"description": meaning} if meaning else {})


def table_properties(table: type) -> dict[str, Schema]:
    """Return the schema of every setting of a table, with the text beneath its declaration."""
    meanings = _meanings(table)
    return {declared.name: setting_schema(declared, meanings.get(declared.name, "")) for declared in fields(table)}


def _meanings(table: type) -> dict[str, str]:
    """Return the text that stands beneath each field in the source of a dataclass, on one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(table))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for above, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[ast.unparse(above.target)] = " ".join(str(below.value.value).split())
    return found


def closed(properties: dict[str, Schema], required: Iterable[str] = ()) -> Schema:
    """Return the schema of a table that takes no other keys."""
    names = list(required)
    table: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return table | ({"required": names} if names else {})


def recipe_schema() -> Schema:
    """Return the JSON schema of a recipe."""
    tables = {}
    for name, table in TABLES.items():
        needed = [declared.name for declared in fields(table) if declared.default is MISSING]
        tables[name] = closed(table_properties(table), needed)
    tables["train"]["allOf"] = RULES
    untested: Schema = {"properties": {"train": {"properties": {"selection": {"enum": ["validation", "last"]}}}}}
    strict: Schema = {"properties": {"shards": {"properties": {"protocol": {"const": "strict"}}}}}
    whole = closed(tables, TABLES)
    return {"$schema": DIALECT, "title": "spikebridge recipe", **whole, "allOf": [{"if": strict, "then": untested}]}


def _when(properties: dict[str, Schema], then: dict[str, Schema], *, needs: Iterable[str] = ()) -> Schema:
    """Return a rule: where these keys are there, with such values, those others have such values."""
    then_schema: Schema = {"properties": then} | ({"required": list(needs)} if needs else {})
    return {"if": {"properties": properties, "required": list(properties)}, "then": then_schema}


_MIXING = "|".join(map(re.escape, MIXINGS))
RULES: list[Schema] = [
    _when({"milestones": {"minItems": 1}}, {"schedule": {"const": "step"}}, needs=["schedule"]),
    _when({"schedule": {"const": "step"}}, {"milestones": {"minItems": 1}}, needs=["milestones"]),
    _when({"step_weights": {"enum": ["bounded", "normalized"]}}, {"regularization": {"const": True}}),
    _when({"method": {"const": "tsm"}}, {"sliding": {"not": {"const": "off"}}}),
    _when(
        {"augmentation": {"pattern": f"(^|{re.escape(JOIN)})({_MIXING})($|{re.escape(JOIN)})"}},
        {
            "method": {"enum": list(MIXING_METHODS)},
            "augmentation": {"not": {"pattern": f"({_MIXING}).*({_MIXING})"}},
        },
    ),
    _when({"events_per_class": {"minimum": 1}}, {"events_share": {"const": 1}}),
]
"""Rules of `cross_problems` that name values; a test holds the two together."""
