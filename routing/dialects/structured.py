"""Structured output: what a client asks for, and how to ask a provider for it in words."""

from __future__ import annotations

from typing import Any

import orjson


def asked_schema(form: Any) -> dict[str, Any] | None:
    """The JSON schema of a ``response_format``; None if it names none."""
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return None
    wanted = form.get("json_schema")
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    return schema if isinstance(schema, dict) else None


def instruction(form: Any) -> str:
    """What a model is told that cannot be asked for ``form`` otherwise; empty where nothing is needed."""
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in ("json_object", "json_schema"):
        return ""
    told = "Answer with one JSON object and nothing else: no explanation, no Markdown."
    schema = asked_schema(form)
    if schema is None:
        return told
    return (
        "Answer with one JSON value and nothing else: no explanation, no Markdown. "
        f"It must be valid against this JSON schema:\n{orjson.dumps(schema).decode()}"
    )
