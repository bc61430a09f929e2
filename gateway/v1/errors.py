"""What can go wrong under ``/v1``, each in the shape of an OpenAI error.

    V1Error
     +- InvalidRequest      400  the client's request is wrong
     +- Unauthorized        401  no key, or not one of ours
     +- NotAllowed          403  the key is good, but not for this
     +- EndUserBlocked      403  the organization has blocked whom the request is for
     +- NotFound            404  no such model or address
     +- MethodNotAllowed    405
     +- Conflict            409  the Idempotency-Key does not let it pass
     +- BodyTooLarge        413
     +- LimitReached        429  a limit of this gateway: requests, tokens, concurrency
     +- BudgetSpent         429  a budget of this gateway
     +- ProviderLimit       429  the provider's limit, after every candidate was tried
     +- ProviderRefused     400  the provider found the request wrong
     +- ProviderFailed      502  the provider failed, after every candidate was tried
     +- ProviderTimeout     504  the provider was too slow
     +- Unavailable         503  the gateway cannot take the request at the moment
     +- Internal            500  a defect of the gateway

``type``, ``param`` and ``code`` are always present, as the SDKs read them. ``x-should-retry`` is sent
where a retry cannot help or may be billed twice (openai-contract.md 5.1).
"""

from __future__ import annotations

from typing import ClassVar

import orjson

Headers = list[tuple[bytes, bytes]]
NO_RETRY: Headers = [(b"x-should-retry", b"false")]


class V1Error(Exception):
    """An answer that is an error. Raised anywhere in the data plane, sent by ``gateway.v1.app``."""

    status: ClassVar[int] = 500
    type: str = "api_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers: Headers = headers or []
        if code is not None:
            self.code = code

    def body(self) -> bytes:
        """The JSON body, ``{"error": {"message", "type", "param", "code"}}``."""
        return orjson.dumps(
            {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}
        )


class InvalidRequest(V1Error):
    """The request cannot be understood or breaks a rule of the API."""

    status = 400
    type = "invalid_request_error"


class Unauthorized(V1Error):
    """No key, or one that is unknown, revoked or expired."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class NotAllowed(V1Error):
    """The key may not do this."""

    status = 403
    type = "invalid_request_error"


class EndUserBlocked(V1Error):
    """The organization has blocked the end user; retrying cannot help."""

    status = 403
    type = "permission_error"
    code = "end_user_blocked"


class NotFound(V1Error):
    """No such model or address, as far as this key can see."""

    status = 404
    type = "invalid_request_error"


class MethodNotAllowed(V1Error):
    """The address exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class Conflict(V1Error):
    """Another request with the same Idempotency-Key is in the way."""

    status = 409
    type = "invalid_request_error"


class BodyTooLarge(V1Error):
    """The request body is over MAX_BODY_BYTES."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class LimitReached(V1Error):
    """A limit of this gateway on requests, tokens or concurrency; ``retry-after`` says when."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class BudgetSpent(V1Error):
    """A budget of this gateway does not allow the request; retrying cannot help."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


class ProviderLimit(V1Error):
    """The provider's own limit; ``retry-after`` is the provider's."""

    status = 429
    type = "rate_limit_error"
    code = "provider_rate_limited"


class ProviderRefused(V1Error):
    """The provider found the request wrong; its reason is passed on."""

    status = 400
    type = "invalid_request_error"


class ProviderFailed(V1Error):
    """Every candidate failed."""

    status = 502
    type = "api_error"
    code = "provider_error"


class ProviderTimeout(V1Error):
    """The provider did not answer in time."""

    status = 504
    type = "api_error"
    code = "provider_timeout"


class Unavailable(V1Error):
    """The gateway cannot take the request now: money or journal unavailable, or draining."""

    status = 503
    type = "api_error"
    code = "gateway_unavailable"


class Internal(V1Error):
    """A defect of the gateway. The message says nothing of its inside."""

    status = 500
    type = "api_error"
    code = "internal_error"
