"""Reading a provider's refusal: what it means for the next attempt, and what the client is told.

The status alone lies: "no money" comes as any of 200, 400, 401, 402, 403, 412, 429 and 500. So an error is
classified by its code, then by its words, and by its status only after that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.v1.error_bodies import ErrorBody, advised_wait, parse
from gateway.v1.errors import (
    NO_RETRY,
    Headers,
    ProviderFailed,
    ProviderLimit,
    ProviderRefused,
    ProviderTimeout,
    V1Error,
)

CLIENT: Final = "client"
PROVIDER: Final = "provider"
OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A provider's answer that is not a success.

    ``reason`` is a word for the request log; ``fault`` says whose it is (client, provider, operator);
    ``moves_on`` tells whether another deployment is worth a try; ``error`` is what the client gets if
    none is.
    """

    status: int
    reason: str
    fault: str
    moves_on: bool
    error: V1Error


# The classes of refusal, with whose fault each is. Only a client's fault is not tried elsewhere.
FAULTS: Final = {
    "no_money": OPERATOR,
    "credential": OPERATOR,
    "unknown_model": OPERATOR,
    "context_window": CLIENT,
    "content_filter": CLIENT,
    "refused": CLIENT,
    "rate_limited": PROVIDER,
    "over_limit": PROVIDER,
    "overloaded": PROVIDER,
    "timeout": PROVIDER,
    "failed": PROVIDER,
}


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# By code: each must match the whole of it. Codes in brackets are MiniMax's. The first class that fits wins.
_CODES: Final = {
    "no_money": _words(
        r"insufficient_quota|insufficient_balance_error|exceeded_current_quota_error|billing_error",
        r"arrearage|AccountOverdueError|QuotaExceeded|SetLimitExceeded|1113|1308|1310|\(1008\)|\(2056\)",
    ),
    "credential": _words(
        r"invalid_api_key|incorrect_api_key_error|invalid_authentication_error|authentication_?error",
        r"authorized_error|API_KEY_INVALID|UNAUTHENTICATED|\(1004\)|\(2049\)",
    ),
    "unknown_model": _words(
        r"model_not_found|model_decommissioned|DeploymentNotFound|InvalidEndpointOrModel\.NotFound|ModelNotOpen",
        r"(?:resource_)?not_found_error|NotFoundError|NOT_FOUND|not-found|invalid_model|tier_not_allowed",
        r"AccessDenied\.Unpurchased|1211|1500|1910|\(2061\)",
    ),
    "context_window": _words(r"context_length_exceeded|exceed_context_size_error|OutofContextError|1261"),
    "content_filter": _words(
        r"content_filter|content_policy_violation|cyber_policy|data_inspection_failed|1301|\(1026\)|\(1027\)",
        r".*Sensitive.*|.*RiskDetection.*|sensitive",
    ),
    "overloaded": _words(
        r"overloaded_error|engine_overloaded_error|ServerOverloaded|service_tier_capacity_exceeded|3505",
        r"unavailable_error|UNAVAILABLE|The service is currently unavailable",
    ),
    "timeout": _words(r"\(1001\)"),
    "rate_limited": _words(
        r"rate_limit(?:_exceeded|_error|_reached_error|ed)|limit_requests|throttling.*|too_many_requests",
        r"RESOURCE_EXHAUSTED|RequestBurstTooFast|InflightBatchsizeExceeded|.*(?:rpm|tpm|RateLimit).*",
        r"130[02-5]|\(1002\)|\(1039\)",
    ),
}
# By the words of the message.
_MESSAGES: Final = {
    "rate_limited": _words(r"too many tokens, please wait"),
    "no_money": _words(
        r"insufficient balance|insufficient credits|credit balance is too low|used all available credits",
        r"monthly spending limit|requires more credits|account is in good standing|overdue balance",
    ),
    "credential": _words(
        r"(?:incorrect|invalid) api key|api key (?:not valid|you provided is invalid)|authentication fails",
        r"no auth credentials|missing authentication header|invalid authentication|invalid api token",
    ),
    "context_window": _words(
        r"maximum context length|context length exceeded|context_length_exceeded|maximum prompt length is",
        r"prompt is too long|input token count .* exceeds|exceeds the available context size",
        r"exceeded model token limit|input token length too long",
        r"too large for model with \d+ maximum context length|longer than the model's context length",
        r"maximum input length|range of input length should be|exceeds the context window",
        r"current length is .* while limit is|greater than the context length|input is too long|too many tokens",
        r"must be less than the context length",
    ),
    "unknown_model": _words(
        r"is not a valid model id|model not found|model\s.{0,120}(?:does not exist|not found)|unknown model",
        r"model identifier is invalid|invalid model: |isn't supported on this route|plan not support model",
    ),
    "content_filter": _words(
        r"content management policy|safety system|inappropriate content|considered high risk|content policy",
        r"requires moderation|input was flagged|contains sensitive content|content[_ ]filter",
    ),
    "overloaded": _words(r"\boverloaded\b|service is currently unavailable|loading model"),
    "refused": _words(r"image input is not supported"),
}
# A request that is over the limit by itself: it never succeeds there.
_OVER_LIMIT: Final = _words(
    r"request too large for .*tokens per min", r"input or output tokens must be reduced"
)
# With status 429 the words may speak of money or load; anything else is the limit.
_WITH_429: Final = ("no_money", "overloaded")

