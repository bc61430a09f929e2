"""Error answers in the shape OpenAI gives them."""

from collections.abc import Mapping
from typing import Any

import orjson

JSON_TYPE = b"application/json"


class SimulatedError(Exception):
    """An error answer: status, body and the headers that go with it.

    `body` is the finished response body; `headers` holds extra response headers as name -> value.
    """

    def __init__(
        self,
        status: int,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        content_type: bytes = JSON_TYPE,
    ) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = dict(headers or {})
        self.content_type = content_type


def error_object(message: str, kind: str, code: str | None, param: str | None) -> dict[str, Any]:
    """The `{"error": {...}}` object with its four members."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def failure(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> SimulatedError:
    """Build a SimulatedError with an OpenAI error body. `kind` is the error's `type`."""
    return SimulatedError(status, orjson.dumps(error_object(message, kind, code, param)), headers=headers)


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> SimulatedError:
    """A 400 for a request that does not follow the protocol."""
    return failure(400, message, param=param, code=code)


def not_found(method: str, path: str) -> SimulatedError:
    """A 404 for an address the simulator does not have."""
    return failure(404, f"Invalid URL ({method} {path})", code=None)


def unknown_model(name: str) -> SimulatedError:
    """A 404 for a model name that does not begin with `sim`."""
    return failure(
        404,
        f"The model `{name}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def wrong_key(*, missing: bool) -> SimulatedError:
    """A 401 for a missing or refused bearer key. The key itself is never repeated."""
    if missing:
        return failure(401, "You didn't provide an API key.")
    return failure(401, "Incorrect API key provided: [simulated].", code="invalid_api_key")


SERVER_ERROR = "[simulated] The server had an error while processing your request."

# name -> (status, message, type, code, param)
_PLANNED: dict[str, tuple[int, str, str, str | None, str | None]] = {
    "400": (400, "[simulated] The request is invalid.", "invalid_request_error", None, None),
    "400-context": (
        400,
        "[simulated] Your input exceeds the context window of this model: 130 tokens of 128.",
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
    ),
    "400-filter": (
        400,
        "[simulated] The request was rejected by the content filter.",
        "invalid_request_error",
        "content_filter",
        "messages",
    ),
    "400-prefill": (
        400,
        "[simulated] The last message must not be the assistant's.",
        "invalid_request_error",
        None,
        "messages",
    ),
    "401": (
        401,
        "[simulated] Incorrect API key provided.",
        "invalid_request_error",
        "invalid_api_key",
        None,
    ),
    "402": (
        402,
        "[simulated] Payment is required.",
        "insufficient_quota",
        "insufficient_quota",
        None,
    ),
    "403": (
        403,
        "[simulated] You are not allowed to use this model.",
        "permission_error",
        "permission_denied",
        None,
    ),
    "404": (
        404,
        "[simulated] The model does not exist or you do not have access to it.",
        "invalid_request_error",
        "model_not_found",
        None,
    ),
    "408": (408, "[simulated] The request took too long.", "server_error", "timeout", None),
    "409": (409, "[simulated] The request conflicts.", "invalid_request_error", "conflict", None),
    "413": (
        413,
        "[simulated] The request is too large.",
        "invalid_request_error",
        "request_too_large",
        None,
    ),
    "422": (422, "[simulated] Unprocessable.", "invalid_request_error", "unprocessable", None),
    "429": (
        429,
        "[simulated] Rate limit reached. Please try again later.",
        "requests",
        "rate_limit_exceeded",
        None,
    ),
    "429-quota": (
        429,
        "[simulated] You exceeded your current quota.",
        "insufficient_quota",
        "insufficient_quota",
        None,
    ),
    "500": (500, SERVER_ERROR, "server_error", None, None),
    "502": (502, "[simulated] Bad gateway.", "server_error", None, None),
    "503": (503, "[simulated] The engine is overloaded.", "server_error", "overloaded", None),
    "504": (504, "[simulated] The engine did not answer in time.", "server_error", None, None),
    "529": (529, "[simulated] Overloaded.", "server_error", "overloaded", None),
}

HTML_BODY = (
    b"<html><head><title>502 Bad Gateway</title></head>"
    b"<body><h1>502 Bad Gateway</h1><p>[simulated]</p></body></html>\n"
)

PLANNED_NAMES = (*_PLANNED, "html-502")


def planned(name: str, retry_after: str | None) -> SimulatedError:
    """The error answer of a fault such as `429`, `400-context` or `html-502`.

    A rate-limit 429 carries `retry-after: 1` (seconds) unless `retry_after` says another value;
    other faults carry the header only when `retry_after` is given. Raises KeyError for a name
    that is not in PLANNED_NAMES.
    """
    if name == "429" and retry_after is None:
        retry_after = "1"
    headers = {} if retry_after is None else {"retry-after": retry_after}
    if name == "html-502":
        return SimulatedError(502, HTML_BODY, headers=headers, content_type=b"text/html; charset=utf-8")
    status, message, kind, code, param = _PLANNED[name]
    return failure(status, message, kind=kind, code=code, param=param, headers=headers)
