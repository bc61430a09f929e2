"""JSON schemas as Anthropic takes them where it holds an answer to one."""

from __future__ import annotations

from typing import Any, Final

import orjson

# Constraints that are refused. They go into the description, for the model to read.
_REFUSED: Final = frozenset(
    {
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    }
)
_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)


def strict(schema: Any) -> Any:
    """A copy of ``schema`` with objects closed and refused constraints moved into descriptions."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    moved: dict[str, Any] = {}
    for name, value in schema.items():
        refused = name in _REFUSED or (
            (name == "minItems" and value not in (0, 1)) or (name == "format" and value not in _FORMATS)
        )
        if refused:
            moved[name] = value
        elif name in ("properties", "$defs", "definitions") and isinstance(value, dict):
            kept[name] = {key: strict(inner) for key, inner in value.items()}
        elif name in ("enum", "const", "default", "examples", "required") or name == "$schema":
            if name != "$schema":
                kept[name] = value
        elif name == "oneOf":
            kept["anyOf"] = strict(value)
        else:
            kept[name] = strict(value)
    if kept.get("type") == "object" or "properties" in kept:
        kept["additionalProperties"] = False
    if moved:
        told = ", ".join(f"{name}: {orjson.dumps(value).decode()}" for name, value in moved.items())
        kept["description"] = f"{kept.get('description', '')}\n\n{{{told}}}".strip()
    return kept
