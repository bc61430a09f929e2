"""JSON schemas as Gemini takes them, for tools and for answers."""

from __future__ import annotations

from typing import Any, Final

import orjson

# https://ai.google.dev/api/generate-content#FIELDS.response_json_schema
_KNOWN: Final = frozenset(
    {
        *("$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items"),
        *("prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties"),
        *("additionalProperties", "required", "propertyOrdering"),
    }
)
# Of no use to a model: not even told in words.
_SILENT: Final = frozenset({"$schema", "$comment", "default", "examples", "strict", "readOnly", "writeOnly"})


def lowered(schema: Any) -> Any:
    """A copy of ``schema`` with known keywords alone. ``const`` becomes an enumeration of one, ``allOf`` of one
    schema that schema, an array has items; other constraints go into the description."""
    if isinstance(schema, list):
        return [lowered(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        # Nothing may stand beside a reference but definitions.
        return {name: _definitions(value) for name, value in schema.items() if name in ("$ref", "$defs")}
    kept: dict[str, Any] = {}
    moved: dict[str, Any] = {}
    for name, value in schema.items():
        if name in ("properties", "$defs"):
            kept[name] = _definitions(value)
        elif name in ("enum", "required"):
            kept[name] = value
        elif name == "const":
            kept["enum"] = [value]
        elif name == "allOf" and isinstance(value, list) and len(value) == 1:
            kept |= lowered(value[0]) if isinstance(value[0], dict) else {}
        elif name in _KNOWN:
            kept[name] = lowered(value)
        elif name not in _SILENT:
            moved[name] = value
    if kept.get("type") == "array" and "items" not in kept and "prefixItems" not in kept:
        kept["items"] = {}
    if moved:
        told = ", ".join(f"{name}: {orjson.dumps(value).decode()}" for name, value in moved.items())
        kept["description"] = f"{kept.get('description', '')}\n\n{{{told}}}".strip()
    return kept


def _definitions(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: lowered(inner) for name, inner in value.items()}
