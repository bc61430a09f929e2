"""Reading error bodies: every provider has its own shape, and some have several.

Only what is needed to classify an error, and a message without secrets, comes out of here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

MAX_MESSAGE: Final = 500
# A body inside a body is looked into this deep.
_MOST_DEPTH: Final = 3

# What must not reach a client: keys and their tails, addresses, the names of our accounts at the
# provider, ids of its requests, and what it repeats of the client's own words.
_SECRETS: Final = re.compile(
    r"https?://\S+|\S+@\S+\.\w+|\S*\*{2,}\S*"
    r"|\b(?:sk|pk|gsk|xai|fw|org|proj|key|acct|user|team|req)[-_][A-Za-z0-9*_-]{4,}"
    r"|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{10,}|\b[0-9a-f]{16,}\b"
    r"|\brequest[ _]id\W{1,3}[\w-]+"
    r"|\baccounts/[^/\s'\"]+"
    r"|(?<=value: )'.*?'|\binput_value=.*|['\"]input['\"]\s*:.*",
    re.IGNORECASE | re.DOTALL,
)
_ACCOUNT: Final = re.compile(r"\b(organization|team|project|subscription)\s+[`'\"]?[\w.-]*\d[\w.-]*[`'\"]?")
# MiniMax puts its code at the end of the message.
_TRAILING_CODE: Final = re.compile(r"\(\d{4}\)\s*$")

# So many bytes of a body that broke off are looked into.
_MOST_BROKEN: Final = 16_384
# A string, and a code, in a body that broke off, each with what follows it.
_WHOLE_STRING: Final = re.compile(r'(?<!\\)"\s*[,}\]]')
_WHOLE_CODE: Final = re.compile(r'"(?:code|status|type|status_code)"\s*:\s*"?([^",}\]]{1,100})"?\s*[,}\]]')

_NUMBER: Final = r"(\d+(?:\.\d+)?)"
_WAIT_TEXT: Final = re.compile(
    rf"(?:try again in|retry after|try again after|retry in)\s+(?:(\d+)h)?(?:(\d+)m(?!s))?(?:{_NUMBER}\s*(ms|s\b|sec))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error body says. ``codes`` are its code, status and type, the most telling first;
    ``wait`` is the advised pause in seconds, where the text gives one. ``cut``: it broke off; its words tell
    what kind of error it is and are not for showing, since what makes out a secret may be missing."""

    message: str
    codes: tuple[str, ...]
    param: str | None
    wait: float | None
    cut: bool = False

    @property
    def shown(self) -> str:
        """The message as a client may see it; may be empty."""
        if self.cut:
            return ""
        return _ACCOUNT.sub(r"\1 […]", _SECRETS.sub("[…]", self.message))[:MAX_MESSAGE]


def parse(raw: bytes) -> ErrorBody:
    """Read an error body of any shape; everything is empty where it has none (HTML, nothing at all)."""
    try:
        body: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _broken_off(raw) if raw.lstrip()[:1] in (b"{", b"[") else _NOTHING
    return _read(body, 0)


def reported_usage(raw: bytes) -> dict[str, Any] | None:
    """The usage object beside an error, as the provider sent it; None if there is none."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    usage = body.get("usage") if isinstance(body, dict) else None
    return usage if isinstance(usage, dict) else None


def advised_wait(headers: Mapping[str, str], body: ErrorBody) -> str | None:
    """The value of a ``retry-after`` header that repeats the provider's advice; None if it gave none."""
    given = headers.get("retry-after")
    if given and re.fullmatch(r"[\w ,:.+-]{1,40}", given):
        return given
    milliseconds = headers.get("retry-after-ms")
    if milliseconds and re.fullmatch(r"\d{1,9}(\.\d+)?", milliseconds):
        return str(math.ceil(float(milliseconds) / 1000))
    return None if body.wait is None else str(math.ceil(body.wait))


_NOTHING: Final = ErrorBody("", (), None, None)


def _broken_off(raw: bytes) -> ErrorBody:
    """What the beginning of a JSON text tells, up to its last whole string: half a sentence may mean anything."""
    text = raw[:_MOST_BROKEN].decode("utf-8", "ignore")
    whole = [found.end() for found in _WHOLE_STRING.finditer(text)]
    text = text[: whole[-1]] if whole else ""
    return ErrorBody(text, tuple(found[1] for found in _WHOLE_CODE.finditer(text)), None, None, cut=True)


def _read(body: Any, depth: int) -> ErrorBody:
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return _NOTHING
    error = body.get("error")
    if not error:
        errors = body.get("errors")
        error = errors[0] if isinstance(errors, list) and errors else body
    base = body.get("base_resp")
    if isinstance(base, dict):
        error = {"message": base.get("status_msg"), "code": f"({base.get('status_code')})"}
    if isinstance(error, str):
        error = {"message": error, "code": body.get("code")}
    if not isinstance(error, dict):
        return _NOTHING
    inner = _inner(error, depth)
    if inner is not None and inner.message:
        return inner
    message = _message(error) or _message(body)
    codes = [_code(error.get("code")), _code(error.get("status")), _code(error.get("type"))]
    if error is not body:
        codes.append(_code(body.get("code")))
    trailing = _TRAILING_CODE.search(message)
    if trailing:
        codes.insert(0, trailing.group().strip())
    param = error.get("param")
    return ErrorBody(
        message,
        tuple(code for code in codes if code),
        param[:100] if isinstance(param, str) and param else None,
        _wait(error, message),
    )


def _inner(error: dict[str, Any], depth: int) -> ErrorBody | None:
    """The error that a relay passes on inside its own (``metadata.raw``)."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if not isinstance(raw, str) or not raw or depth >= _MOST_DEPTH:
        return None
    code = _code(error.get("code"))
    try:
        found = _read(orjson.loads(raw), depth + 1)
    except orjson.JSONDecodeError:
        found = ErrorBody(raw, (), None, _wait({}, raw))
    return ErrorBody(found.message, (*found.codes, code) if code else found.codes, found.param, found.wait)


def _message(error: Mapping[str, Any]) -> str:
    for name in ("message", "detail", "msg"):
        value = error.get(name)
        if isinstance(value, dict):
            value = value.get("detail") or value.get("message")
        if isinstance(value, list):
            # Only what is said of each fault: beside it stands what the client sent.
            value = "; ".join(
                item["msg"] for item in value if isinstance(item, dict) and isinstance(item.get("msg"), str)
            )
        if isinstance(value, str) and value:
            return value
    return ""


def _code(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)[:100]


def _wait(error: Mapping[str, Any], message: str) -> float | None:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and re.fullmatch(rf"{_NUMBER}s", delay):
            return float(delay[:-1])
    found = _WAIT_TEXT.search(message)
    if found is None or not any(found.groups()[:3]):
        return None
    hours, minutes, number, unit = found.groups()
    rest = float(number or 0)
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + (rest / 1000 if unit == "ms" else rest)
