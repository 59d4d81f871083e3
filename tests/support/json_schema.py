"""A checker of JSON schemas that knows the keywords which `recipes schema` and `grids schema` use, and no others."""

import re

KINDS = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "array": list, "object": dict}
SILENT = {"$schema", "title", "description", "default"}


def fits(value, schema):
    """Whether a value fits a schema; an unknown keyword is an error."""
    kind = schema.get("type")
    if kind and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    rest = {name: rule for name, rule in schema.items() if name not in SILENT | {"type", "then", "else"}}
    return all(CHECKS[name](value, rule, schema) for name, rule in rest.items())


def number(test):
    return lambda value, rule, _: not isinstance(value, int | float) or test(value, rule)


def of(kind, test):
    return lambda value, rule, schema: not isinstance(value, kind) or test(value, rule, schema)


CHECKS = {
    "enum": lambda value, rule, _: value in rule,
    "const": lambda value, rule, _: value == rule,
    "minimum": number(lambda value, rule: value >= rule),
    "exclusiveMinimum": number(lambda value, rule: value > rule),
    "maximum": number(lambda value, rule: value <= rule),
    "pattern": of(str, lambda value, rule, _: re.search(rule, value) is not None),
    "items": of(list, lambda value, rule, _: all(fits(one, rule) for one in value)),
    "minItems": of(list, lambda value, rule, _: len(value) >= rule),
    "maxItems": of(list, lambda value, rule, _: len(value) <= rule),
    "uniqueItems": of(list, lambda value, rule, _: all(value.count(one) == 1 for one in value)),
    "minProperties": of(dict, lambda value, rule, _: len(value) >= rule),
    "required": of(dict, lambda value, rule, _: set(rule) <= set(value)),
    "properties": of(dict, lambda value, rule, _: all(fits(value[name], rule[name]) for name in rule if name in value)),
    "additionalProperties": of(dict, lambda value, rule, schema: rule or set(value) <= set(schema["properties"])),
    "allOf": lambda value, rule, _: all(fits(value, one) for one in rule),
    "anyOf": lambda value, rule, _: any(fits(value, one) for one in rule),
    "not": lambda value, rule, _: not fits(value, rule),
    "if": lambda value, rule, schema: fits(value, schema.get("then" if fits(value, rule) else "else", {})),
}
