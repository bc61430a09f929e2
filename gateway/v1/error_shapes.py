"""An error in the words of the API that was called: OpenAI's, or Anthropic's under ``/v1/messages``."""

from __future__ import annotations

from typing import Final, Protocol

import orjson

from gateway.v1.errors import V1Error

# Anthropic's statuses and types (docs.anthropic.com, "Errors"); every other status keeps its number.
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OVERLOADED: Final = frozenset({"provider_overloaded", "gateway_overloaded", "provider_unavailable"})


class ErrorShape(Protocol):
    """How an API tells an error."""

    def status(self, error: V1Error) -> int:
        """The HTTP status."""
        ...

    def body(self, error: V1Error, request_id: str | None) -> bytes:
        """The JSON body. ``request_id`` None: it is not told."""
        ...


class OpenAIErrors:
    """``{"error": {"message", "type", "param", "code"}}``."""

    def status(self, error: V1Error) -> int:
        """See ErrorShape."""
        return error.status

    def body(self, error: V1Error, request_id: str | None) -> bytes:  # noqa: ARG002  # it stands in a header
        """See ErrorShape."""
        return error.body()


class AnthropicErrors:
    """``{"type": "error", "error": {"type", "message"}, "request_id"}``."""

    def status(self, error: V1Error) -> int:
        """See ErrorShape. Who is overloaded says so with 529."""
        return 529 if error.code in _OVERLOADED else error.status

    def body(self, error: V1Error, request_id: str | None) -> bytes:
        """See ErrorShape."""
        inner = {"type": _TYPES.get(self.status(error), "api_error"), "message": error.message}
        return orjson.dumps({"type": "error", "error": inner, "request_id": request_id})


OPENAI: Final = OpenAIErrors()
ANTHROPIC: Final = AnthropicErrors()
