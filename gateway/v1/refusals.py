"""Reading a provider's refusal: what it means for the next attempt, and what the client is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.v1.errors import (
    NO_RETRY,
    ProviderFailed,
    ProviderLimit,
    ProviderRefused,
    ProviderTimeout,
    V1Error,
)

# Statuses after which another deployment may do better.
_FALL_BACK = frozenset({401, 402, 403, 404, 405, 408, 409, 429})
_CONTEXT = re.compile(
    r"maximum context length|context length exceeded|context_length_exceeded|prompt is too long"
    r"|exceeds the context window|exceeds the available context size|exceeded model token limit|input is too long",
    re.IGNORECASE,
)
_FILTER = re.compile(r"content_filter|content management policy|content policy|safety system", re.IGNORECASE)
# What must not reach a client: key tails, and the names of our accounts at the provider.
_SECRET = re.compile(
    r"\b(?:sk|pk|gsk|xai|fw|org|proj|key|acct|user)[-_][A-Za-z0-9*_-]{4,}|https?://\S+|\S+@\S+\.\w+"
)
MAX_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class Refusal:
    """A provider's answer that is not a success.

    ``reason`` is a word for the request log; ``moves_on`` tells whether another deployment is worth a
    try; ``error`` is what the client gets if none is.
    """

    status: int
    reason: str
    moves_on: bool
    error: V1Error


def read_refusal(status: int, headers: Mapping[str, str], raw: bytes) -> Refusal:
    """Classify a provider's error answer. Never quotes more than the provider's own message, redacted."""
    message, code, param = _parts(raw)
    if status == 429:
        wait = headers.get("retry-after")
        error: V1Error = ProviderLimit(
            "The provider's rate limit was reached (not a limit of this gateway).",
            headers=[(b"retry-after", wait.encode())] if wait and len(wait) < 40 else None,
        )
        return Refusal(status, "rate_limited", True, error)
    if status in _FALL_BACK or status >= 500 or status < 400:
        reason = {401: "credential", 402: "credential", 403: "credential", 404: "unknown_model"}.get(
            status, "status"
        )
        if status in {408, 504}:
            return Refusal(status, "timeout", True, ProviderTimeout("The provider timed out."))
        return Refusal(status, f"{reason}_{status}", True, ProviderFailed(_FAILED[reason]))
    text = f"{code} {message}"
    if _CONTEXT.search(text):
        reason, code = "context_window", "context_length_exceeded"
    elif _FILTER.search(text):
        reason, code = "content_filter", "content_filter"
    else:
        reason = "refused"
    shown = _SECRET.sub("[…]", message)[:MAX_MESSAGE] or "The provider refused the request."
    return Refusal(
        status, reason, False, ProviderRefused(shown, code=code or None, param=param, headers=NO_RETRY)
    )


_FAILED = {
    "credential": "The provider refused this gateway's credential. The operator of this gateway must look into it.",
    "unknown_model": "The provider does not know the model that is configured for it.",
    "status": "The provider failed to answer.",
}


def _parts(raw: bytes) -> tuple[str, str, str | None]:
    """``(message, code, param)`` of an error body, whatever its shape; empty where it has none."""
    try:
        body: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return "", "", None
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return "", "", None
    error = body.get("error", body)
    if isinstance(error, str):
        return error, str(body.get("code") or ""), None
    if not isinstance(error, dict):
        return "", "", None
    message = error.get("message") or error.get("detail") or error.get("msg") or ""
    code = error.get("code") or error.get("status") or error.get("type") or ""
    param = error.get("param")
    return (
        message if isinstance(message, str) else "",
        str(code)[:64] if isinstance(code, str | int) else "",
        param[:100] if isinstance(param, str) else None,
    )
