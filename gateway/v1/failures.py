"""How an attempt can end without a whole answer, and what the client is told then."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.v1.contracts import INVALID_OUTPUT, Broken
from gateway.v1.errors import NO_RETRY, ProviderFailed, ProviderRefused, ProviderTimeout, V1Error
from gateway.v1.refusals import Refusal, read_refusal
from gateway.v1.stream import StreamScanner
from gateway.v1.upstream import AnswerTooLarge, ConnectFailed, UpstreamError, UpstreamTimeout


class AttemptFailed(Exception):
    """One attempt is over without content. ``error`` is for the client if it was the last."""

    def __init__(
        self, reason: str, error: V1Error, *, moves_on: bool = True, end_reason: str = "provider_error"
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error
        self.moves_on = moves_on
        self.end_reason = end_reason


class BrokenStream(Exception):
    """The provider's stream broke after content had gone to the client."""

    def __init__(self, reason: str, error: V1Error, end_reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error
        self.end_reason = end_reason


def read_reported(error: dict[str, Any]) -> Refusal:
    """What an error object means that came with status 200, as an event or as the answer."""
    return read_refusal(200, {}, orjson.dumps({"error": error}))


def failed(error: UpstreamError) -> AttemptFailed:
    """The attempt ended before any content because the provider was away, too slow or hung up."""
    match error:
        case UpstreamTimeout(phase="connect") | ConnectFailed():
            return AttemptFailed(error.reason, ProviderFailed("The provider could not be reached."))
        case UpstreamTimeout():
            # The provider may have worked, and may bill, for what it did not deliver in time.
            late = ProviderTimeout("The provider did not answer in time.", headers=NO_RETRY)
            return AttemptFailed(error.reason, late, end_reason="timeout")
        case AnswerTooLarge():
            # The provider has worked, and may bill, for what is too much to take.
            large = ProviderFailed(
                "The provider's answer is larger than this gateway takes.", headers=NO_RETRY
            )
            return AttemptFailed(error.reason, large)
        case _:
            return AttemptFailed(
                error.reason, ProviderFailed("The provider closed the connection without an answer.")
            )


def refused(refusal: Refusal) -> AttemptFailed:
    """The provider answered with an error."""
    return AttemptFailed(refusal.reason, refusal.error, moves_on=refusal.moves_on)


def unsupported(param: str, provider: str) -> AttemptFailed:
    """The request asks for what this provider cannot do; it was not sent there."""
    return AttemptFailed(
        "unsupported",
        ProviderRefused(
            f"Unsupported parameter: '{param}' is not supported by {provider}.",
            code="unsupported_parameter",
            param=param,
            headers=NO_RETRY,
        ),
    )


def invalid_output(broken: Broken, *, moves_on: bool) -> AttemptFailed:
    """The answer is not valid against the schema that the client asked for."""
    return AttemptFailed(
        INVALID_OUTPUT,
        ProviderFailed(str(broken), code="invalid_structured_output", headers=NO_RETRY),
        moves_on=moves_on,
    )


def broken(error: UpstreamError) -> BrokenStream:
    """The provider stopped or hung up after content had gone to the client."""
    if isinstance(error, UpstreamTimeout):
        return BrokenStream(
            error.reason,
            ProviderTimeout("The provider stopped in the middle of its answer; it is not complete."),
            "cut",
        )
    return BrokenStream(
        error.reason,
        ProviderFailed("The provider's connection broke in the middle of its answer; it is not complete."),
        "cut",
    )


def incomplete(scanner: StreamScanner, *, answering: bool) -> AttemptFailed | BrokenStream:
    """What to say of a stream that ended before its answer did."""
    if scanner.error is not None:
        refusal = read_reported(scanner.error)
        if not answering:
            return refused(refusal)
        reason = "error_event"
        filtered = refusal.error.code if refusal.reason == "content_filter" else None
        error: V1Error = ProviderFailed(
            "The provider reported an error in the middle of its answer; it is not complete.", code=filtered
        )
    else:
        reason = "overflow" if scanner.overflow else "no_end"
        error = ProviderFailed("The provider's answer ended before it was complete.")
    return BrokenStream(reason, error, "cut") if answering else AttemptFailed(reason, error)