_STATUSES: Final = {
    **dict.fromkeys((401, 403), "credential"),
    **dict.fromkeys((402, 412), "no_money"),
    **dict.fromkeys((404, 405), "unknown_model"),
    **dict.fromkeys((408, 504), "timeout"),
    **dict.fromkeys((498, 503, 529), "overloaded"),
    **dict.fromkeys((409, 434, 435), "failed"),
    429: "rate_limited",
}
# What MiniMax means where it answers with status 200.
_STATUS_OF_CODE: Final = {"(2013)": 400, "(1042)": 400}


def read_refusal(status: int, headers: Mapping[str, str], raw: bytes) -> Refusal:
    """Classify a provider's error answer. ``status`` is 200 for an error inside a success: in a stream, or
    as the body. Never quotes more than the provider's own message, redacted."""
    body = parse(raw)
    meant = status if status >= 400 else _meant(body)
    reason = _class(meant, body)
    if meant == 402 and reason == "no_money" and headers.get("retry-after"):
        # Money that is only held by other requests in flight.
        reason = "rate_limited"
    fault = FAULTS[reason]
    return Refusal(status, reason, fault, fault != CLIENT, _error(reason, headers, body))


def _class(status: int, body: ErrorBody) -> str:
    if _OVER_LIMIT.search(body.message):
        return "over_limit"
    for code in body.codes:
        for reason, pattern in _CODES.items():
            if pattern.fullmatch(code):
                return reason
    for reason, pattern in _MESSAGES.items():
        if (status != 429 or reason in _WITH_429) and pattern.search(body.message):
            return reason
    # What broke off may have blamed anybody, so it does not blame the client.
    blames = 400 <= status < 500 and not body.cut
    return _STATUSES.get(status) or ("refused" if blames else "failed")


def _meant(body: ErrorBody) -> int:
    """The status that an error inside a success stands for."""
    for code in body.codes:
        if re.fullmatch(r"[45]\d\d", code):
            return int(code)
        if code in _STATUS_OF_CODE:
            return _STATUS_OF_CODE[code]
    return 502


def _error(reason: str, headers: Mapping[str, str], body: ErrorBody) -> V1Error:
    match reason:
        case "context_window":
            shown = body.shown or "The request is longer than the model's context window."
            return ProviderRefused(
                shown, code="context_length_exceeded", param=body.param or "messages", headers=NO_RETRY
            )
        case "content_filter":
            # Its words may repeat what was filtered.
            return ProviderRefused(
                "The provider's content filter rejected the request.", code="content_filter", headers=NO_RETRY
            )
        case "refused":
            shown = body.shown or "The provider refused the request."
            return ProviderRefused(shown, code=_telling(body.codes), param=body.param, headers=NO_RETRY)
        case "rate_limited":
            return ProviderLimit(
                "The provider's rate limit was reached (not a limit of this gateway).",
                headers=_advice(headers, body),
            )
        case "over_limit":
            return ProviderLimit(
                "The request is larger than the provider's rate limit allows at any time.", headers=NO_RETRY
            )
        case "overloaded":
            return ProviderFailed(
                "The provider is overloaded.", code="provider_overloaded", headers=_advice(headers, body)
            )
        case "timeout":
            return ProviderTimeout("The provider timed out.", headers=_advice(headers, body))
        case "failed":
            return ProviderFailed("The provider failed to answer.", headers=_advice(headers, body))
        case _:
            return ProviderFailed(_OPERATORS[reason], headers=NO_RETRY)


_OPERATORS: Final = {
    "credential": "The provider refused this gateway's credential. The operator of this gateway must look into it.",
    "no_money": "The provider's account is not in order. The operator of this gateway must look into it.",
    "unknown_model": "The provider does not know the model that is configured for it.",
}


def _advice(headers: Mapping[str, str], body: ErrorBody) -> Headers:
    wait = advised_wait(headers, body)
    return [] if wait is None else [(b"retry-after", wait.encode("latin-1", "ignore"))]


def _telling(codes: tuple[str, ...]) -> str | None:
    """The first code that says more than that there was an error."""
    for code in codes:
        if re.fullmatch(r"[a-z][a-z_]{2,60}", code) and not code.endswith("error"):
            return code
    return None
